# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make text that came from a host safe to show and to keep: printable, on one line, bounded. Pure.

A host can write escape sequences that paint a terminal, turn the direction of a line, or fill it.
Whatever is not a plain printable character is written as an escape that shows what it was.
"""

from __future__ import annotations

import unicodedata
from typing import Any

TEXT_LIMIT = 500
KEY_LIMIT = 100
ITEMS_LIMIT = 10_000
DEPTH_LIMIT = 32

# Unicode general categories that change how other text looks or cannot be seen: control, format
# (bidirectional overrides, zero width), surrogate, private use, unassigned, line and paragraph separator.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(value: object, limit: int = TEXT_LIMIT) -> str:
    """`value` as text of at most `limit` characters, each of which a terminal shows as it is."""
    text = value if isinstance(value, str) else str(value)
    if len(text) <= limit and text.isascii() and text.isprintable():
        return "".join((text,))
    shown = "".join(map(_letter, text[:limit]))
    if len(text) <= limit and len(shown) <= limit:
        return shown
    return shown[: limit - 1] + "…"


def _letter(letter: str) -> str:
    if " " <= letter <= "~":
        return letter
    if unicodedata.category(letter) not in _UNSEEN and letter != "\u00a0":
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{{{number:x}}}"


def printable_document(value: Any, limit: int = TEXT_LIMIT, depth: int = DEPTH_LIMIT, items: int = ITEMS_LIMIT) -> Any:
    """A JSON-like value with every text and key made printable, bounded in depth and in items of each container."""
    if isinstance(value, str):
        return printable(value, limit)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        some = list(value.items())[:items]
        return {printable(key, KEY_LIMIT): printable_document(one, limit, depth - 1, items) for key, one in some}
    if isinstance(value, (list, tuple)):
        return [printable_document(one, limit, depth - 1, items) for one in value[:items]]
    return printable(value, limit)
