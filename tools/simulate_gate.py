# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the gate's rank tests stop a good rollout, and how often they stop a bad one: `make simulate-gate`.

Whole rollouts by the default plan of a fleet, judged by the gate's own functions at the error rate that the playbook
gives them. docs/gate-statistics.md says what the model is, and has the figures of one run. Only the hosts' numbers are
made up; what is decided of them is `shift.decide` with `spending.alpha` and the default limits.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import time
from typing import Any, Callable, NamedTuple, Sequence

import numpy
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import controls, plan
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import load, outliers, shift, spending
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import DEFAULT_LIMITS
from scipy import stats

Random = numpy.random.Generator
Numbers = Any  # an array of numpy, one number a host

MIB = 1 << 20
MILLION = 1_000_000
OUTLIERS = (DEFAULT_LIMITS[outliers.LIMIT] or 0) / MILLION
# The playbook's own defaults: seconds of the windows before and after.
BEFORE, AFTER = 10, 30
# One, and one where the first was open (ebpf_fleet_bake_extensions).
READINGS = 2


class Model(NamedTuple):
    """What a fleet without any difference looks like. Shares are fractions; the noise of a host is its own.

    `tails` are the degrees of freedom of the noise (Student's t; 0 is normal); with `jobs` that of a host's CPU and
    memory goes up alone, as a job that begins takes some and none gives any. `noise` is what a host's latency varies by
    between two windows beyond the chance of its requests, `shock` what it varies by on all hosts together,
    `cpu_shock` the same of their CPUs' busy share.
    """

    requests_per_second: int = 200
    spread: float = 0.5
    noise: float = 0.03
    shock: float = 0.10
    cpu_noise: float = 0.008
    cpu_shock: float = 0.005
    memory_noise: float = 8 * MIB
    tails: int = 0
    jobs: bool = False


class Tally(NamedTuple):
    """How many of how many."""

    hits: int
    of: int

    def __str__(self) -> str:
        low, high = interval(self.hits, self.of)
        return f"{100 * self.hits / self.of:.2f} % ({100 * low:.2f} to {100 * high:.2f}), {self.hits} of {self.of}"


