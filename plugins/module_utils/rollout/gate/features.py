# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's checks of one feature: its cost, drops, rate, accounting, maps and lag. Pure."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    INCONCLUSIVE,
    NOT_EXERCISED,
    Finding,
    Json,
    Measured,
    Pair,
    Unmeasured,
    difference,
    get,
    millicores,
    number,
    programs_of,
    ratio_up,
    status_span_ns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.counters import COUNTERS
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.expectation import why_of
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_programs import (
    kernel_millicores,
    kernel_run_ns,
    larger,
)


def feature_millicores(pair: Pair, feature: str) -> int | None:
    """CPU of a feature's programs: the larger of what is told and what the kernel counted."""
    seen = kernel_millicores(pair, kernel_run_ns(pair, feature))
    return larger(millicores(pair, feature_run_ns(pair, feature)), seen)


def feature_run_ns(pair: Pair, feature: str) -> int | None:
    """Run time of a feature's programs within the window, in ns; they are told by id."""
    total = 0
    earlier = {one.get("id"): one for one in programs_of(pair.start, feature)}
    programs = programs_of(pair.end, feature)
    for program in programs:
        first = number(earlier.get(program.get("id")), "run_time_ns")
        last = number(program, "run_time_ns")
        if first is None or last is None or last < first:
            return None
        total += last - first
    return total if programs else None


def judge_feature_cpu(pair: Pair, feature: str) -> Measured:
    """CPU of the feature's programs."""
    return Measured(feature_millicores(pair, feature))


def counter_delta(pair: Pair, feature: str, name: str) -> int | None:
    """How much a feature's counter grew within one life of the loader."""
    if status_span_ns(pair) is None:
        return None
    grown = difference(pair, "features", feature, "counters", name)
    return None if grown is None or grown < 0 else grown


def went_backwards(pair: Pair, feature: str) -> bool:
    """Whether one life of the loader counted less at the end than at the start: the sum is of no known window."""
    grown = [difference(pair, "features", feature, "counters", name) for name in COUNTERS]
    return status_span_ns(pair) is not None and any(one is not None and one < 0 for one in grown)


def counts_nothing(pair: Pair, feature: str) -> bool:
    """Whether its contract says that the object, of third parties, does not count (`accounting: none`).

    Without the contract a null counter is one that should have been there, and holds.
    """
    contract = pair.inputs.contracts.get(feature) or {}
    return get(pair.end, "status", "features", feature, "counters", "produced") is None and (
        contract.get("origin"),
        contract.get("accounting"),
    ) == ("third_party", "none")


def uncounted(check: str) -> Finding:
    """There is nothing to judge, and nothing that holds."""
    said = f"third-party objects count nothing (accounting: none), {check} is not judged"
    return Finding(NOT_EXERCISED, None, None, said)


def judge_drops(pair: Pair, feature: str) -> Measured | Unmeasured | Finding:
    """Dropped of what sampling let pass within the window; where nothing passed nothing is proven.

    Not of what was produced: the more a feature is thinned, the smaller any loss would look.
    """
    if counts_nothing(pair, feature):
        return uncounted("drop_ratio")
    produced, sampled_out, dropped = (
        counter_delta(pair, feature, key) for key in ("produced", "sampled_out", "dropped")
    )
    passed = None if produced is None or sampled_out is None else max(0, produced - sampled_out)
    if passed == 0 and dropped == 0:
        verdict = INCONCLUSIVE if pair.limit("require_events") else NOT_EXERCISED
        none = "no event was produced" if produced == 0 else f"sampling let none of {produced} events pass"
        return Unmeasured(verdict, f"{none} in the window, so drops were not exercised")
    return Measured(ratio_up(dropped, passed, 1_000_000) if passed and dropped is not None else None)


def judge_degradation(pair: Pair, feature: str) -> Measured | None:
    """How many steps a budget took it down: what fits only thinned does not fit. BCC has none."""
    status = get(pair.end, "status", "features", feature)
    if not isinstance(status, Mapping) or "degraded" not in status:
        return None
    steps = 0 if status["degraded"] is None else number(status["degraded"], "steps")
    what = "a budget took it down" if not steps else f"{why_of(pair, feature)}: taken down"
    return Measured(steps, {"steps": what})


def judge_event_rate(pair: Pair, feature: str) -> Measured | None:
    """Delivered events per second, on the event path only."""
    if get(pair.end, "status", "features", feature, "consumer") is None:
        return None
    delivered, span = counter_delta(pair, feature, "delivered"), status_span_ns(pair)
    return Measured(None if delivered is None or span is None else ratio_up(delivered, span, 1_000_000_000))


def judge_accounting(pair: Pair, feature: str) -> Measured | Finding:
    """produced = delivered + dropped + sampled_out + in_flight, at the end of the window."""
    if counts_nothing(pair, feature):
        return uncounted("accounting")
    counters = get(pair.end, "status", "features", feature, "counters")
    names = ("produced", "delivered", "dropped", "sampled_out", "in_flight")
    values = [number(counters, name) for name in names]
    if None in values or went_backwards(pair, feature):
        return Measured(None)
    produced, *parts = [value for value in values if value is not None]
    return Measured(abs(produced - sum(parts)) if min(parts) >= 0 else abs(min(parts)))


def maps_of(pair: Pair, feature: str) -> list[Json]:
    """The feature's maps at the end of the window."""
    maps = get(pair.end, "status", "features", feature, "maps")
    return [one for one in maps if isinstance(one, Mapping)] if isinstance(maps, (list, tuple)) else []


def judge_fill(pair: Pair, feature: str) -> list[Measured]:
    """Fill of each counted map."""
    return [found for one in maps_of(pair, feature) for found in _fill(one)]


def _fill(one: Json) -> list[Measured]:
    entries, most = number(one, "entries"), number(one, "max_entries")
    # An array is always full and is not counted; a least-recently-used map is meant to fill.
    if entries is None or not most or "lru" in str(one.get("type")):
        return []
    return [Measured(ratio_up(entries, most, 1_000_000), {"map": one.get("name")})]


def judge_map_memory(pair: Pair, feature: str) -> Measured:
    """Memory of all of its maps."""
    sizes = [number(one, "memory_bytes") for one in maps_of(pair, feature)]
    return Measured(None if not sizes or None in sizes else sum(size for size in sizes if size is not None))


def judge_lag(pair: Pair, feature: str) -> Measured | None:
    """How much of the ring waits for the consumer, on the event path only."""
    consumer = get(pair.end, "status", "features", feature, "consumer")
    if consumer is None:
        return None
    lag, ring = number(consumer, "lag_bytes"), number(consumer, "ring_bytes")
    return Measured(ratio_up(lag, ring, 1_000_000) if lag is not None and ring else None)
