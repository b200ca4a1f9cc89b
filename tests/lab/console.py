# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest's console says of a kernel that gave up, read as it grows."""

from __future__ import annotations

import re
from pathlib import Path

# The kernel's own words, at the beginning of a line but for its time stamp. A program may print others.
_STAMP = rb"(?:\[ *[0-9]+\.[0-9]+\] ?(?:\[ *[TC][0-9]+\] ?)?)?"
_PANIC = re.compile(rb"^" + _STAMP + rb"(Kernel panic - not syncing: [^\r\n]*)", re.MULTILINE)
# A line of a panic may be cut in two by a reading; so much of what was read is looked at once more.
_KEPT_BYTES = 4096


def panic_in(text: bytes) -> str | None:
    """The kernel's sentence of its panic, or None. A line that is not complete yet is no answer."""
    whole = text[: text.rfind(b"\n") + 1]
    found = _PANIC.search(whole)
    return None if found is None else found.group(1).decode("ascii", "backslashreplace").strip()


class Console:
    """A console's file from where it stands now, or from its beginning."""

    def __init__(self, path: Path, from_now: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if from_now and path.exists() else 0
        self._kept = b""

    def panic(self) -> str | None:
        """The panic that the file shows since then, or None; what was read before is not read again."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return None
        self._at += len(new)
        text = self._kept + new
        self._kept = text[-_KEPT_BYTES:]
        return panic_in(text)