def interval(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a share."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, of - hits + 1))
    high = 1.0 if hits == of else float(stats.beta.ppf(1 - tail, hits + 1, of - hits))
    return low, high


# --- the fleet ---------------------------------------------------------------------------------------


def fleet(hosts: int) -> list[dict[str, str]]:
    """Hosts of four strata in cells of fifty and regions of five cells."""
    return [
        {"name": f"h{at:05}", "cell": f"c{at // 50:03}", "region": f"r{at // 250:02}", "stratum": f"s{at % 4}"}
        for at in range(hosts)
    ]


def batches_of(hosts: int) -> list[tuple[int, int]]:
    """(changed hosts, controls) of each batch of the default plan."""
    everyone = fleet(hosts)
    planned = plan.plan(everyone)
    strata = {one["name"]: one["stratum"] for one in everyone}
    compared = controls.choose(strata, planned["batches"], planned["left"])
    return [(len(one["hosts"]), len(compared[one["number"]])) for one in planned["batches"]]


def noise(chance: Random, model: Model, count: int) -> Numbers:
    """A host's own noise, of deviation 1 where it is normal."""
    return chance.standard_normal(count) if model.tails == 0 else chance.standard_t(model.tails, count)


def log_quantiles(chance: Random, model: Model, count: int, seconds: float) -> tuple[Numbers, Numbers]:
    """Logarithms of the p95 and p99 of so many hosts' requests within a window, by their exact joint distribution.

    The k-th of n uniform numbers is Beta(k, n - k + 1), and of those above it the next ones are uniform again.
    """
    many = int(model.requests_per_second * seconds)
    low, high = int(numpy.ceil(0.95 * many)), int(numpy.ceil(0.99 * many))
    first = chance.beta(low, many - low + 1, count)
    second = first + (1 - first) * chance.beta(high - low, many - high + 1, count)
    return model.spread * stats.norm.ppf(first), model.spread * stats.norm.ppf(second)


def growths(chance: Random, model: Model, count: int, readings: int, shocks: Numbers) -> list[dict[str, Numbers]]:
    """{metric: growth of each host} at each reading of a batch: each has a window after of its own, all one before.

    `shocks` is what all hosts of the batch and its controls share, of deviation 1: one before, and one for each
    reading.
    """
    before = _window(chance, model, count, BEFORE, shocks[0])
    windows = [_window(chance, model, count, AFTER, shocks[1 + at]) for at in range(readings)]
    return [{name: _growth(name, before[name], after[name]) for name in before} for after in windows]


def _window(chance: Random, model: Model, count: int, seconds: float, shock: float) -> dict[str, Numbers]:
    p95, p99 = log_quantiles(chance, model, count, seconds)
    own = model.noise * noise(chance, model, count)
    cpu, memory = (load_of(noise(chance, model, count), model) for _each in range(2))
    return {
        "host_cpu_shift": model.cpu_noise * cpu + model.cpu_shock * shock,
        "host_memory_shift": model.memory_noise * memory,
        **{f"pressure_{kind}_shift": 0.01 * numpy.exp(0.5 * noise(chance, model, count).clip(-9, 9))
           for kind in ("cpu", "memory", "io")},
        "application_p95_shift": p95 + own + model.shock * shock,
        "application_p99_shift": p99 + own + model.shock * shock,
    }  # fmt: skip


def load_of(own: Numbers, model: Model) -> Numbers:
    """A host's own noise as its CPU and memory have it."""
    return numpy.abs(own) if model.jobs else own


def _growth(name: str, before: Numbers, after: Numbers) -> Numbers:
    """In the check's unit: latencies are logarithms here."""
    if name.startswith("application"):
        return numpy.rint((numpy.exp(after - before) - 1) * MILLION)
    return numpy.rint((after - before) * (1 if name == "host_memory_shift" else MILLION))


# --- rollouts ----------------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """What is asked of one rollout: its batches, how often each is read, and the model."""

    batches: Sequence[tuple[int, int]]
    readings: int
    error_rate: float
    model: Model


def alarms(seed: Sequence[int], rollout: Rollout) -> set[str]:
    """The checks that stop a rollout in which nothing differs, at whichever batch and reading."""
    chance = numpy.random.default_rng(seed)
    tested = max(1, sum(changed >= shift.HOSTS for changed, _controls in rollout.batches))
    found: set[str] = set()
    for changed, others in rollout.batches:
        shocks = chance.standard_normal(rollout.readings + 1)
        ours, theirs = (growths(chance, rollout.model, count, rollout.readings, shocks) for count in (changed, others))
        for reading in range(1, rollout.readings + 1):
            budget = spending.Budget(rollout.error_rate, tested, rollout.readings, reading)
            found |= batch_alarms(ours[reading - 1], theirs[reading - 1], budget)
        found |= limit_alarms(ours, theirs)
    return found


def batch_alarms(ours: dict[str, Numbers], theirs: dict[str, Numbers], budget: spending.Budget) -> set[str]:
    """The rank tests that fail on a batch, by the gate's own decision."""
    most = spending.alpha(budget, len(shift.METRICS))
    found = set()
    for metric in shift.METRICS:
        changed, others = ours[metric.check], theirs[metric.check]
        if shift.too_few(len(changed), len(others), most) is not None:
            continue
        limit = DEFAULT_LIMITS[metric.limit]
        assert limit is not None
        if shift.decide(changed.tolist(), others.tolist(), most, limit)[0]:
            found.add(metric.check)
    return found


def limit_alarms(ours: list[dict[str, Numbers]], theirs: list[dict[str, Numbers]]) -> set[str]:
    """The fixed limits of hosts' growth that fail over a batch's readings, which no error rate bounds."""
    for mine, others in zip(ours, theirs):
        over = over_their_limit(mine, others)
        # In a large batch single hosts may be over, where what is ours is small; it is nothing here.
        if len(over) >= load.LARGE_BATCH:
            return {"host_outliers"} if over.mean() > OUTLIERS else set()
        if not over.any():
            return set()
    # A host of a small batch is measured again as long as a reading is to come.
    return {"host_delta"}


def over_their_limit(ours: dict[str, Numbers], theirs: dict[str, Numbers]) -> Numbers:
    """Which hosts' CPU or memory grew over its limit, less what the controls grew."""
    over = numpy.zeros(len(ours["host_cpu_shift"]), dtype=bool)
    for name, limit in (("host_cpu", "host_cpu_delta_ppm"), ("host_memory", "host_memory_delta_bytes")):
        others = theirs[f"{name}_shift"]
        excused = max(0.0, float(numpy.median(others))) if len(others) else 0.0
        over |= ours[f"{name}_shift"] - excused > DEFAULT_LIMITS[limit]
    return over


def caught(seed: Sequence[int], rollout: Rollout, factor: float, check: str) -> bool:
    """Whether a batch whose p99 is `factor` times what it was is stopped by that check, at one reading or another."""
    chance = numpy.random.default_rng(seed)
    ((changed, others),) = rollout.batches[:1]
    shocks = chance.standard_normal(rollout.readings + 1)
    ours, theirs = (growths(chance, rollout.model, count, rollout.readings, shocks) for count in (changed, others))
    tested = len(rollout.batches)
    for reading in range(1, rollout.readings + 1):
        grown = dict(ours[reading - 1])
        grown[check] = numpy.rint((grown[check] + MILLION) * factor - MILLION)
        budget = spending.Budget(rollout.error_rate, tested, rollout.readings, reading)
        if check in batch_alarms(grown, theirs[reading - 1], budget):
            return True
    return False


def before_alone(seed: Sequence[int], rollout: Rollout) -> bool:
    """Whether the changed hosts' own before would have stopped them: signed ranks, without any control."""
    chance = numpy.random.default_rng(seed)
    shocks = chance.standard_normal(2)
    (ours,) = growths(chance, rollout.model, rollout.batches[0][0], 1, shocks)
    found = shift.ranktest.signed_rank(ours["application_p99_shift"].tolist())
    most = spending.alpha(spending.Budget(rollout.error_rate, len(rollout.batches)), len(shift.METRICS))
    return found.p <= most and found.shift >= (DEFAULT_LIMITS["application_p99_shift_ppm"] or 0)


# --- runs --------------------------------------------------------------------------------------------


def many(seed: int, run: int, count: int, ask: Callable[[Sequence[int]], Any]) -> list[Any]:
    """The answers to `count` simulations; the same seed gives the same, on however many CPUs."""
    seeds = [(seed, run, at) for at in range(count)]
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        return pool.map(ask, seeds, chunksize=max(1, count // 64))


def false_alarms(seed: int, run: int, count: int, rollout: Rollout) -> dict[str, Tally]:
    """{what: how many rollouts it stopped}: every check, all rank tests together, and all fixed limits together."""
    found = many(seed, run, count, functools.partial(alarms, rollout=rollout))
    told = {"rank tests": Tally(sum(bool(one & set(shift.NAMES)) for one in found), count)}
    told["either"] = Tally(sum(map(bool, found)), count)
    told["fixed limits"] = Tally(sum(bool(one - set(shift.NAMES)) for one in found), count)
    for name in shift.NAMES:
        told[name] = Tally(sum(name in one for one in found), count)
    return told


def power(seed: int, run: int, count: int, rollout: Rollout, factor: float) -> Tally:
    """How many batches with a slower p99 are caught."""
    ask = functools.partial(caught, rollout=rollout, factor=factor, check="application_p99_shift")
    return Tally(sum(many(seed, run, count, ask)), count)


def report(options: argparse.Namespace) -> bool:
    """Print every figure; whether all are as stated."""
    begun = time.monotonic()
    batches = batches_of(options.hosts)
    tested = [one for one in batches if one[0] >= shift.HOSTS]
    rate = options.error_rate
    print(
        f"{options.hosts} hosts, default plan: {len(batches)} batches, of which {len(tested)} have {shift.HOSTS} hosts"
    )
    print(f"and more; stated error rate {100 * rate:g} % for all of them; seed {options.seed}\n")
    print("False alarms, rollouts without any difference | stopped by rank tests | by limits of growth | by either")
    good = True
    runs = [("one reading a batch", 1, Model()), ("two readings a batch, the default", READINGS, Model()),
            ("one reading, heavy tails (t, 3)", 1, Model(tails=3)),
            ("two readings, heavy tails (t, 3)", READINGS, Model(tails=3))]  # fmt: skip
    jobs = [("one reading, jobs that begin (t, 3, upward)", 1, Model(tails=3, jobs=True)),
            ("two readings, jobs that begin (t, 3, upward)", READINGS, Model(tails=3, jobs=True))]  # fmt: skip
    for run, (words, readings, model) in [*enumerate(runs), *enumerate(jobs, 80)]:
        told = false_alarms(options.seed, run, options.rollouts, Rollout(batches, readings, rate, model))
        print(f"{words} | {told['rank tests']} | {told['fixed limits']} | {told['either']}")
        good = good and interval(*told["rank tests"])[0] <= rate
    print("\nA real 10 % p99 regression, 20 changed hosts and 20 controls | caught")
    spread = max(1, len(tested))
    for run, (own, readings) in enumerate([(0.0, 1), (0.03, 1), (0.03, READINGS), (0.05, 1), (0.08, 1)], len(runs)):
        rollout = Rollout([(20, 20)] * spread, readings, rate, Model(noise=own))
        found = power(options.seed, run, options.rollouts, rollout, 1.10)
        words = f"hosts' own noise {100 * own:g} %, {readings} reading{'s' if readings > 1 else ''}"
        print(f"{words} | {found}")
    print("\nWithout any difference, 20 hosts against their own before alone | stopped")
    ask = functools.partial(before_alone, rollout=Rollout([(20, 20)] * spread, 1, rate, Model()))
    alone = Tally(sum(many(options.seed, 90, options.rollouts, ask)), options.rollouts)
    print(f"the whole fleet's latency varies by 10 % | {alone}")
    print(f"\n{time.monotonic() - begun:.0f} s")
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 where the false alarms are above the stated rate beyond chance."""
    parser = argparse.ArgumentParser(description="Simulate the gate's rank tests over whole rollouts.")
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--error-rate", type=float, default=spending.DEFAULT_ERROR_RATE)
    return 0 if report(parser.parse_args(arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
