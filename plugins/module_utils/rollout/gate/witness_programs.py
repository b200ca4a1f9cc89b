# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs, links and runs that a service tells, held against what the kernel lists for its unit. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    PASS,
    Finding,
    Json,
    Pair,
    difference,
    get,
    number,
    programs_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import (
    Side,
    features_of,
    sides,
    unseen,
    what_is_missing,
    why_unseen,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_cost import (
    Growth,
    judge_growth,
    millicores_of,
)

# Attached only by a link of its own on every kernel; others may hang on a perf event.
NEEDS_LINK = ("tracing", "raw_tracepoint", "raw_tracepoint_writable", "lsm", "struct_ops")


def held_programs(seen: Json) -> dict[int, Json] | None:
    """{id: program} that a unit holds in the kernel; None if it could not be seen."""
    programs = get(seen, "programs")
    return None if programs is None else {one["id"]: one for one in programs}


def judge_programs(pair: Pair, side: Side) -> Finding:
    """Are the programs that are told as attached the ones that the kernel lists, and no others?"""
    held = held_programs(side.seen[1])
    if held is None:
        return unseen(f"the programs of the {side.name}", why_unseen(side.seen[1], "programs"))
    told: dict[int, str] = {}
    for feature in features_of(pair.end, side.name):
        programs = programs_of(pair.end, feature)
        told.update({one["id"]: feature for one in programs if one.get("id") is not None})
        wrong = _attachment_fault(pair, feature, programs, held) if _is_attached(pair, feature) else None
        wrong = wrong or _link_fault(pair, feature, get(side.seen[1], "links") or [])
        if wrong is not None:
            return wrong
    extra = sorted(set(held) - set(told))
    if extra:
        names = ", ".join(f"{one} ({printable(held[one]['name'], 20)})" for one in extra[:5])
        sentence = f"the {side.name} holds programs in the kernel that it does not tell: {names}; it tells {_ids(told)}"
        return Finding(FAIL, sorted(told)[:50], extra[:50], sentence)
    sentence = f"the kernel lists {counted(len(held), 'program')}, all that the {side.name} tells"
    return Finding(PASS, sorted(told)[:50], sorted(held)[:50], sentence)


def _is_attached(pair: Pair, feature: str) -> bool:
    return bool(get(pair.end, "status", "features", feature, "state") == "attached")


def _ids(found: Mapping[int, Any] | Sequence[int]) -> str:
    return ", ".join(map(str, sorted(found)[:10])) or "none"


def _attachment_fault(pair: Pair, feature: str, programs: Sequence[Json], held: Mapping[int, Json]) -> Finding | None:
    """What speaks against a feature that is told as attached."""
    if not programs:
        return Finding(FAIL, [], sorted(held)[:50], f"{feature} is told as attached without any program")
    for one in programs:
        number_, name = one.get("id"), printable(one.get("name"), 40)
        if number_ is None:
            return unseen(f"program {name} of {feature}", "the status gives no id")
        real = held.get(number_)
        if real is None:
            sentence = f"{feature} is told as attached with program {number_} ({name})"
            sentence += f", the kernel lists {_ids(held)} for its unit"
            return Finding(FAIL, number_, sorted(held)[:50], sentence)
        if one.get("tag") not in (None, real.get("tag")):
            tags = (one["tag"], real.get("tag"))
            sentence = f"program {number_} of {feature} is told with tag {printable(tags[0], 20)}, it has {tags[1]}"
            return Finding(FAIL, *tags, sentence)
        if real["type"] in NEEDS_LINK and not real["links"]:
            sentence = f"{feature} is told as attached, its program {number_} ({name}) is loaded without a link"
            return Finding(FAIL, "attached", "no link", sentence)
    return None


def _link_fault(pair: Pair, feature: str, links: Sequence[int]) -> Finding | None:
    """A link that is told and not held."""
    told = [one for one in get(pair.end, "status", "features", feature, "links") or [] if one is not None]
    gone = sorted(set(told) - set(links))
    if not gone:
        return None
    sentence = f"{feature} tells link {gone[0]}, which its unit does not hold; it holds {_ids(links)}"
    return Finding(FAIL, gone[0], sorted(links)[:50], sentence)


def side_of(pair: Pair, feature: str) -> Side | None:
    """The service whose feature it is."""
    return next((side for side in sides(pair) if feature in features_of(pair.end, side.name)), None)


def run_growth(pair: Pair, side: Side, feature: str, key: str) -> Growth:
    """Sum over the feature's programs of what was told and of what the kernel counted, by id."""
    end = {one.get("id"): one for one in programs_of(pair.end, feature)}
    start = {one.get("id"): one for one in programs_of(pair.start, feature)}
    held = [held_programs(one) or {} for one in side.seen]
    told = (_total(start, end, key), _total(end, end, key))
    # Programs that came within the window have no count at its start.
    seen = (_total(held[0], end, key), _total(held[1], end, key))
    what = {"run_cnt": "runs", "run_time_ns": "run time"}[key]
    return Growth(told, seen, 0, f"{what} of its programs", {"run_cnt": "runs", "run_time_ns": "ns"}[key])


def _total(programs: Mapping[Any, Json], ids: Mapping[Any, Json], key: str) -> int | None:
    values: list[int | None] = [number(programs.get(one), key) for one in ids]
    if not values or None in values:
        return None
    return sum(value for value in values if value is not None)


def judge_runs(pair: Pair, feature: str) -> Finding:
    """Are runs and run time the kernel's, and do events come from programs that ran?"""
    side = side_of(pair, feature)
    if side is None:
        return unseen("the service that runs it", None)
    found = judge_growth(side, run_growth(pair, side, feature, "run_time_ns"))
    runs = run_growth(pair, side, feature, "run_cnt")
    if found.verdict != FAIL:
        found = judge_growth(side, runs)
    if found.verdict != PASS:
        return found
    moved = difference(pair, "features", feature, "counters", "produced") if side.same_life else None
    if moved is not None and moved > 0 and runs.seen[1] == runs.told[0]:
        sentence = f"tells {moved} events within the window, the kernel counted 0 runs of its programs"
        return Finding(FAIL, moved, 0, f"{sentence} ({runs.seen[1]} before and after)")
    return found


def kernel_run_ns(pair: Pair, feature: str) -> int | None:
    """Run time of a feature's programs within the window by the kernel; None where it was not seen."""
    side = side_of(pair, feature) if what_is_missing(pair) is None else None
    if side is None:
        return None
    first, last = run_growth(pair, side, feature, "run_time_ns").seen
    return None if first is None or last is None or last < first else last - first


def kernel_millicores(pair: Pair, spent_ns: int | None) -> int | None:
    """CPU time within the witness's window as millicores."""
    first, last = (number(one, "witness", "boottime_ns") for one in (pair.start, pair.end))
    if spent_ns is None or first is None or last is None or last <= first:
        return None
    return millicores_of(spent_ns, last - first)


def larger(told: int | None, seen: int | None) -> int | None:
    """The larger of both for a budget; what was not told stays unmeasured."""
    return told if told is None or seen is None else max(told, seen)
