# SPDX-License-Identifier: GPL-3.0-or-later
"""What only many hosts show: each metric on both sides of its limit, of chance, and of the hosts that are enough."""

from __future__ import annotations

from typing import Any, Callable, Iterable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments, shift, spending
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import BY_NAME, CHECKS
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.spending import Budget

from tests.unit.test_gate import SECOND, check, judge_all, observation

Pair = dict[str, Any]
HELD, PASSED, FAILED, NOT_JUDGED = "inconclusive", "pass", "fail", "not_exercised"


def quiet() -> Pair:
    """A host with everything measured: a tenth of its CPU busy, half of its time under pressure, 100 ms of p99."""
    pair = {"before": observation(50 * SECOND), "after": observation()}
    for one in pair.values():
        for end, at in (("start", 0), ("end", 5_000_000)):
            one[end]["host"].update(dict.fromkeys(("psi_cpu_some_us", "psi_memory_some_us", "psi_io_some_us"), at))
            one[end]["application"] = {"p95_ns": 50 * 10**6, "p99_ns": 100 * 10**6}
    return pair


def worse(name: str, by: int) -> Pair:
    """That host after a change that made it worse by so much, in the check's unit."""
    pair = quiet()
    end, host = pair["after"]["end"], pair["after"]["end"]["host"]
    if name == "host_cpu_shift":
        host["cpu_busy_ns"] += by * 10_000
    elif name == "host_memory_shift":
        host["memory_available_bytes"] -= by
    elif name.startswith("pressure"):
        host[f"psi_{name.split('_')[1]}_some_us"] += by * 10
    else:
        one = f"{name.split('_')[1]}_ns"
        end["application"][one] += by * end["application"][one] // 10**6
    return pair


def judged(name: str, changed: Iterable[Pair], controls: Iterable[Pair], **more: Any) -> dict[str, Any]:
    pairs = {f"h{at:02}": pair for at, pair in enumerate(changed)}
    others = {f"c{at:02}": pair for at, pair in enumerate(controls)}
    return check(judge_all(pairs, controls=others, **more), name)


def test_every_check_over_all_hosts_is_a_metric_but_the_count_of_outliers() -> None:
    assert {one.name for one in CHECKS if one.scope == "fleet"} == {*shift.NAMES, "host_outliers"}
    assert [(BY_NAME[one.check].limit, BY_NAME[one.check].unit) for one in shift.METRICS] == [
        (one.limit, one.unit) for one in shift.METRICS
    ]


@pytest.mark.parametrize("name", shift.NAMES)
def test_a_shift_of_all_is_judged_from_its_limit_on(name: str) -> None:
    limit = BY_NAME[name].default
    assert limit is not None
    step = 0 if name.startswith("application") else 1
    controls = [worse(name, step * at) for at in range(6)]
    for by, verdict in ((limit - 1000, PASSED), (limit, FAILED), (-2 * limit, PASSED), (10 * limit, FAILED)):
        found = judged(name, [worse(name, by + step * at) for at in range(6)], controls)
        assert (found["measured"], found["limit"], found["verdict"]) == (by, limit, verdict), found["sentence"]
        assert found["unit"] == BY_NAME[name].unit and found["host"] is None
    found = judged(name, [worse(name, 10 * limit)] * 6, controls, limits={BY_NAME[name].limit: 10 * limit + 1})
    assert found["verdict"] == PASSED


def test_the_shift_is_the_controls_too() -> None:
    """What time did to all of them is nobody's fault, and what it did to the controls alone is not forgiven."""
    assert judged("host_cpu_shift", [worse("host_cpu_shift", 40_000)] * 9, [worse("host_cpu_shift", 40_000)] * 9)[
        "verdict"
    ] == PASSED  # fmt: skip
    better = judged("application_p99_shift", [quiet()] * 9, [worse("application_p99_shift", -100_000)] * 9)
    assert (better["verdict"], better["measured"]) == (FAILED, 100_000)
    assert "against their own before 0 ppm, p 1.0e+00" in better["sentence"]


