# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's checks of one feature: its profile, cost, drops, rate, accounting, maps and lag. Pure."""

from __future__ import annotations

from typing import Callable, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.arguments import PROFILE_RANK
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    NOT_EXERCISED,
    PASS,
    Check,
    Json,
    Measure,
    Pair,
    compare,
    difference,
    expected_features,
    first_set,
    get,
    millicores,
    number,
    programs_of,
    ratio_up,
    status_span_ns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.counters import COUNTERS
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_programs import (
    kernel_millicores,
    kernel_run_ns,
    larger,
)


def budget_of(pair: Pair, feature: str, name: str) -> int | None:
    """One number of a feature's budget, of its contract."""
    return number(pair.inputs.contracts.get(feature), "budget", name)


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


def feature_checks(pair: Pair, feature: str) -> list[Check]:
    """Every check of one feature; one that is not attached has only its profile judged."""
    checks = [judge_profile(pair, feature)]
    if get(pair.end, "status", "features", feature, "state") != "attached":
        return checks
    return checks + [check for judge_one in FEATURE_CHECKS for check in judge_one(pair, feature)]


def judge_profile(pair: Pair, feature: str) -> Check:
    """Is the feature at least at the profile that was predicted?"""
    expectation = (expected_features(pair) or {})[feature]
    wanted = expectation.profile
    state = get(pair.end, "status", "features", feature, "state")
    profile = get(pair.end, "status", "features", feature, "profile")
    if get(pair.end, "status", "features", feature, "wanted") is False and not expectation.binding:
        said = f"{pair.host}, {feature}: is not wanted here, so its profile was not exercised"
        return Check(pair.host, feature, "features_attached", NOT_EXERCISED, state, wanted, "profile", said)
    if profile not in PROFILE_RANK or not isinstance(state, str):
        said = f"{pair.host}, {feature}: the loader does not report it"
        return Check(pair.host, feature, "features_attached", FAIL, profile, wanted, "profile", said)
    reached = profile if state == "attached" else "disabled"
    # What a budget took off is no profile of this host, however little was predicted.
    enough = PROFILE_RANK[reached] >= PROFILE_RANK[wanted] and state != "shed"
    reason = _why(pair, feature)
    said = f"{pair.host}, {feature}: {state}, profile {reached}, at least {wanted} expected ({reason})"
    return Check(pair.host, feature, "features_attached", PASS if enough else FAIL, reached, wanted, "profile", said)


def _why(pair: Pair, feature: str) -> str:
    """The loader's reason, and the step of a degradation with what was measured."""
    reason = get(pair.end, "status", "features", feature, "reason") or "no reason given"
    degraded = get(pair.end, "status", "features", feature, "degraded")
    if not isinstance(degraded, dict):
        return str(reason)
    step, code, steps = (degraded.get(key) for key in ("step", "reason_code", "steps"))
    return f"degraded to {step}, {steps} steps down, for {code}: {degraded.get('reason')}"


def judge_feature_cpu(pair: Pair, feature: str) -> list[Check]:
    spent = feature_millicores(pair, feature)
    limit = budget_of(pair, feature, "cpu_millicores")
    return [compare(pair, Measure("feature_cpu", spent, limit, "millicores", "CPU of its programs", feature))]


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


def uncounted(pair: Pair, feature: str, check: str, unit: str) -> list[Check]:
    said = f"{pair.host}, {feature}: third-party objects count nothing (accounting: none), {check} is not judged"
    return [Check(pair.host, feature, check, NOT_EXERCISED, None, None, unit, said)]


def judge_drops(pair: Pair, feature: str) -> list[Check]:
    """Dropped of what sampling let pass within the window; where nothing passed nothing is proven.

    Not of what was produced: the more a feature is thinned, the smaller any loss would look.
    """
    if counts_nothing(pair, feature):
        return uncounted(pair, feature, "drop_ratio", "ppm")
    produced, sampled_out, dropped = (
        counter_delta(pair, feature, key) for key in ("produced", "sampled_out", "dropped")
    )
    passed = None if produced is None or sampled_out is None else max(0, produced - sampled_out)
    limit = first_set(pair.limit("drop_ratio_ppm"), budget_of(pair, feature, "drop_ratio_ppm"))
    if passed == 0 and dropped == 0:
        verdict = INCONCLUSIVE if pair.limit("require_events") else NOT_EXERCISED
        none = "no event was produced" if produced == 0 else f"sampling let none of {produced} events pass"
        said = f"{pair.host}, {feature}: {none} in the window, so drops were not exercised"
        return [Check(pair.host, feature, "drop_ratio", verdict, None, limit, "ppm", said)]
    ratio = ratio_up(dropped, passed, 1_000_000) if passed and dropped is not None else None
    return [compare(pair, Measure("drop_ratio", ratio, limit, "ppm", "dropped of what sampling let pass", feature))]


