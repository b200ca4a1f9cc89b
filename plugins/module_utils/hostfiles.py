# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Read the small files by which a Linux host describes itself; what cannot be read is None."""

from __future__ import annotations

import re
import struct
from pathlib import Path

_FAMILY = re.compile(r"([0-9]+)\.([0-9]+)")


def read_text(path: Path) -> str | None:
    """The file's text, or None if it is not there or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The file's one decimal number, or None."""
    text = read_text(path)
    if text is None or not text.strip().lstrip("-").isdigit():
        return None
    return int(text)


def read_os_release(root: Path) -> dict[str, str | None]:
    """{"id", "version_id"} of os-release, null where it does not say."""
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.lower(): _unquoted(lines.get(key)) for key in ("ID", "VERSION_ID")}


def _unquoted(value: str | None) -> str | None:
    return None if value is None else value.strip().strip("\"'")


def kernel_family(release: str) -> str | None:
    """MAJOR.MINOR of a kernel release: 6.1 of 6.1.0-31-cloud-amd64; None if it starts otherwise."""
    found = _FAMILY.match(release)
    return None if found is None else "{}.{}".format(*found.groups())


_NOTE_BUILD_ID = 3  # NT_GNU_BUILD_ID of elf.h


def build_id_of(notes: bytes) -> str | None:
    """The GNU build id among ELF notes of this machine's byte order, in hex; None where there is none."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("=III", notes, at)
        name_at = at + 12
        data_at = name_at + (name_size + 3 & ~3)
        if kind == _NOTE_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            return notes[data_at : data_at + size].hex()
        at = data_at + (size + 3 & ~3)
    return None
