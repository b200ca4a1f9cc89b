# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the small files by which a Linux host describes itself; what cannot be read is None."""

from __future__ import annotations

import re
import struct
from pathlib import Path

_FAMILY = re.compile(r"([0-9]+)\.([0-9]+)")


def read_text(path: Path) -> str | None:
    """The file's text, or None if it is not there or not for us."""
    try:
        # As bytes: a carriage return is not the end of a line.
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The file's one decimal number, or None."""
    text = read_text(path)
    if text is None or not text.strip().lstrip("-").isdigit():
        return None
    return int(text)


_NAME = re.compile(r"[A-Za-z0-9._-]{1,31}")
_BLANKS = " \t\r\n\v\f"


def os_release_value(text: str, key: str) -> str | None:
    """The value of KEY=; None where there is none, or none that can be a part of a name.

    Loader and kill script read ID by the same rules: the last line counts, with a final newline or
    without, blanks and a carriage return behind the value do not, quotes must be a pair, and a byte
    order mark may begin the file.
    """
    lines = (text[1:] if text.startswith("\ufeff") else text).split("\n")
    values = [line[len(key) + 1 :].rstrip(_BLANKS) for line in lines if line.startswith(f"{key}=")]
    value = values[-1] if values else ""
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return value if _NAME.fullmatch(value) else None


def read_os_release(root: Path) -> dict[str, str | None]:
    """{"id", "version_id"} of the first os-release file that gives an ID, null where none does."""
    found: dict[str, str | None] = {"id": None, "version_id": None}
    for path in (root / "etc/os-release", root / "usr/lib/os-release"):
        text = read_text(path)
        if text is None or found["id"] is not None:
            continue
        version = os_release_value(text, "VERSION_ID")
        found = {"id": os_release_value(text, "ID"), "version_id": version or found["version_id"]}
    return found


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
