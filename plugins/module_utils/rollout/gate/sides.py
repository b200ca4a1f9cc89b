# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service of ours at both ends of the window: what it told, and what root saw of it (the witness). Pure.

The status is older than the witness of the same snapshot, by up to the loader's interval. So a value
that only grows is held between two readings of the kernel: what was told at the end of the window
must be at least what the kernel counted at its start, and at most what it counted at its end. That
needs no guess of how fast a value grows. A status counts as written after the start of the window
if it is SLACK_NS younger, as a loader takes its time between reading a counter and stamping the file.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    INCONCLUSIVE,
    Finding,
    Json,
    Pair,
    get,
    number,
)

SLACK_NS = 2_000_000_000


class Side(NamedTuple):
    """One service of ours: what it told and what root saw of it, at both ends of the window."""

    name: str
    told: tuple[Json, Json]
    seen: tuple[Json, Json]
    times: tuple[int, int]

    @property
    def same_life(self) -> bool:
        """Whether one process was there at both ends."""
        lives = [(number(one, "main", "pid"), number(one, "main", "started_boottime_ns")) for one in self.seen]
        return None not in lives[0] and lives[0] == lives[1]

    @property
    def told_within(self) -> bool:
        """Whether the last account was written well after the start of the window."""
        at = number(self.told[1], "boottime_ns")
        return at is not None and at >= self.times[0] + SLACK_NS


def seen_of(snapshot: Json, name: str) -> Json | None:
    """Root's view of one unit in a snapshot."""
    found = get(snapshot, "witness", name)
    return found if isinstance(found, Mapping) else None


def told_of(snapshot: Json, name: str) -> Json:
    """What a service told of itself in a snapshot; empty where it told nothing."""
    status = get(snapshot, "status") or {}
    collector = get(status, "collector")
    if name == "loader":
        cost = get(status, "loader") if collector is None else get(collector, "loader")
        return {**_identity(status), **(cost or {})} if status else {}
    return {**_identity(collector), **(get(collector, "cost") or {})} if collector else {}


def _identity(told: Any) -> dict[str, Any]:
    return {key: get(told, key) for key in ("pid", "started_boottime_ns", "boot_id", "boottime_ns")}


def sides(pair: Pair) -> list[Side]:
    """The loader, and the collector where it is told of or runs."""
    times = (number(pair.start, "witness", "boottime_ns") or 0, number(pair.end, "witness", "boottime_ns") or 0)
    names = ["loader"]
    if seen_of(pair.end, "collector") is not None or told_of(pair.end, "collector"):
        names.append("collector")
    ends = (pair.start, pair.end)
    return [
        Side(
            name,
            (told_of(ends[0], name), told_of(ends[1], name)),
            (seen_of(ends[0], name) or {}, seen_of(ends[1], name) or {}),
            times,
        )
        for name in names
    ]


def what_is_missing(pair: Pair) -> str | None:
    """Why there is nothing to compare with, or None."""
    for end, snapshot in (("start", pair.start), ("end", pair.end)):
        if not isinstance(get(snapshot, "witness"), Mapping):
            return f"root's own view was not taken at the {end} of the window; use observation_info of this release"
        if seen_of(snapshot, "loader") is None:
            return f"systemd knew no unit of the loader at the {end} of the window, so nothing speaks for its status"
    return None


def unseen(what: str, why: Any) -> Finding:
    """Root could not see it."""
    reason = printable(why, 200) if why else "the kernel did not say"
    return Finding(INCONCLUSIVE, None, None, f"{what} could not be seen: {reason}")


def why_unseen(seen: Json, field: str) -> Any:
    return get(seen, "why", field)


def features_of(snapshot: Json, name: str) -> list[str]:
    """Features whose account is that of this service."""
    collected = set(get(snapshot, "status", "collector", "features") or [])
    features = get(snapshot, "status", "features") or {}
    return sorted(one for one in features if (one in collected) == (name == "collector"))
