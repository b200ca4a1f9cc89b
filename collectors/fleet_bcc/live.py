# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A feature that is in the kernel: its descriptors, its links and what it counts."""

from __future__ import annotations

import errno
import os
import struct

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.compile_job import Compiled
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.events import Feed, Sink, Tally
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.maps import Map

EVENTS_MAP = "ef_events"
COUNTERS = ("produced", "delivered", "dropped", "sampled_out")  # the slots of ef_counters
HIST_SLOTS = 64
HIST_SUM = 64


class Counts:
    """produced, delivered, dropped, sampled_out."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(COUNTERS, 0)

    @property
    def in_flight(self) -> int:
        values = self.values
        return max(0, values["produced"] - values["delivered"] - values["dropped"] - values["sampled_out"])


class Live:
    """An attached feature: its descriptors. `links` belongs to the service's lock."""

    def __init__(self, source: Source, compiled: Compiled, sink: Sink) -> None:
        self.source, self.compiled = source, compiled
        self.maps = {name: Map(fd) for name, fd in compiled.maps.items()}
        self.links: list[int] = []
        self.tally = Tally()
        self.feed: Feed | None = None
        self.ran = False
        self._sink = sink
        for name in ("ef_counters", "ef_config"):
            if name not in self.maps:
                raise CannotRunError("EF_LOAD_REJECTED", f"bcc.c has no map {name}; fix it")

    def prepare(self, sample_every: int) -> None:
        """What must be in place before the first program runs. Raises OSError, CannotRunError."""
        self.sample(sample_every)
        events, histogram = self.source.signal("events"), self.source.signal("histogram")
        if histogram and "ef_hist" not in self.maps:
            raise CannotRunError("EF_LOAD_REJECTED", "bcc.c has no map ef_hist; fix it")
        if not events:
            return
        ring = self.maps.get(EVENTS_MAP)
        if not ring or ring.type != "ringbuf" or not self.compiled.fields:
            raise CannotRunError("EF_LOAD_REJECTED", f"bcc.c has no BPF_RINGBUF_OUTPUT({EVENTS_MAP}, …); fix it")
        self.feed = Feed(ring, self.compiled.fields, self.source.name, events["name"], self._sink, self.tally)

    def sample(self, every: int) -> None:
        self.maps["ef_config"].put(0, struct.pack("=II", every, 0))

    def attach(self) -> None:
        """All programs, in order, or none. Raises CannotRunError. The lock is held."""
        for name, hook in self.source.programs.items():
            try:
                self.links.append(hook.attach(self.compiled.programs[name]))
                self.ran = True
            except (OSError, ValueError) as error:
                self.cut()
                code = "EF_NO_ATTACH_POINT" if getattr(error, "errno", None) == errno.ENOENT else "EF_ATTACH_FAILED"
                code = "EF_PERMISSION" if getattr(error, "errno", None) in (errno.EPERM, errno.EACCES) else code
                raise CannotRunError(
                    code, f"program {name}: cannot be attached to {hook.kind} {hook.target}: {error}"
                ) from error

    def cut(self) -> bool:
        """Detach: closing the links does it. The lock is held."""
        links, self.links = self.links, []
        for fd in links:
            os.close(fd)
        return bool(links)

    def read_counts(self) -> Counts:
        """Since it was attached. `produced` is read last, so nothing is in flight that was not produced."""
        counts = Counts()
        for slot in (1, 2, 3, 0):
            counts.values[COUNTERS[slot]] = self.maps["ef_counters"].sum_slot(slot)
        if self.feed:
            counts.values["delivered"] = self.tally.written
            counts.values["dropped"] += self.tally.dropped
        return counts

    def read_hist(self, weighted: bool = False) -> list[int]:
        """Slots and sum as they were measured, or each with its weight."""
        hist = self.maps.get("ef_hist")
        slots = range(HIST_SLOTS + 1)
        return [hist.sum_slot(slot, int(weighted)) for slot in slots] if hist else [0] * (HIST_SLOTS + 1)

    def close(self) -> None:
        if self.feed:
            self.feed.close()
        self.compiled.close()
