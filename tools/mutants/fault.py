# SPDX-License-Identifier: GPL-3.0-or-later
"""One fault: a piece of one file's text and what stands there instead."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Fault(NamedTuple):
    """Replace text[start:end] of the file at `path` by `new`.

    `path` is relative to the tree, start and end are offsets in characters, `scope` is the dotted name of the
    function around it ("" outside of any), which only the rules for Python know.
    """

    path: str
    start: int
    end: int
    new: str
    operator: str
    scope: str = ""

    def apply(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.end :]

    def line(self, text: str) -> int:
        """The number of the line on which it begins, from 1."""
        return text.count("\n", 0, self.start) + 1

    def before(self, text: str) -> str:
        """The whole lines that it touches, without the space around them, as one line."""
        return self._lines(text, text[self.start : self.end])

    def after(self, text: str) -> str:
        return self._lines(text, self.new)

    def _lines(self, text: str, middle: str) -> str:
        first = text.rfind("\n", 0, self.start) + 1
        last = text.find("\n", self.end)
        whole = text[first : self.start] + middle + text[self.end : len(text) if last < 0 else last]
        return " ".join(whole.split())

    def key(self, text: str) -> str:
        """A name that survives edits elsewhere in the file: what it does to which line, not where the line stands."""
        told = "\0".join((self.path, self.operator, self.before(text), self.after(text)))
        return hashlib.sha256(told.encode()).hexdigest()[:16]
