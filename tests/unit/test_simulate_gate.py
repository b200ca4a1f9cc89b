# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulation of the gate: that it decides as the gate does, and counts as it says."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import shift, spending

from tests.unit.test_gate import judge_all
from tests.unit.test_gate_shift import worse
from tools import simulate_gate as simulate

COUNTED = {"host_cpu_shift": 10_000, "host_memory_shift": 1 << 20, "application_p99_shift": 1_000_000}


def numbers(chance: Any, name: str, count: int, shifted: float) -> list[int]:
    """Growths of a check, some of them with a real difference."""
    wide = {"host_cpu_shift": 8_000, "host_memory_shift": 8 << 20}.get(name, 40_000)
    return [int(one) for one in numpy.rint(chance.normal(shifted, wide, count))]


@pytest.mark.parametrize("name", COUNTED)
def test_it_decides_as_the_gate_does_on_the_same_numbers(name: str) -> None:
    chance = numpy.random.default_rng(5)
    budget = spending.Budget(0.05, 3, 1, 1)
    decided = []
    for shifted in (0, 15_000, 30_000, 100_000):
        ours = numbers(chance, name, 12, shifted * (600 if "memory" in name else 1))
        theirs = numbers(chance, name, 12, 0)
        nothing = dict.fromkeys(shift.NAMES, numpy.zeros(12))
        mine = simulate.batch_alarms(
            {**nothing, name: numpy.array(ours)}, {**nothing, name: numpy.array(theirs)}, budget
        )
        pairs = {f"h{at}": worse(name, by) for at, by in enumerate(ours)}
        others = {f"c{at}": worse(name, by) for at, by in enumerate(theirs)}
        verdict = judge_all(pairs, controls=others, budget=(0.05, 3, 1, 1))
        failed = {one["check"] for one in verdict["checks"] if one["verdict"] == "fail" and one["check"] in shift.NAMES}
        assert mine == failed
        decided.append(bool(mine))
    assert True in decided and False in decided, "both sides were decided"


def test_too_few_hosts_alarm_nothing() -> None:
    four = {name: numpy.full(4, 10**9) for name in shift.NAMES}
    zero = {name: numpy.zeros(20) for name in shift.NAMES}
    assert simulate.batch_alarms(four, zero, spending.Budget()) == set()
    five = {name: numpy.full(5, 10**9) for name in shift.NAMES}
    assert simulate.batch_alarms(five, zero, spending.Budget()) == set(shift.NAMES)


@pytest.mark.parametrize(("hosts", "over", "found"), [(19, 1, "host_delta"), (20, 1, None), (20, 2, "host_outliers")])
def test_limits_of_growth_are_the_gates(hosts: int, over: int, found: str | None) -> None:
    ours = {
        "host_cpu_shift": numpy.array([60_000] * over + [0] * (hosts - over)),
        "host_memory_shift": numpy.zeros(hosts),
    }
    theirs = {name: numpy.zeros(20) for name in ours}
    assert simulate.limit_alarms([ours], [theirs]) == ({found} if found else set())
    raised = {**theirs, "host_cpu_shift": numpy.full(20, 10_000)}
    assert simulate.limit_alarms([ours], [raised]) == set()
    # A small batch is read again where one of its hosts is over, a large one is judged by their number at once.
    assert simulate.limit_alarms([ours, theirs], [theirs, theirs]) == ({found} if found == "host_outliers" else set())
    assert simulate.limit_alarms([ours, ours], [theirs, theirs]) == ({found} if found else set())
    assert simulate.limit_alarms([theirs, ours], [theirs, theirs]) == set()


def test_the_plan_is_the_default_one_with_its_controls() -> None:
    batches = simulate.batches_of(200)
    assert sum(changed for changed, _controls in batches) == 200
    assert batches[0][1] == 20 and batches[-1][1] == 0


def test_one_seed_gives_one_answer() -> None:
    rollout = simulate.Rollout([(20, 20), (20, 20)], 2, 0.05, simulate.Model())
    assert [simulate.alarms((1, 2, at), rollout) for at in range(3)] == [
        simulate.alarms((1, 2, at), rollout) for at in range(3)
    ]
    assert simulate.caught((1, 1, 1), rollout, 2.0, "application_p99_shift")
    assert not simulate.caught((1, 1, 1), rollout, 0.5, "application_p99_shift")


def test_p95_and_p99_are_those_of_the_requests() -> None:
    """Against drawing every request: the mean and the deviation of both quantiles, and that they go together."""
    model, chance = simulate.Model(), numpy.random.default_rng(3)
    low, high = simulate.log_quantiles(chance, model, 4_000, 10)
    drawn = numpy.sort(model.spread * chance.standard_normal((1_000, 2_000)), axis=1)
    for ours, theirs in ((low, drawn[:, 1_899]), (high, drawn[:, 1_979])):
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.004)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.1)
    together = numpy.corrcoef(drawn[:, 1_899], drawn[:, 1_979])[0, 1]
    assert numpy.corrcoef(low, high)[0, 1] == pytest.approx(together, abs=0.1)
    assert (high >= low).all()


def test_bounds_of_a_share_are_clopper_and_pearsons() -> None:
    assert simulate.interval(0, 20) == pytest.approx((0, 0.1684), abs=1e-4)
    assert simulate.interval(20, 20) == pytest.approx((0.8316, 1), abs=1e-4)
    assert simulate.interval(8, 2_000) == pytest.approx((0.0017, 0.0079), abs=1e-4)
    assert str(simulate.Tally(1, 4)).startswith("25.00 % (0.63 to 80.59), 1 of 4")
