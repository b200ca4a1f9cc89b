# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters that only grow, within one observation: one that went backwards says nothing of its window. Pure.

A counter is compared only while the thing that counts is the same: one boot, one process, one program.
What starts again from zero with another process is not a step backwards.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    INCONCLUSIVE,
    Finding,
    Json,
    Pair,
    get,
    number,
)

_TOLD = 5

HOST = ("cpu_busy_ns", "cpu_total_ns", "psi_cpu_some_us", "psi_memory_some_us", "psi_io_some_us")
COUNTERS = ("produced", "delivered", "dropped", "sampled_out")
CONSUMER = ("lost", "unwritten")
PROGRAM = ("run_cnt", "run_time_ns")
MAIN = ("cpu_ns", "children_cpu_ns")


class Step(NamedTuple):
    """A counter at both ends of a window."""

    field: str
    first: int
    last: int


def backwards(observation: Any) -> list[Step]:
    """Every counter of an observation that is less at its end than at its start."""
    start, end = get(observation, "start"), get(observation, "end")
    return [step for step in _steps(start, end) if step.last < step.first]


def between(before: Any, after: Any) -> list[Step]:
    """The host's own counters that are less at the start of `after` than at the end of `before`, within one boot."""
    boots = [get(one, "boot_id") for one in (before, after)]
    if boots[0] is None or boots[0] != boots[1]:
        return []
    ends = get(before, "end"), get(after, "start")
    steps = [*_fields("", *ends, ("boottime_ns",)), *_fields("host.", get(ends[0], "host"), get(ends[1], "host"), HOST)]
    return [step for step in steps if step.last < step.first]


def judge_counters(pair: Pair) -> Finding | None:
    """None where every counter grew; else what holds, with those that did not by name."""
    found = [("before: ", one) for one in backwards(pair.before)] + [("", one) for one in backwards(pair.after)]
    found += [("since before: ", one) for one in between(pair.before, pair.after)]
    if not found:
        return None
    told = [f"{when}{printable(one.field, 100)} from {one.first} to {one.last}" for when, one in found[:_TOLD]]
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    said = f"counters went backwards, so their window is not measured: {'; '.join(told)}{more}"
    return Finding(INCONCLUSIVE, found[0][1].last, found[0][1].first, said)


def _steps(start: Any, end: Any) -> Iterator[Step]:
    yield from _fields("", start, end, ("boottime_ns",))
    yield from _fields("host.", get(start, "host"), get(end, "host"), HOST)
    if _same(get(start, "witness", "loader", "main"), get(end, "witness", "loader", "main"), maybe=True):
        # Systemd counts from zero again after a planned restart, which is another process.
        yield from _fields("unit.", get(start, "unit"), get(end, "unit"), ("n_restarts",))
    yield from _status_steps(get(start, "status"), get(end, "status"))
    yield from _witness_steps(get(start, "witness"), get(end, "witness"))


def _status_steps(start: Any, end: Any) -> Iterator[Step]:
    if not _same(start, end):
        return
    yield from _fields("status.", start, end, ("boottime_ns", "audit_lost"))
    if _same(get(start, "collector"), get(end, "collector"), maybe=True):
        yield from _fields("status.loader.", get(start, "loader"), get(end, "loader"), ("cpu_ns",))
        for part in ("loader", "cost"):
            ends = [get(one, "collector", part) for one in (start, end)]
            yield from _fields(f"status.collector.{part}.", ends[0], ends[1], ("cpu_ns",))
    features = get(end, "features") or {}
    for name in sorted(features):
        yield from _feature_steps(f"status.features.{name}.", get(start, "features", name), features[name])


def _feature_steps(where: str, start: Any, end: Any) -> Iterator[Step]:
    yield from _fields(f"{where}counters.", get(start, "counters"), get(end, "counters"), COUNTERS)
    yield from _fields(f"{where}consumer.", get(start, "consumer"), get(end, "consumer"), CONSUMER)
    yield from _fields(f"{where}series.", get(start, "series"), get(end, "series"), ("unkept",))
    yield from _program_steps(where, get(start, "programs"), get(end, "programs"))


def _program_steps(where: str, start: Any, end: Any) -> Iterator[Step]:
    earlier = {get(one, "id"): one for one in start or []}
    for one in end or []:
        if get(one, "id") is not None:
            yield from _fields(f"{where}programs[{one['id']}].", earlier.get(one["id"]), one, PROGRAM)


def _witness_steps(start: Any, end: Any) -> Iterator[Step]:
    yield from _fields("witness.", start, end, ("boottime_ns",))
    for name in ("loader", "collector"):
        ends = [get(one, name) for one in (start, end)]
        if ends[0] is None or ends[1] is None:
            continue
        where = f"witness.{name}."
        if _same(get(ends[0], "main"), get(ends[1], "main")):
            if get(ends[0], "cpu_source") == get(ends[1], "cpu_source"):
                yield from _fields(where, ends[0], ends[1], ("cpu_ns",))
            yield from _fields(f"{where}main.", get(ends[0], "main"), get(ends[1], "main"), MAIN)
        yield from _program_steps(where, get(ends[0], "programs"), get(ends[1], "programs"))


def _same(start: Any, end: Any, maybe: bool = False) -> bool:
    """Is it one process at both ends? `maybe`: also where neither end says which."""
    lives = [(number(one, "pid"), number(one, "started_boottime_ns")) for one in (start, end)]
    if maybe and lives == [(None, None), (None, None)]:
        return True
    return lives[0][0] is not None and lives[0] == lives[1]


def _fields(where: str, start: Json | Any, end: Json | Any, names: Sequence[str]) -> Iterator[Step]:
    if not isinstance(start, Mapping) or not isinstance(end, Mapping):
        return
    for name in names:
        first, last = number(start, name), number(end, name)
        if first is not None and last is not None:
            yield Step(where + name, first, last)
