# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files as the collector reads and writes them: small, bounded, whole."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.journal import say
from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson

MAX_JSON_BYTES = 1 << 20
MAX_STATUS_BYTES = 4 << 20


def read_small(path: str) -> str:
    """A small file of the kernel, or an empty text."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def read_regular(path: Path, limit: int, follow: bool = False) -> bytes:
    """A regular file of at most `limit` bytes; raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)  # of a folder no stream can be made that would close it
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    with os.fdopen(fd, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit} bytes", str(path))
    return data


def parse_json(data: bytes, what: str) -> Any:
    """A document by the loader's own rules; raises ValueError with a sentence that begins with `what`."""
    try:
        return strictjson.parse(data)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def write_atomic(folder: Path, name: str, data: bytes) -> None:
    """Replace a file so that a reader sees the old bytes or the new; a failure is said."""
    temporary = folder / f".{name}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            os.fchmod(fd, 0o644)
        os.rename(temporary, folder / name)
    except OSError as error:
        say(3, f"cannot write {folder / name}: {error.strerror}; see that the folder belongs to the unit's user")