def judge_degradation(pair: Pair, feature: str) -> list[Check]:
    """How many steps a budget took it down: what fits only thinned does not fit. BCC has none."""
    status = get(pair.end, "status", "features", feature)
    if not isinstance(status, Mapping) or "degraded" not in status:
        return []
    steps = 0 if status["degraded"] is None else number(status["degraded"], "steps")
    what = "steps that a budget took it down" if not steps else f"{_why(pair, feature)}: steps"
    return [compare(pair, Measure("degradation", steps, pair.limit("degradation_steps"), "steps", what, feature))]


def judge_event_rate(pair: Pair, feature: str) -> list[Check]:
    """Delivered events per second, on the event path only."""
    limit = first_set(pair.limit("event_rate_per_second"), budget_of(pair, feature, "event_rate_per_second"))
    if get(pair.end, "status", "features", feature, "consumer") is None or limit is None:
        return []
    delivered, span = counter_delta(pair, feature, "delivered"), status_span_ns(pair)
    rate = None if delivered is None or span is None else ratio_up(delivered, span, 1_000_000_000)
    return [compare(pair, Measure("event_rate", rate, limit, "events/s", "delivered events", feature))]


def judge_accounting(pair: Pair, feature: str) -> list[Check]:
    """produced = delivered + dropped + sampled_out + in_flight, at the end of the window."""
    if counts_nothing(pair, feature):
        return uncounted(pair, feature, "accounting", "events")
    counters = get(pair.end, "status", "features", feature, "counters")
    names = ("produced", "delivered", "dropped", "sampled_out", "in_flight")
    values = [number(counters, name) for name in names]
    error = None
    if None not in values and not went_backwards(pair, feature):
        produced, *parts = [value for value in values if value is not None]
        error = abs(produced - sum(parts)) if min(parts) >= 0 else abs(min(parts))
    limit = pair.limit("accounting_error_events")
    what = "events that the counters do not account for"
    return [compare(pair, Measure("accounting", error, limit, "events", what, feature))]


def judge_maps(pair: Pair, feature: str) -> list[Check]:
    """Fill of each counted map, and the memory of all."""
    maps = get(pair.end, "status", "features", feature, "maps")
    maps = [one for one in maps if isinstance(one, Mapping)] if isinstance(maps, (list, tuple)) else []
    checks = [check for one in maps for check in _judge_fill(pair, feature, one)]
    sizes = [number(one, "memory_bytes") for one in maps]
    memory = None if not sizes or None in sizes else sum(size for size in sizes if size is not None)
    limit = first_set(pair.limit("map_memory_bytes"), budget_of(pair, feature, "map_memory_bytes"))
    checks.append(compare(pair, Measure("map_memory", memory, limit, "bytes", "memory of its maps", feature)))
    return checks


def _judge_fill(pair: Pair, feature: str, one: Json) -> list[Check]:
    entries, most = number(one, "entries"), number(one, "max_entries")
    # An array is always full and is not counted; a least-recently-used map is meant to fill.
    if entries is None or not most or "lru" in str(one.get("type")):
        return []
    fill = ratio_up(entries, most, 1_000_000)
    what = f"fill of map {one.get('name')}"
    return [compare(pair, Measure("map_fill", fill, pair.limit("map_fill_ppm"), "ppm", what, feature))]


def judge_lag(pair: Pair, feature: str) -> list[Check]:
    """How much of the ring waits for the consumer, on the event path only."""
    consumer = get(pair.end, "status", "features", feature, "consumer")
    if consumer is None:
        return []
    lag, ring = number(consumer, "lag_bytes"), number(consumer, "ring_bytes")
    share = ratio_up(lag, ring, 1_000_000) if lag is not None and ring else None
    limit = pair.limit("consumer_lag_ppm")
    return [compare(pair, Measure("consumer_lag", share, limit, "ppm", "share of the ring unread", feature))]


FEATURE_CHECKS: tuple[Callable[[Pair, str], list[Check]], ...] = (
    judge_degradation,
    judge_feature_cpu,
    judge_drops,
    judge_event_rate,
    judge_accounting,
    judge_maps,
    judge_lag,
)
