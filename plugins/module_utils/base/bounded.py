# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read, as root, what somebody else can write: bounded, without blocking, never through a symlink.

Whoever owns the folder may put a FIFO, a device, a link to an endless file or a million brackets
in the place of a file. None of that may hold up or feed the reader.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError

DEPTH_LIMIT = 32

# A quote, an escaped letter (which is then no quote), a bracket.
_TOKEN = re.compile(r'"|\\.|[\[\]{}]', re.DOTALL)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class BoundedReadError(OneCodeError, ValueError):
    """A file that is there and cannot be used; the message names the file and why."""

    code = "EF_UNREADABLE"


def read_bytes(path: Path, limit_bytes: int) -> bytes | None:
    """The whole content of a regular file of at most `limit_bytes`, or None where there is none.

    The name itself may not be a symlink. Raises BoundedReadError for anything else: another kind
    of file, one that is larger, one that cannot be read.
    """
    try:
        fd = os.open(path, _FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BoundedReadError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BoundedReadError(f"{path}: is not a regular file")
        with os.fdopen(os.dup(fd), "rb") as stream:
            data = stream.read(limit_bytes + 1)
    except OSError as error:
        raise BoundedReadError(f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(data) > limit_bytes:
        raise BoundedReadError(f"{path}: is larger than {limit_bytes} bytes")
    return data


def refuse_irregular(path: Path) -> None:
    """Raise OSError where a file that a person named is there and is not a regular one; a link is followed.

    To open a FIFO waits for ever, and a device has no end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def read_text(path: Path, limit_bytes: int) -> str | None:
    """As `read_bytes`, decoded; bytes that are not UTF-8 become U+FFFD."""
    data = read_bytes(path, limit_bytes)
    return None if data is None else data.decode("utf-8", "replace")


def read_json(path: Path, limit_bytes: int, depth_limit: int = DEPTH_LIMIT) -> Any:
    """As `read_bytes`, parsed by `parse_json`; None where there is no file."""
    data = read_bytes(path, limit_bytes)
    if data is None:
        return None
    try:
        return parse_json(data, depth_limit)
    except ValueError as error:
        raise BoundedReadError(f"{path}: {error}") from error


def parse_json(data: bytes | str, depth_limit: int = DEPTH_LIMIT) -> Any:
    """One JSON document of bounded depth. Raises ValueError that says what is wrong.

    NaN and Infinity, which are not JSON (RFC 8259 section 6), are refused; so are numbers of
    more digits than a 64-bit value can have and a fraction that overflows to infinity.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    if nesting(text) > depth_limit:
        raise ValueError(f"is nested deeper than {depth_limit}")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_fraction)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"holds {name}, which is not a number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("holds a number of more than 20 digits")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError("holds a number that is too large")
    return value


def nesting(text: str) -> int:
    """How deep brackets are nested, those within strings left out; one pass, whatever the text is."""
    depth = deepest = 0
    in_string = False
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token == '"':
            in_string = not in_string
        elif in_string or token[0] == "\\":
            continue
        elif token in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest
