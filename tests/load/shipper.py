# SPDX-License-Identifier: GPL-3.0-or-later
"""A log shipper as docs/formats/events.md describes one: python3 shipper.py LOG_FOLDER CURSOR STORE.

STORE is a database, as a shipper's destination that takes records once is: the lines and the cursor are written
together. CURSOR says the same to the loader, a moment later. Ends at SIGTERM when it has read all; killed at any
moment and started again it goes on where the store ends. Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import IO

SCHEMA = "ebpf.fleet/cursor/v1"
PART = 1 << 18
PAUSE_S = 0.02


def segments(folder: Path) -> list[int]:
    names = [path.name.rpartition(".")[2] for path in folder.glob("events.jsonl.*")]
    return sorted(int(name) for name in names if name.isdigit())


def opened(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


class Shipper:
    """Reads on from a cursor; the file that is written has the number behind the highest segment."""

    def __init__(self, folder: Path, cursor: Path, store: sqlite3.Connection) -> None:
        self.folder, self.cursor, self.store = folder, cursor, store
        store.execute("create table if not exists lines (line text)")
        store.execute("create table if not exists cursor (segment integer, offset integer)")
        self.segment, self.offset = self.last()

    def last(self) -> tuple[int, int]:
        said = self.store.execute("select segment, offset from cursor").fetchone()
        there = segments(self.folder)
        return said or (there[0] if there else 1, 0)

    def commit(self, lines: list[bytes]) -> None:
        with self.store:
            self.store.executemany("insert into lines values (?)", [(line.decode(),) for line in lines])
            self.store.execute("delete from cursor")
            self.store.execute("insert into cursor values (?, ?)", (self.segment, self.offset))
        part = self.cursor.with_name(self.cursor.name + ".part")
        part.write_text(json.dumps({"schema": SCHEMA, "segment": self.segment, "offset": self.offset}))
        part.rename(self.cursor)

    def source(self) -> tuple[IO[bytes] | None, bool]:
        """The segment's file, and whether it is closed: under its own number it does not grow any more."""
        there = segments(self.folder)
        if there and there[0] > self.segment:  # it was removed: go on with the oldest that is left
            self.segment, self.offset = there[0], 0
        file = opened(self.folder / ("events.jsonl.%d" % self.segment))
        if file:
            return file, True
        file = opened(self.folder / "events.jsonl")
        if file and max(segments(self.folder), default=0) >= self.segment:  # rotated between the two looks
            file.close()
            return self.source()
        return file, False

    def ship(self) -> bool:
        """Take what is there of one segment; False: there was nothing."""
        file, closed = self.source()
        if not file:
            return False
        with file:
            file.seek(self.offset)
            data = file.read(PART)
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        if not whole and closed:
            self.segment, self.offset = self.segment + 1, 0
        if whole or closed:
            self.commit(whole.splitlines())
        return bool(whole) or closed


def main(folder: str, cursor: str, store: str) -> None:
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    shipper = Shipper(Path(folder), Path(cursor), sqlite3.connect(store))
    while True:
        last = bool(stopping)
        if shipper.ship():
            continue
        if last:
            return
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