@pytest.mark.parametrize(("hosts", "controls"), [(4, 5), (5, 4), (4, 9), (1, 20), (5, 0)])
def test_too_few_hosts_are_not_judged_and_that_is_said(hosts: int, controls: int) -> None:
    bad = [worse("host_cpu_shift", 40_000)] * hosts
    found = judged("host_cpu_shift", bad, [quiet()] * controls)
    assert (found["verdict"], found["measured"], found["limit"]) == (NOT_JUDGED, None, 10_000)
    assert f"{hosts} changed hosts and {controls} controls, 5 of each at least" in found["sentence"]
    # A host that is not measured is not asked for while there are too few.
    bad[0] = {"before": None, "after": bad[0]["after"]}
    assert judged("host_cpu_shift", bad, [quiet()] * controls)["verdict"] == NOT_JUDGED


def test_hosts_that_could_never_show_it_are_not_judged() -> None:
    """5 + 5 hosts have p 1 / 252 at best: with 7 checks that is enough in 1 batch of a rollout, at 20 %."""
    bad = [worse("host_cpu_shift", 40_000)] * 5
    assert judged("host_cpu_shift", bad, [quiet()] * 5, budget=(0.2, 7, 1, 1))["verdict"] == FAILED
    found = judged("host_cpu_shift", bad, [quiet()] * 5, budget=(0.2, 8, 1, 1))
    assert found["verdict"] == NOT_JUDGED and "can show nothing at this batch's share" in found["sentence"]
    assert judged("host_cpu_shift", bad, [quiet()] * 20, budget=(0.05, 50, 1, 1))["verdict"] == FAILED


def test_a_shift_must_be_no_chance() -> None:
    bad, well = worse("host_cpu_shift", 20_000), quiet()
    # No chance either way, and the shift of the middle host is half of it in one, nothing in the other.
    for hosts, verdict in ((10, FAILED), (9, PASSED)):
        found = judged("host_cpu_shift", [bad] * hosts + [well] * (20 - hosts), [well] * 20)
        assert found["verdict"] == verdict and found["statistics"]["p"] < 0.001, found["sentence"]
    # 6 of 7 above all 7: 1 in 76 would be by chance.
    mixed = [worse("host_cpu_shift", 20_000 + at) for at in range(6)] + [worse("host_cpu_shift", -1)]
    others = [worse("host_cpu_shift", at) for at in range(7)]
    for rate, verdict in ((0.1, FAILED), (0.05, PASSED)):
        found = judged("host_cpu_shift", mixed, others, budget=(rate, 1, 1, 1))
        assert found["verdict"] == verdict and found["measured"] >= 10_000, found["sentence"]


@pytest.mark.parametrize("name", shift.NAMES)
def test_one_changed_host_that_was_not_measured_holds(name: str) -> None:
    """Of the others alone it would pass: what is not measured may be the worst."""

    def unmeasured(change: Callable[[Pair], None]) -> Pair:
        pair = quiet()
        change(pair)
        return pair

    metric = next(one for one in shift.METRICS if one.check == name)
    field = {"host_cpu": "cpu_busy_ns", "host_memory": "memory_available_bytes"}.get(name.replace("_shift", ""))
    if name.startswith("pressure"):
        field = f"psi_{name.split('_')[1]}_some_us"
    if field is None:
        one = f"{name.split('_')[1]}_ns"
        spoils = [
            lambda pair: pair["after"]["end"].update(application=None),
            lambda pair: pair["before"]["end"].update(application=None),
            lambda pair: pair["after"]["end"]["application"].update({one: None}),
            lambda pair: pair["after"]["end"]["application"].update({one: 0}),
            lambda pair: pair["after"]["end"].update(application_error="http://x/: stale"),
        ]
    else:
        spoils = [
            lambda pair: pair["after"]["end"]["host"].update({field: None}),
            lambda pair: pair["before"]["end"]["host"].update({field: None}),
            lambda pair: pair.update(before=None),
        ]
        if metric.check != "host_memory_shift":
            # Backwards within the window.
            spoils.append(lambda pair: pair["after"]["start"]["host"].update({field: 10**15}))
    for change in spoils:
        bad = unmeasured(change)
        found = judged(name, [quiet()] * 5 + [bad], [quiet()] * 6)
        assert found["verdict"] == HELD and "not measured before and after on h05" in found["sentence"], found
        # A control that is not measured is one control less.
        found = judged(name, [quiet()] * 6, [quiet()] * 5 + [bad])
        assert found["verdict"] == PASSED and "against 5 controls" in found["sentence"]


