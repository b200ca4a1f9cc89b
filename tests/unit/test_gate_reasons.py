# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict names every check that stands in the way, and the next step of each."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import reasons as gate_reasons
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import FAIL, INCONCLUSIVE, PASS, Judgement
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import DEFAULT_LIMITS, NAMES

from tests.unit.test_gate import judge_all, observation, spend


def one(name: str, host: str | None = "h1", verdict: str = FAIL, feature: str | None = None) -> Judgement:
    return Judgement(host, feature, name, verdict, 2, 1, "x", f"{host}: {name} {feature or ''} is wrong")


def costly() -> dict[str, Any]:
    """An observation of a host where everything costs too much."""
    found = observation()
    spend(found, 4 * 10**9, 4 * 10**9)
    found["end"]["status"]["features"]["exec_events"]["counters"]["dropped"] = 400
    return found


def test_seven_failed_checks_are_seven_reasons_and_not_the_first() -> None:
    verdict = judge_all({"h1": {"before": observation(50 * 10**9), "after": costly()},
                         "h2": {"before": observation(50 * 10**9), "after": costly()}})  # fmt: skip
    failed = [check for check in verdict["checks"] if check["verdict"] == "fail"]
    assert verdict["verdict"] == "fail" and len(failed) >= 7, [check["check"] for check in failed]
    assert [each for each in verdict["reasons"] if each["verdict"] == "fail"] == failed
    for check in failed:
        assert check["sentence"] in verdict["sentence"]
        assert any(check["check"] in step.split(":")[0].split(", ") for step in verdict["next"]), check["check"]
    assert any("ebpf_fleet_gate_limits" in step for step in verdict["next"])


def test_a_pass_has_no_reasons_and_no_next_step() -> None:
    verdict = judge_all({"h1": {"before": observation(50 * 10**9), "after": observation()}})
    assert (verdict["verdict"], verdict["reasons"], verdict["next"]) == ("pass", [], [])


def test_what_could_not_be_judged_is_named_behind_what_failed() -> None:
    found = gate_reasons.reasons_of([one("release"), one("loader_cpu", verdict=INCONCLUSIVE)],
                                    [one("loader_cpu", verdict=INCONCLUSIVE)])  # fmt: skip
    assert found and found.sentence.startswith("1 of 2 checks failed: h1: release")
    assert "; 1 could not be judged: h1: loader_cpu" in found.sentence
    assert "ebpf_fleet_on_inconclusive" in found.steps[1]


def test_only_unjudged_checks_hold_and_are_all_named() -> None:
    held = [one(name, verdict=INCONCLUSIVE) for name in ("bpf_cpu", "drop_ratio", "map_fill")]
    found = gate_reasons.reasons_of([*held, one("release", verdict=PASS)], held)
    assert found and found.sentence.startswith("3 of 4 checks could not be judged: ")
    assert all(check.sentence in found.sentence for check in held)
    assert len(found.steps) == 1 and found.steps[0].startswith("bpf_cpu, drop_ratio, map_fill: ")


@pytest.mark.parametrize("count", [gate_reasons.TOLD_IN_FULL, gate_reasons.TOLD_IN_FULL + 1, 300])
def test_beyond_the_first_ones_each_check_is_named_by_host(count: int) -> None:
    hosts = [f"h{number}" for number in range(count)]
    checks = [one("loader_cpu", host, feature="runqlat") for host in hosts]
    found = gate_reasons.reasons_of(checks, [])
    assert found and len(found.checks) == count
    for host in hosts[: gate_reasons.TOLD_IN_FULL]:
        assert f"{host}: loader_cpu runqlat is wrong" in found.sentence
    for host in hosts[gate_reasons.TOLD_IN_FULL :]:
        assert f"{host}: loader_cpu (runqlat)" in found.sentence
    assert len(found.steps) == 2, "one kind of check, and where limits are set"


def test_a_check_of_the_fleet_has_no_host_and_is_named() -> None:
    checks = [one(name, host) for name, host in itertools.product(("release",), map(str, range(12)))]
    found = gate_reasons.reasons_of([*checks, one("host_cpu_shift", None)], [])
    assert found and found.sentence.endswith("and all hosts together: host_cpu_shift")


@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_the_gate_has_a_next_step(name: str) -> None:
    step = gate_reasons.step_of(one(name))
    assert step != gate_reasons.OWN, "a check of the gate is no check of the user's own"
    for word in step.replace(",", " ").split():
        if word in DEFAULT_LIMITS or word.endswith(("_ppm", "_millicores")):
            assert word in DEFAULT_LIMITS, f"{word} is no limit that can be raised"


def test_a_check_of_the_users_own_names_the_variable() -> None:
    assert "ebpf_fleet_gate_checks" in gate_reasons.step_of(one("mine"))


def test_a_busier_host_is_told_with_what_of_it_is_ours() -> None:
    busy = observation()
    busy["end"]["host"]["cpu_busy_ns"] = busy["start"]["host"]["cpu_busy_ns"] + 9 * 10**9
    verdict = judge_all({"h1": {"before": observation(50 * 10**9), "after": busy}})
    (reason,) = [each for each in verdict["reasons"] if each["check"] == "host_cpu_delta"]
    assert reason["verdict"] == "fail"
    told = r"host CPU growth \(.*; loader and programs took \d+ millicores\) \d+ ppm, over"
    assert re.search(told, reason["sentence"])


def test_what_is_ours_is_not_zero_where_it_was_not_measured() -> None:
    blind = observation()
    blind["end"]["status"]["loader"]["cpu_ns"] = None
    verdict = judge_all({"h1": {"before": observation(50 * 10**9), "after": blind}})
    (check,) = [each for each in verdict["checks"] if each["check"] == "host_cpu_delta"]
    assert "what is ours of it was not measured" in check["sentence"]
