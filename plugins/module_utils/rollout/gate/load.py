# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What loader and programs cost a host, and how much busier and fuller the host itself became. Pure."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import ranktest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    Check,
    Inputs,
    Measure,
    Pair,
    attached_features,
    compare,
    difference,
    first_set,
    get,
    grown,
    millicores,
    number,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.features import budget_of, feature_run_ns
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_cost import units_millicores
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_programs import (
    kernel_millicores,
    kernel_run_ns,
    larger,
)


def judge_cpu(pair: Pair) -> list[Check]:
    """The loader's own CPU, that of all programs, and both against the budgets.

    Of what is told and what the kernel counted the larger is judged.
    """
    loader = loader_millicores(pair)
    programs = bpf_millicores(pair)
    total = None if loader is None or programs is None else loader + programs
    budget = attached_budget(pair)
    # A budget covers a feature's programs and consumer; the loader's idle cost has a limit of its own.
    both = None if budget is None else budget + pair.limit("loader_cpu_millicores")
    total_limit = first_set(pair.limit("total_cpu_millicores"), both)
    bpf_limit = first_set(pair.limit("bpf_cpu_millicores"), budget)
    return [
        compare(
            pair,
            Measure("loader_cpu", loader, pair.limit("loader_cpu_millicores"), "millicores", "loader CPU"),
        ),
        compare(pair, Measure("bpf_cpu", programs, bpf_limit, "millicores", "CPU of all programs")),
        compare(pair, Measure("total_cpu", total, total_limit, "millicores", "CPU of loader and programs")),
    ]


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


def net_of_controls(own: int | None, inputs: Inputs, delta: Callable[[Any], int | None]) -> tuple[int | None, str]:
    """(own delta less the controls' median, how it was reckoned)."""
    if own is None or not inputs.controls:
        return own, "against its own before"
    others = [value for value in map(delta, inputs.controls.values()) if value is not None]
    if not others:
        return None, "less the controls, of which none was measured"
    return own - ranktest.median(others), f"less the median of {len(others)} controls"


def judge_host_load(pair: Pair) -> list[Check]:
    """Did the host itself get busier or fuller, beyond what unchanged hosts did?"""
    record = pair.inputs.changed[pair.host]
    cpu, cpu_how = net_of_controls(cpu_delta(record), pair.inputs, cpu_delta)
    memory, memory_how = net_of_controls(memory_delta(record), pair.inputs, memory_delta)
    cpu_limit, memory_limit = pair.limit("host_cpu_delta_ppm"), pair.limit("host_memory_delta_bytes")
    return [
        compare(pair, Measure("host_cpu_delta", cpu, cpu_limit, "ppm", f"host CPU growth ({cpu_how}; {ours(pair)})")),
        compare(
            pair,
            Measure("host_memory_delta", memory, memory_limit, "bytes", f"host memory growth ({memory_how})"),
        ),
    ]
