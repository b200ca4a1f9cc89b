# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only many hosts together show: a shift that hides in each host's noise. Pure.

Each host gives one number, by how much it is worse after than before. Those of the changed hosts are ranked among
those of hosts that were observed at the same times and were not changed: what time itself did, it did to both. A shift
fails where its p is within what this test may spend (spending.py) and it is as large as the check's limit: small
differences that are certain, and large ones that may be chance, stop nothing.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import ranktest, spending
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    NOT_EXERCISED,
    PASS,
    Finding,
    Inputs,
    get,
    number,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import cpu_delta, memory_delta

# The rank test speaks only where so many hosts stand on both sides.
HOSTS = 5
MILLION = 1_000_000
_NAMED = 5

Delta = Callable[[Any], "int | None"]


class Metric(NamedTuple):
    """What is compared: its check, its limit, what it is in words, the number of a host's record, and where a host
    has none of it at all, which is not the same as one that was not measured."""

    check: str
    limit: str
    words: str
    unit: str
    delta: Delta
    absent: Callable[[Any], bool]


def pressure_ppm(observation: Any, kind: str) -> int | None:
    """Share of an observation's window in which some task waited for `kind`, in ppm; None where it was not measured."""
    first, last = (number(observation, end, "host", f"psi_{kind}_some_us") for end in ("start", "end"))
    window = number(observation, "window_ns")
    if first is None or last is None or window is None or window <= 0 or last < first:
        return None
    return (last - first) * 1000 * MILLION // window


def pressure_delta(kind: str) -> Delta:
    """By how much more of its time a host waits after than before, in ppm."""

    def delta(record: Any) -> int | None:
        before, after = (pressure_ppm(get(record, when), kind) for when in ("before", "after"))
        return None if before is None or after is None else after - before

    return delta


def no_pressure(kind: str) -> Callable[[Any], bool]:
    """Whether the host's kernel keeps no account of that pressure."""

    def absent(record: Any) -> bool:
        ends = [(when, end) for when in ("before", "after") for end in ("start", "end")]
        return all(number(record, when, end, "host", f"psi_{kind}_some_us") is None for when, end in ends)

    return absent


def latency_ns(record: Any, when: str, percentile: str) -> int | None:
    """A percentile of the application's latency in one of a host's observations; 0 counts as not measured."""
    found = number(record, when, "end", "application", f"{percentile}_ns")
    return found if found is not None and found > 0 else None


def latency_delta(percentile: str) -> Delta:
    """By how much the application is slower after than before, in ppm of before."""

    def delta(record: Any) -> int | None:
        before, after = (latency_ns(record, when, percentile) for when in ("before", "after"))
        # Where it cannot be read at one end, what another end of the same observation says is not enough.
        wrong = [get(record, when, "end", "application_error") for when in ("before", "after")]
        if before is None or after is None or wrong != [None, None]:
            return None
        return (after - before) * MILLION // before

    return delta


def no_latency(record: Any) -> bool:
    """Whether the host measures no application: it says nothing of one, not even that it could not be read."""
    fields = ("application", "application_error")
    return all(get(record, when, "end", field) is None for when in ("before", "after") for field in fields)


def never(_record: Any) -> bool:
    """Every host has it."""
    return False


METRICS: tuple[Metric, ...] = (
    Metric("host_cpu_shift", "host_cpu_shift_ppm", "host CPU", "ppm", cpu_delta, never),
    Metric("host_memory_shift", "host_memory_shift_bytes", "host memory", "bytes", memory_delta, never),
    *(
        Metric(f"pressure_{kind}_shift", f"pressure_{kind}_shift_ppm", f"{words} pressure", "ppm",
               pressure_delta(kind), no_pressure(kind))
        for kind, words in (("cpu", "CPU"), ("memory", "memory"), ("io", "I/O"))
    ),
    *(
        Metric(f"application_{one}_shift", f"application_{one}_shift_ppm", f"the application's {one}", "ppm",
               latency_delta(one), no_latency)
        for one in ("p95", "p99")
    ),
)  # fmt: skip
NAMES = tuple(metric.check for metric in METRICS)