def test_what_no_host_has_is_not_judged_and_what_some_have_is_judged_of_those() -> None:
    bare = {"before": observation(50 * SECOND), "after": observation()}
    names = {one["check"] for one in judge_all({f"h{at}": bare for at in range(6)})["checks"]}
    assert names & set(shift.NAMES) == {"host_cpu_shift", "host_memory_shift"}
    for name in ("pressure_io_shift", "application_p99_shift"):
        bad = worse(name, 10 * (BY_NAME[name].default or 0))
        found = judged(name, [bare] * 6 + [bad] * 6, [bare] * 6 + [quiet()] * 6)
        assert found["verdict"] == FAILED and "of 6 changed hosts" in found["sentence"], found
        assert judged(name, [bare] * 6 + [bad] * 4, [quiet()] * 6)["verdict"] == NOT_JUDGED


def test_the_samples_and_the_test_are_in_the_record() -> None:
    found = judged("application_p99_shift", [worse("application_p99_shift", 100_000 + at) for at in range(20)],
                   [worse("application_p99_shift", at) for at in range(20)])  # fmt: skip
    told = found["statistics"]
    assert found["verdict"] == FAILED and told["changed"][0] == 100_000 and told["controls"] == list(range(20))
    assert told["p"] == pytest.approx(1 / 137_846_528_820, rel=1e-3) and _near(told["alpha"], 0.05 / 7)
    assert told["effect_ppm"] == 10**6 and told["low"] <= told["shift"] <= told["high"] and told["exact"]
    assert told["own_shift"] == 100_000 and told["own_p"] == pytest.approx(2**-20, rel=1e-3)
    assert "95 % from" in found["sentence"] and "(p 7.3e-12, a difference up to 7.1e-03" in found["sentence"]
    without = judge_all({"h1": quiet()})["checks"]
    assert all("statistics" not in one for one in without)


def _near(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-3)


# --- dry run ---------------------------------------------------------------------------------------


def test_a_check_in_dry_run_is_judged_and_told_and_stops_nothing() -> None:
    changed = {f"h{at}": worse("host_cpu_shift", 40_000) for at in range(6)}
    controls = {f"c{at}": quiet() for at in range(6)}
    assert judge_all(changed, controls=controls)["verdict"] == FAILED
    dry = judge_all(changed, controls=controls, dry_run=["host_cpu_shift"])
    assert dry["verdict"] == PASSED and dry["reasons"] == [] and dry["next"] == []
    assert [(one["check"], one["verdict"]) for one in dry["dry_run"]] == [("host_cpu_shift", FAILED)]
    assert "; in dry run, which stops nothing: 1 of 1 checks failed: host CPU of 6 changed" in dry["sentence"]
    assert check(dry, "host_cpu_shift")["verdict"] == FAILED
    assert judge_all(changed, controls=controls)["dry_run"] == []


def test_an_inconclusive_check_in_dry_run_holds_nothing() -> None:
    pair = quiet()
    pair["after"]["end"]["host"]["memory_available_bytes"] = None
    assert judge_all({"h1": pair})["verdict"] == HELD
    dry = judge_all({"h1": pair}, dry_run=["host_memory_delta"])
    assert dry["verdict"] == PASSED and [one["check"] for one in dry["dry_run"]] == ["host_memory_delta"]


