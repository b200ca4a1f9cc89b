# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts the whole lines that the loader ever wrote into its events files, over rotations, by feature."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.05
READ_BYTES = 1 << 20


class Reader:
    """Follows the file by its descriptor, so that a file that was renamed is read to its end.

    It goes on behind the last whole line each time: half a line that a full disk cut short is taken back by the
    loader, and what comes in its place has to be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: Counter[str] = Counter()
        self.broken: list[str] = []
        self.files = 0
        self._fd = -1
        self._offset = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> Counter[str]:
        """Read all that is there now; returns the lines so far, by feature."""
        with self._lock:
            self._open()
            while self._fd >= 0 and self._read() and self._moved():
                self._open_next()
            return Counter(self.lines)

    def _open(self) -> None:
        if self._fd >= 0:
            return
        try:
            self._fd = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        self._offset = 0
        self.files += 1

    def _open_next(self) -> None:
        """The path is another file by now: the loader has done with the old one, which is read to its end once more."""
        self._read()
        os.close(self._fd)
        self._fd = -1
        self._open()

    def _moved(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False  # not yet made anew
        return (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino)

    def _read(self) -> bool:
        while True:
            data = os.pread(self._fd, READ_BYTES, self._offset)
            end = data.rfind(b"\n") + 1
            if not end:
                return True
            self._offset += end
            for line in data[:end].splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            record: dict[str, Any] = json.loads(line)
            self.lines[str(record["feature"])] += 1
        except (ValueError, KeyError):
            self.broken.append(line[:200].decode(errors="replace"))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.look()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
