# SPDX-License-Identifier: GPL-3.0-or-later
"""What came from a host is shown as it is, and paints nothing."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable, printable_document


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer 日本", "größer 日本"),
        ("\x1b[2J\x1b[HAll 500 hosts confirmed", "\\x1b[2J\\x1b[HAll 500 hosts confirmed"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\u202egnihton", "\\u{202e}gnihton"),
        ("\u200bzero", "\\u{200b}zero"),
        ("\u2028line", "\\u{2028}line"),
        ("\ud800", "\\u{d800}"),
        ("\U000e0041tag", "\\u{e0041}tag"),
        ("\x7f", "\\x7f"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (7, "7"),
        (None, "None"),
    ],
)
def test_every_letter_is_seen(text: object, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["a" * 501, "\x1b" * 200, "a" * 10_000_000])
def test_it_is_bounded(text: str) -> None:
    assert len(printable(text)) == 500
    assert printable(text).endswith("…")


def test_as_long_as_allowed() -> None:
    assert printable("a" * 500) == "a" * 500


def test_documents() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    found = printable_document({"a\x1b": ["\x1b", 1, 1.5, None, True, ("b\n",)], "deep": deep})
    assert found["a\\x1b"] == ["\\x1b", 1, 1.5, None, True, ["b\\x0a"]]
    assert str(found["deep"]).count("[") == 31
    assert len(printable_document(list(range(20_000)))) == 10_000
