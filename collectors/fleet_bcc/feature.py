# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One feature through its states: off, attached, killed, disabled."""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import ENGINE, Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.compile_job import Job
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.events import Sink
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.live import COUNTERS, HIST_SLOTS, Counts, Live
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.maps import describe_program, link_id

READ_LIMIT = 4096  # records of one feature before the loop looks at all else again


class Feature:
    """One feature through its states: off, attached, killed, disabled."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name
        self.state = "off"
        self.reason = Reason("EF_UNKNOWN", "not looked at yet")
        self.wanted = False
        self.sample_every = source.sample_every
        self.live: Live | None = None
        self.job: Job | None = None
        self.tried = False  # in vain; tried again when it was off or killed in between
        self.past = Counts()
        self.past_hist = {weighted: [0] * (HIST_SLOTS + 1) for weighted in (False, True)}
        self.past_weighted = 0  # of records

    @property
    def profile(self) -> str:
        return "reduced" if self.state == "attached" else "disabled"

    def counts(self) -> Counts:
        """Since the service started; they never go backwards."""
        total = Counts()
        total.values.update(self.past.values)
        if self.live:
            now = self.live.read_counts()
            for key in COUNTERS:
                total.values[key] += now.values[key]
        return total

    def hist(self, weighted: bool = False) -> list[int]:
        past = self.past_hist[weighted]
        now = self.live.read_hist(weighted) if self.live else [0] * len(past)
        return [before + value for before, value in zip(past, now)]

    def weighted(self) -> int:
        """The weights of what was delivered, added up: an estimate of produced without dropped."""
        of_records = self.past_weighted + (self.live.tally.weighted if self.live else 0)
        return of_records + sum(self.hist(weighted=True)[:HIST_SLOTS])

    def detach(self, lock: Any, sink: Sink) -> bool:
        """Detach: read what is unread, keep the counts, let everything go. True when it was attached."""
        live = self.live
        if live is None:
            return False
        with lock:
            live.cut()
        if live.ran:
            while live.feed and live.feed.read(READ_LIMIT):
                pass
            sink.flush()
            self.past_hist = {weighted: self.hist(weighted) for weighted in (False, True)}
            self.past_weighted += live.tally.weighted
            total = self.counts()
            # What began and has no outcome by now will have none: the maps go.
            total.values["dropped"] += total.in_flight
            self.past = total
        self.live = None
        live.close()
        return True

    def describe(self, with_stats: bool) -> dict[str, Any]:
        """Its entry in status.json."""
        live, counts = self.live, self.counts()
        attached = self.state == "attached" and live is not None
        return {
            "wanted": self.wanted,
            "state": self.state,
            "profile": self.profile,
            "variant": ENGINE if attached else None,
            "reason_code": self.reason.code,
            "reason": self.reason.text,
            "sample_every": self.sample_every,
            "programs": [
                describe_program(name, fd, with_stats) for name, fd in (live.compiled.programs if live else {}).items()
            ],
            "links": [link_id(fd) for fd in (live.links if live else [])],
            "maps": [each.describe() for each in (live.maps.values() if live else [])],
            "counters": {**counts.values, "in_flight": counts.in_flight},
            "weighted": self.weighted(),
            "consumer": {"lag_bytes": live.feed.ring.lag_bytes, "ring_bytes": live.feed.ring.size}
            if live and live.feed
            else None,
        }
