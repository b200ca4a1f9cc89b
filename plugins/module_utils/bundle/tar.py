# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The headers of a bundle's tar, read strictly: regular members with a name, a size and a mode, nothing else.

Python's tarfile reads a pax header of any size into memory, follows sparse maps and takes a negative
number for a size. Here no member is read at all: a header says where its bytes lie, and whatever is not the
plain form of docs/trust-formats.md is one refusal.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Iterator, NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

BLOCK = 512
MAX_EXTENSION = 16 * 1024
ZEROS = bytes(BLOCK)
USTAR, GNU = b"ustar\x0000", b"ustar  \x00"
REGULAR = (b"0", b"\0")
LONG_NAME, PAX = b"L", b"x"
# What a pax header may say of a member without changing what it is or where its bytes lie.
HARMLESS = ("mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "LIBARCHIVE.creationtime")


class Entry(NamedTuple):
    """A regular member: its name, permission bits and size, and where in the archive its bytes begin."""

    name: str
    mode: int
    size: int
    offset: int


class _Header(NamedTuple):
    name: str
    mode: int
    size: int
    kind: bytes


def _refuse(name: str, problem: str) -> NoReturn:
    raise FleetError("EF_FILE_TYPE", f"{name}: {problem}; use the bundle as it was signed", name)


def entries(file: BinaryIO, archive: str) -> Iterator[Entry]:
    """The members of an uncompressed tar in their order; reads headers only.

    Raises FleetError (EF_FILE_TYPE, EF_FILE_SIZE). Names and sizes are as the archive claims them: hold them
    to the rules before reading.
    """
    total = os.fstat(file.fileno()).st_size
    at, long_name, count = 0, None, 0
    while True:
        block = _read_at(file, at, BLOCK)
        if block == ZEROS or not block:
            break
        header = _parse(block, archive)
        at += BLOCK
        if header.size > total - at:
            problem = f"the archive ends after {max(total - at, 0)} of its {header.size} bytes"
            raise FleetError("EF_FILE_SIZE", f"{header.name}: {problem}; transfer it again", header.name)
        if header.kind in (LONG_NAME, PAX):
            long_name = _extension(header, file, at, long_name)
        elif header.kind in REGULAR:
            yield Entry(header.name if long_name is None else long_name, header.mode, header.size, at)
            long_name = None
        else:
            _refuse(header.name if long_name is None else long_name, "is not a regular file")
        at += -(-header.size // BLOCK) * BLOCK
        count += 1
    if not count:
        _refuse(archive, "is not an uncompressed tar with members")
    if long_name is not None:
        _refuse(archive, "ends behind a name without a member")
    _only_zeros(file, at, archive)


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, at)


def _parse(block: bytes, archive: str) -> _Header:
    if len(block) != BLOCK or block[257:265] not in (USTAR, GNU):
        _refuse(archive, "is not a readable uncompressed tar")
    if _octal(block[148:156]) != sum(block[:148]) + sum(block[156:]) + 8 * ord(" "):
        _refuse(archive, "is not a readable uncompressed tar: the checksum of a header is wrong")
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:265] == USTAR else ""
    mode, size = _octal(block[100:108]), _octal(block[124:136])
    shown = f"{prefix}/{name}" if prefix else name
    if mode is None or size is None:
        _refuse(shown or archive, "has a mode or a size that is not octal digits")
    return _Header(shown, mode & 0o7777, size, block[156:157])


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _octal(field: bytes) -> int | None:
    """The number of a header; None for anything but octal digits with an end of blanks or zeros."""
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits or digits.strip(b"01234567"):
        return None
    return int(digits, 8)


def _extension(header: _Header, file: BinaryIO, at: int, before: str | None) -> str | None:
    """The name that a GNU or pax header gives the next member, if any."""
    if header.size > MAX_EXTENSION:
        _refuse(header.name, f"is an extended header of {header.size} bytes; at most {MAX_EXTENSION} are allowed")
    data = _read_at(file, at, header.size)
    name = _text(data) if header.kind == LONG_NAME else _pax_name(data, header.name)
    if name is not None and before is not None:
        _refuse(name, "has two extended headers that name it")
    return before if name is None else name


def _pax_name(data: bytes, shown: str) -> str | None:
    name = None
    while data.strip(b"\0"):
        digits, blank, rest = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        line = rest[: max(length - len(digits) - 1, 0)]
        key, equals, value = line[:-1].partition(b"=")
        if not blank or not equals or not line.endswith(b"\n") or len(digits) + 1 + len(line) != length:
            _refuse(shown, "is an extended header that cannot be read")
        if key == b"path" and name is None:
            name = value.decode("utf-8", "replace")
        elif key.decode("latin-1") not in HARMLESS:
            _refuse(shown, f"is an extended header with {key[:40]!r}, which a bundle does not need")
        data = data[length:]
    return name


def _only_zeros(file: BinaryIO, at: int, archive: str) -> None:
    while True:
        data = _read_at(file, at, 1 << 16)
        if not data:
            return
        if data.strip(b"\0"):
            _refuse(archive, "has bytes behind its end")
        at += len(data)
