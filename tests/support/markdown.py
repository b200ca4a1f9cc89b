# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader's program makes of a Markdown page: its sections' anchors and its links."""

from __future__ import annotations

import re
from pathlib import Path

FENCED = re.compile(r"^ *```.*?^ *```$", re.M | re.S)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.M)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def headings(path: Path) -> list[str]:
    """The texts of a page's headings, in order."""
    return HEADING.findall(FENCED.sub("", path.read_text(encoding="utf-8")))


def anchor(heading: str) -> str:
    """The anchor of a heading as git's web pages make it: lower case, blanks as hyphens, no other signs."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def anchors(path: Path) -> dict[str, str]:
    """{anchor: heading} of a page; a heading that comes again has a number behind it."""
    found: dict[str, str] = {}
    for text in headings(path):
        name, number = anchor(text), 0
        while name in found:
            number += 1
            name = f"{anchor(text)}-{number}"
        found[name] = text
    return found


def links(path: Path) -> list[str]:
    """Where a page's links lead, code left out."""
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    return LINK.findall(re.sub(r"`[^`\n]*`", "``", text))
