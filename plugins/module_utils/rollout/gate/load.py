# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What loader and programs cost a host, and how much busier and fuller the host itself became. Pure."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import ranktest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    INCONCLUSIVE,
    PASS,
    Finding,
    Inputs,
    Measured,
    Pair,
    attached_features,
    budget_of,
    difference,
    get,
    grown,
    millicores,
    number,
    ratio_up,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.features import feature_run_ns
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_cost import units_millicores
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_programs import (
    kernel_millicores,
    kernel_run_ns,
    larger,
)

# Hosts in a batch from which single ones may be over the limit of their growth by another load (outliers.py).
LARGE_BATCH = 20


def judge_loader(pair: Pair) -> Measured:
    """The loader's own CPU."""
    return Measured(loader_millicores(pair))


def judge_programs(pair: Pair) -> Measured:
    """CPU of all programs together."""
    return Measured(bpf_millicores(pair))


def judge_total(pair: Pair) -> Measured:
    """CPU of loader and programs."""
    loader, programs = loader_millicores(pair), bpf_millicores(pair)
    return Measured(None if loader is None or programs is None else loader + programs)


def loader_millicores(pair: Pair) -> int | None:
    """CPU of the loader itself: the larger of what is told and what the kernel counted."""
    told = millicores(pair, difference(pair, "loader", "cpu_ns"))
    return larger(told, units_millicores(pair))


def ours(pair: Pair) -> str:
    """What of the host's load is ours, for whoever looks for the cause of its growth."""
    loader, programs = loader_millicores(pair), bpf_millicores(pair)
    if loader is None or programs is None:
        return "what is ours of it was not measured"
    return f"loader and programs took {loader + programs} millicores"


def attached_budget(pair: Pair) -> int | None:
    """Sum of the CPU budgets of what is attached; None if a contract is missing."""
    budgets = [budget_of(pair, name, "cpu_millicores") for name in attached_features(pair)]
    if None in budgets:
        return None
    return int(sum(value for value in budgets if value is not None))


def total_budget(pair: Pair) -> int | None:
    """A budget covers a feature's programs and consumer; the loader's idle cost has a limit of its own."""
    budget = attached_budget(pair)
    return None if budget is None else int(budget + pair.limit("loader_cpu_millicores"))


def bpf_millicores(pair: Pair) -> int | None:
    """Run time of all programs of ours; None if one was not measured, 0 if none is attached."""
    spent = [feature_run_ns(pair, name) for name in attached_features(pair)]
    if None in spent:
        return None
    told = millicores(pair, sum(value for value in spent if value is not None))
    counted = [kernel_run_ns(pair, name) for name in attached_features(pair)]
    seen = None if None in counted else sum(value for value in counted if value is not None)
    return larger(told, kernel_millicores(pair, seen))


def cpu_busy_ppm(observation: Any) -> int | None:
    """Busy share of all CPUs within an observation's window."""
    spent = grown(*(number(observation, end, "host", "cpu_busy_ns") for end in ("start", "end")))
    span = grown(*(number(observation, end, "host", "cpu_total_ns") for end in ("start", "end")))
    if spent is None or span is None:
        return None
    # A counter that went backwards, or busy time beyond all time, measures nothing.
    return spent * 1_000_000 // span if span > 0 and 0 <= spent <= span else None


def cpu_delta(record: Any) -> int | None:
    """How much busier a host is after than before, in ppm of all its CPUs."""
    before, after = cpu_busy_ppm(get(record, "before")), cpu_busy_ppm(get(record, "after"))
    return None if before is None or after is None else after - before


def memory_delta(record: Any) -> int | None:
    """How much less memory is available after than before, in bytes."""
    before = number(record, "before", "end", "host", "memory_available_bytes")
    after = number(record, "after", "end", "host", "memory_available_bytes")
    return None if before is None or after is None else before - after


def excused_growth(inputs: Inputs, delta: Callable[[Any], int | None]) -> int | None:
    """What the controls grew by their median, at least 0; None where none of them was measured."""
    others = [value for value in map(delta, inputs.controls.values()) if value is not None]
    return max(0, ranktest.median(others)) if others else None


