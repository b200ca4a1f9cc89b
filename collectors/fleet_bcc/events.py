# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From records to lines of the events file; what is lost on the way is counted."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.journal import say
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.maps import Map
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.records import Field, Ring

EVENTS_FILE = "events-bcc.jsonl"
EVENTS_LIMIT_BYTES = 16 * 1024 * 1024


class Tally:
    """What became of the records that left the kernel."""

    def __init__(self) -> None:
        self.written = 0
        self.weighted = 0  # the weights of those that were written
        self.dropped = 0


class Sink:
    """The events file: bounded, rotated once, a record whole or dropped and counted."""

    BUFFER_BYTES = 64 * 1024

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS_FILE
        self.pending: list[tuple[bytes, Tally, int]] = []
        self.used = 0
        self.failing = False

    def add(self, line: bytes, tally: Tally, weight: int = 1) -> None:
        self.pending.append((line, tally, weight))
        self.used += len(line)
        if self.used >= self.BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits; what cannot be written is dropped and counted, and said once."""
        if not self.pending:
            return
        pending, self.pending, self.used = self.pending, [], 0
        try:
            written, error = self._write(b"".join(line for line, _tally, _weight in pending)), None
        except OSError as failed:
            written, error = 0, failed
        for line, tally, weight in pending:
            written -= len(line)
            if written >= 0:
                tally.written += 1
                tally.weighted += weight
            else:
                tally.dropped += 1
        self._report(error if error or written >= 0 else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _report(self, error: OSError | None) -> None:
        if error and not self.failing:
            say(
                3, f"cannot write {self.path}: {error.strerror}; events are dropped and counted until it can be written"
            )
        if self.failing and not error:
            say(5, f"{self.path} can be written again")
        self.failing = error is not None

    def _write(self, data: bytes) -> int:
        """Append; the bytes that are in the file, whole records only."""
        fd = self._open(len(data))
        try:
            size = os.fstat(fd).st_size
            written = os.write(fd, data)
            whole = data.rfind(b"\n", 0, written) + 1
            if whole != written:
                os.ftruncate(fd, size + whole)
            return whole
        finally:
            os.close(fd)

    def _open(self, coming: int) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o640)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
            if info.st_size + coming <= EVENTS_LIMIT_BYTES or not info.st_size:
                self._end_torn_line(fd, info.st_size)
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        os.rename(self.path, f"{self.path}.1")
        return os.open(self.path, flags, 0o640)

    @staticmethod
    def _end_torn_line(fd: int, size: int) -> None:
        """One that was killed may have left half a line: the next starts a line of its own."""
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")


class Feed:
    """Turns the records of one feature into lines. Owns its ring."""

    def __init__(self, events: Map, fields: list[Field], feature: str, event: str, sink: Sink, tally: Tally) -> None:
        self.fields = fields
        self.size = max(field.offset + field.size for field in fields)
        self.feature, self.event, self.sink, self.tally = feature, event, sink, tally
        self.odd = 0
        self.ring = Ring(events.fd, events.max_entries)

    def read(self, limit: int) -> bool:
        """Take at most `limit` records; True when there may be more."""
        clock = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        taken = 0
        for record in self.ring.records(limit):
            taken += 1
            self.take(record, clock)
        return taken == limit

    def take(self, record: bytes, clock: int) -> None:
        if len(record) < self.size:
            self.tally.dropped += 1
            self.odd += 1
            if self.odd == 1:
                say(3, f"feature {self.feature}: a record of {len(record)} bytes, expected {self.size}; it is dropped")
            return
        values = {field.name: field.read(record) for field in self.fields}
        when = int(values.get("ktime_ns", 0)) + clock
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when // 1000000000))
        line = {"time": f"{stamp}.{when % 1000000000:09d}Z", "feature": self.feature, "event": self.event, **values}
        self.sink.add(
            json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n", self.tally, int(values.get("weight", 1))
        )

    def close(self) -> None:
        self.ring.close()
