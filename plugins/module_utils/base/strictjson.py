# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as the loader reads it: what jansson refuses, Python refuses too. Pure.

Python's own reader takes more: the last of two keys of one name, NaN, numbers of any size, half of a
surrogate pair. Where module and loader read one file, they must agree on what is in it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
UNREADABLE = re.compile("[\0\ud800-\udfff]")


def parse(data: bytes) -> Any:
    """An object or array in UTF-8 without a byte order mark; ValueError with the fault for anything else."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_int=integer, parse_float=_real,
                              parse_constant=refuse_number)  # fmt: skip
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"is not JSON in UTF-8 ({error})") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    if not isinstance(document, (dict, list)):
        raise ValueError("is neither an object nor an array")
    try:
        refuse_unreadable(document)
    except RecursionError as error:  # json's own reader goes deeper than Python's functions, from 3.12 on
        raise ValueError("is nested too deep") from error
    return document


def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key is there twice."""
    found = dict(items)
    if len(found) != len(items):
        seen: set[str] = set()
        twice = next(key for key, _value in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:80]!r} is there twice")
    return found


def integer(text: str) -> int:
    """An integer of 64 bits with sign."""
    if len(text) > 20 or not MIN_INTEGER <= int(text) <= MAX_INTEGER:
        raise ValueError(f"holds the number {text[:40]}, which does not fit in 64 bits with sign")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text[:40]}, which is too large")
    return value


def refuse_number(text: str) -> NoReturn:
    """For numbers that no document of ours may hold."""
    raise ValueError(f"holds the number {text[:40]}, but only integers are allowed")


def refuse_unreadable(value: Any) -> None:
    """ValueError for a text with U+0000 or half of a surrogate pair."""
    if isinstance(value, str) and UNREADABLE.search(value):
        raise ValueError("holds U+0000 or half of a surrogate pair in a text")
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_unreadable(key)
            refuse_unreadable(item)
    if isinstance(value, list):
        for item in value:
            refuse_unreadable(item)