def level(inputs: Inputs) -> float:
    """The p up to which a check of this judgement calls a difference; checks in dry run spend nothing."""
    return spending.alpha(inputs.budget, len([name for name in NAMES if name not in inputs.dry_run]) or 1)


def judge_shift(metric: Metric) -> Callable[[Inputs], Finding | None]:
    """The judge of a metric: are the changed hosts as a whole worse than those that were not changed?"""

    def judge(inputs: Inputs) -> Finding | None:
        changed = {host: metric.delta(one) for host, one in inputs.changed.items() if not metric.absent(one)}
        if not changed:
            return None
        others = [metric.delta(one) for one in inputs.controls.values() if not metric.absent(one)]
        return _judged(metric, inputs, changed, [one for one in others if one is not None])

    return judge


def _judged(
    metric: Metric, inputs: Inputs, changed: Mapping[str, int | None], controls: Sequence[int]
) -> Finding:  # fmt: skip
    limit, most = inputs.limits[metric.limit], level(inputs)
    few = too_few(len(changed), len(controls), most)
    if few is not None:
        return Finding(NOT_EXERCISED, None, limit, f"{metric.words}: not judged by a rank test: {few}")
    silent = sorted(host for host, value in changed.items() if value is None)
    if silent:
        named = ", ".join(silent[:_NAMED]) + (f" and {len(silent) - _NAMED} more" if len(silent) > _NAMED else "")
        return Finding(INCONCLUSIVE, None, limit, f"{metric.words}: not measured before and after on {named}")
    return compare(metric, [one for one in changed.values() if one is not None], controls, most, limit)


def too_few(changed: int, controls: int, most: float) -> str | None:
    """Why so many hosts cannot be tested at this level; None where they can."""
    sizes = f"{changed} changed hosts and {controls} controls"
    if min(changed, controls) < HOSTS:
        return f"{sizes}, {HOSTS} of each at least"
    if most <= 0:
        return "the planned readings of this batch are over, and with them its share of the error rate"
    if ranktest.least_p(changed, controls) > most:
        return f"{sizes} can show nothing at this batch's share of the error rate ({most:.1e})"
    return None


def compare(metric: Metric, changed: Sequence[int], controls: Sequence[int], most: float, limit: int) -> Finding:
    """The test itself: fails where p is within `most` and the shift at least `limit`."""
    (bad, found), own = decide(changed, controls, most, limit), ranktest.signed_rank(changed)
    shift = round(found.shift)
    between = "" if found.low is None or found.high is None else f", 95 % from {found.low:.0f} to {found.high:.0f}"
    sentence = (
        f"{metric.words} of {len(changed)} changed hosts shifted by {shift} {metric.unit}{between}, against "
        f"{len(controls)} controls (p {found.p:.1e}, a difference up to {most:.1e}; effect {found.effect_ppm} ppm; "
        f"against their own before {round(own.shift)} {metric.unit}, p {own.p:.1e})"
    )
    statistics = {
        "changed": ranktest.quantiles(changed),
        "controls": ranktest.quantiles(controls),
        "alpha": figure(most),
        "exact": found.exact,
        **_told("", found),
        **_told("own_", own),
    }
    return Finding(FAIL if bad else PASS, shift, limit, sentence, statistics)


def decide(
    changed: Sequence[float], controls: Sequence[float], most: float, limit: int
) -> tuple[bool, ranktest.RankTest]:
    """(whether it is a difference that counts, the test): what tools/simulate_gate.py asks many thousand times."""
    found = ranktest.rank_sum(changed, controls)
    return found.p <= most and round(found.shift) >= limit, found


def _told(prefix: str, found: ranktest.RankTest) -> dict[str, Any]:
    """A test as numbers for the record."""
    told = {"p": figure(found.p), "effect_ppm": found.effect_ppm, "shift": figure(found.shift)}
    told.update(low=figure(found.low), high=figure(found.high))
    return {prefix + name: value for name, value in told.items()}


def figure(value: float | None) -> float | None:
    """A number with as many digits as mean something."""
    return None if value is None else float(f"{value:.4g}")
