# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How counts and versions are written and sorted. Pure."""

from __future__ import annotations

import re
from typing import Any

NOT_MEASURED = "not measured"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 host`, `2 hosts`; `plural` where an s does not make it."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def version_order(text: str) -> list[Any]:
    """A key that sorts 5.10 behind 5.4: numbers by value, the rest as text."""
    parts = "".join(" " if sign in "./-+" else sign for sign in text).split()
    return [(0, int(part), "") if _NUMBER.fullmatch(part) else (1, 0, part) for part in parts]


_NUMBER = re.compile(r"[0-9]{1,18}")