def test_what_passes_in_dry_run_speaks_for_no_host() -> None:
    every = [one.name for one in CHECKS]
    found = judge_all({"h1": quiet()}, dry_run=every)
    assert found["verdict"] == HELD and "nothing speaks for them" in found["sentence"]


def test_a_check_that_is_not_known_cannot_be_in_dry_run() -> None:
    with pytest.raises(arguments.GateInputError, match="dry_run: unknown name 'host_cpu_shif'; did you mean host_cpu_"):
        judge_all({"h1": quiet()}, dry_run=["host_cpu_shif"])


# --- the error rate --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "batches", "readings", "checks"), [(0.05, 50, 1, 7), (0.05, 8, 5, 7), (0.1, 1, 2, 1),
                                                                  (0.000001, 1000, 10, 7)])  # fmt: skip
def test_all_that_is_tested_spends_the_whole_rate(rate: float, batches: int, readings: int, checks: int) -> None:
    each = [spending.alpha(Budget(rate, batches, readings, reading), checks) for reading in range(1, readings + 1)]
    assert sum(each) * batches * checks == pytest.approx(rate, rel=1e-9)
    # Early readings spend next to nothing, and each more than the one before it.
    assert each == sorted(each) and all(one > 0 for one in each)


def test_what_is_spent_are_the_boundaries_of_the_literature() -> None:
    """Lan and DeMets' O'Brien-Fleming for two readings at a two-sided 0.05: 0.0031, then the remainder."""
    assert spending.spent(0.05, 0.5) == pytest.approx(0.005575, rel=1e-3)
    assert spending.spent(0.025, 0.5) == pytest.approx(0.001525, rel=1e-2)
    assert [spending.spent(0.05, time) for time in (0, -1, 1, 2)] == [0, 0, 0.05, 0.05]


@pytest.mark.parametrize(
    ("budget", "checks"), [(Budget(readings=2, reading=3), 7), (Budget(reading=0), 7), (Budget(), 0)]
)
def test_a_reading_that_was_not_planned_tests_nothing(budget: Budget, checks: int) -> None:
    assert spending.alpha(budget, checks) == 0.0


def test_a_reading_beyond_the_plan_is_refused_by_name() -> None:
    with pytest.raises(arguments.GateInputError, match="reading: is 3 of 2; give at most as many as are planned"):
        arguments.check_budget(0.05, 10, 2, 3)
    assert shift.too_few(9, 9, 0.0) == (
        "the planned readings of this batch are over, and with them its share of the error rate"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [((0, 1, 1, 1), "error_rate: is 0"), ((0.6, 1, 1, 1), "error_rate: is 0.6"), (("x", 1, 1, 1), "error_rate: is 'x'"),
     ((0.05, 0, 1, 1), "batches: is 0"), ((0.05, 1, 0, 1), "readings: is 0"), ((0.05, 1, 1, 0), "reading: is 0"),
     ((0.05, 1.5, 1, 1), "batches: is 1.5"), ((float("nan"), 1, 1, 1), "error_rate: is nan")],
)  # fmt: skip
def test_a_budget_that_cannot_be_is_refused_by_name(given: tuple[Any, ...], named: str) -> None:
    with pytest.raises(arguments.GateInputError, match=named):
        arguments.check_budget(*given)


def test_text_is_what_it_says_and_dry_checks_leave_their_share_to_the_others() -> None:
    assert arguments.check_budget("0.05", "8", "2", "1") == Budget(0.05, 8, 2, 1)
    bad = [worse("host_cpu_shift", 40_000)] * 5
    # 1 / 252 is within 0.05 / 1 batch / 7 checks = 0.007; not within 0.025 / 7, but within 0.025 / 6.
    assert judged("host_cpu_shift", bad, [quiet()] * 5, budget=(0.025, 1, 1, 1))["verdict"] == NOT_JUDGED
    found = judged("host_cpu_shift", bad, [quiet()] * 5, budget=(0.025, 1, 1, 1), dry_run=["pressure_io_shift"])
    assert found["verdict"] == FAILED