def net_of_controls(own: int | None, inputs: Inputs, delta: Callable[[Any], int | None]) -> tuple[int | None, str]:
    """(own delta less what the controls grew by their median, how it was reckoned).

    Controls excuse, they do not accuse: that a few of them got less busy says nothing of this host. What many of them
    say against many hosts is the rank test's (shift.py).
    """
    if own is None or not inputs.controls:
        return own, "against its own before"
    excused = excused_growth(inputs, delta)
    if excused is None:
        return None, "less the controls, of which none was measured"
    count = sum(delta(one) is not None for one in inputs.controls.values())
    return own - excused, f"less the median of {count} controls"


def judge_host_cpu(pair: Pair) -> Measured | Finding:
    """Did the host itself get busier, beyond what unchanged hosts did?"""
    growth, how = net_of_controls(cpu_delta(pair.inputs.changed[pair.host]), pair.inputs, cpu_delta)
    found = by_another_load(pair, growth, pair.limit("host_cpu_delta_ppm"), ours_ppm(pair), "host_cpu_delta")
    said = f"host CPU grew by {growth} ppm ({how}; {ours(pair)})"
    return found.told(said) if found else Measured(growth, {"how": how, "ours": ours(pair)})


def judge_host_memory(pair: Pair) -> Measured | Finding:
    """Did the host itself get fuller, beyond what unchanged hosts did?"""
    growth, how = net_of_controls(memory_delta(pair.inputs.changed[pair.host]), pair.inputs, memory_delta)
    found = by_another_load(pair, growth, pair.limit("host_memory_delta_bytes"), ours_bytes(pair), "host_memory_delta")
    return found.told(f"host memory grew by {growth} bytes ({how})") if found else Measured(growth, {"how": how})


class OtherLoad(NamedTuple):
    """A host that grew over its limit while what is ours on it is small."""

    growth: int
    limit: int
    verdict: str

    def told(self, said: str) -> Finding:
        """The finding: it passes and is counted (outliers.py), or it is open until it is measured again."""
        then = "counted by host_outliers" if self.verdict == PASS else "it fails where the next measurement is over too"
        sentence = f"{said}, over the limit of {self.limit}, by something else than ours; {then}"
        return Finding(self.verdict, self.growth, self.limit, sentence)


def by_another_load(pair: Pair, growth: int | None, limit: int, own: int | None, check: str) -> OtherLoad | None:
    """Whether a host is over its limit by what is surely not ours; None where it must be judged.

    Ours must be measured, and at most half of the limit. A host of a large batch passes. One of a small batch is open
    as long as a reading is to come: another load that comes and goes is over in one of them, harm done by the release
    in all. Where `check` may not hold a rollout, an open one would let it pass unseen, so it is judged at once.
    """
    over = growth is not None and growth > limit
    if growth is None or not over or own is None or 2 * own > limit:
        return None
    if len(pair.inputs.changed) >= LARGE_BATCH:
        return OtherLoad(growth, limit, PASS)
    budget = pair.inputs.budget
    last = budget.reading >= budget.readings
    if last or check in pair.inputs.dry_run or pair.inputs.on_inconclusive.get(check, "hold") != "hold":
        return None
    return OtherLoad(growth, limit, INCONCLUSIVE)


def ours_ppm(pair: Pair) -> int | None:
    """What loader and programs take of all of the host's CPUs; None where it was not measured."""
    loader, programs, cpus = loader_millicores(pair), bpf_millicores(pair), number(pair.end, "host", "cpus")
    if loader is None or programs is None or cpus is None or cpus <= 0:
        return None
    return ratio_up(loader + programs, cpus, 1_000)


def ours_bytes(pair: Pair) -> int | None:
    """What loader and maps take of the host's memory; None where it was not measured."""
    parts = [number(pair.end, "status", "loader", name) for name in ("rss_bytes", "map_memory_bytes")]
    return None if None in parts else sum(part for part in parts if part is not None)
