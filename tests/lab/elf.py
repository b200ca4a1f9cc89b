# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a program statically linked? In a guest's initrd there is no library and no dynamic loader."""

from __future__ import annotations

import struct
from pathlib import Path

from .errors import LabError

_PT_INTERP = 3
_INTERP_BYTES = 4096
_REMEDY = "install busybox-static"


def interpreter(path: Path) -> str | None:
    """The dynamic loader that a 64-bit ELF program asks for; None where it asks for none. LabError for another file."""
    try:
        with path.open("rb") as file:
            data = file.read(64)
            if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
                raise LabError(f"{path}: is not a 64-bit ELF program: {_REMEDY}")
            (table,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
            file.seek(table)
            headers = file.read(size * count)
            for at in range(0, len(headers) - 55, size or 56):
                kind, _flags, offset, _vaddr, _paddr, length = struct.unpack_from("<IIQQQQ", headers, at)
                if kind == _PT_INTERP:
                    file.seek(offset)
                    return file.read(min(length, _INTERP_BYTES)).rstrip(b"\0").decode("ascii", "backslashreplace")
    except FileNotFoundError as error:
        raise LabError(f"{path}: is not there: {_REMEDY}") from error
    return None


def static_program(path: Path) -> Path:
    """The path itself, of a program that runs without libraries; else LabError that names it and the remedy."""
    needed = interpreter(path)
    if needed is not None:
        raise LabError(f"{path}: is dynamically linked (it needs {needed}), and would not run in the initrd: {_REMEDY}")
    return path
