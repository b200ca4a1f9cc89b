# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin gate: where it takes its inputs from, and a verdict over a real loader."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner import run_one, run_tasks
from tests.integration.sandbox import Sandbox, can_sandbox
from tests.loader.bundles import Trust
from tests.loader.service import contract_of, feature_of
from tests.unit.test_gate import CONTRACTS, observation

pytestmark = pytest.mark.apart

EXPECTED = {"*": {"exec_events": "full"}}


def changed(after: Any = None) -> dict[str, Any]:
    return {"h1": {"before": observation(50 * 10**9), "after": after or observation()}}


def test_a_verdict_and_its_checks_are_returned(tmp_path: Path) -> None:
    result = run_one(tmp_path, "gate", "--check", changed=changed(), expected=EXPECTED, contracts=CONTRACTS)
    assert (result["failed"], result["changed"], result["verdict"]) == (False, False, "pass")
    assert set(result["checks"][0]) == {
        "host",
        "feature",
        "check",
        "verdict",
        "measured",
        "limit",
        "unit",
        "sentence",
    }


@pytest.mark.slow
def test_a_failed_verdict_does_not_fail_the_task(tmp_path: Path) -> None:
    after = observation()
    after["end"]["status"]["loader"]["cpu_ns"] = 10**10
    result = run_one(tmp_path, "gate", changed=changed(after), expected=EXPECTED, contracts=CONTRACTS)
    assert (result["failed"], result["verdict"]) == (False, "fail")


@pytest.mark.slow
def test_own_expressions_run(tmp_path: Path) -> None:
    own = [
        {"name": "produced", "expression": "rates.features.exec_events.produced_delta", "max": 899},
        {"name": "psi", "expression": "after.end.host.psi_cpu_some_us", "max": 1},
    ]
    result = run_one(tmp_path, "gate", changed=changed(), expected=EXPECTED, contracts=CONTRACTS, extra_checks=own)
    found = {one["check"]: one for one in result["checks"]}
    assert (found["produced"]["verdict"], found["produced"]["measured"]) == ("fail", 900)
    assert found["psi"]["verdict"] == "inconclusive"


@pytest.mark.slow
def test_an_expression_that_would_take_minutes_is_stopped_and_the_check_says_so(tmp_path: Path) -> None:
    own = [{"name": "mine", "expression": " | ".join(["[@, @]"] * 30) + " | length(to_string(@))", "max": 1}]
    begin = time.monotonic()
    result = run_one(tmp_path, "gate", changed=changed(), expected=EXPECTED, contracts=CONTRACTS, extra_checks=own)
    assert time.monotonic() - begin < 90, "mostly the start of ansible-playbook"
    found = {one["check"]: one for one in result["checks"]}
    assert (result["failed"], result["verdict"], found["mine"]["verdict"]) == (False, "inconclusive", "inconclusive")
    assert "h1: mine: the expression could not be evaluated" in found["mine"]["sentence"]
    assert "make it simpler" in found["mine"]["sentence"]


@pytest.mark.slow
def test_a_hosts_malformed_answer_is_said_of_it_alone(tmp_path: Path) -> None:
    bad = observation()
    bad["end"]["status"]["features"] = {"exec_events": 7}
    given = {**changed(), "h2": {"before": None, "after": bad}}
    result = run_one(tmp_path, "gate", changed=given, expected=EXPECTED, contracts=CONTRACTS)
    assert (result["failed"], result["verdict"]) == (False, "fail")
    said = [one["sentence"] for one in result["checks"] if one["host"] == "h2"]
    assert len(said) == 1 and "no usable answer from h2: after: end.status.features.exec_events" in said[0]
    assert {one["verdict"] for one in result["checks"] if one["host"] == "h1"} == {"pass"}


def collect(tmp_path: Path, variables: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """A gate over the variables of localhost."""
    facts = {"ansible.builtin.set_fact": variables}
    gate = {
        "ebpf.fleet.gate": {"before_var": "seen.before", "after_var": "after", **arguments},
        "register": "result",
    }
    _status, results, said = run_tasks(tmp_path, [facts, gate])
    assert results["result"] is not None, said
    found: dict[str, Any] = results["result"]
    return found


class TestHostVariables:
    VARIABLES = {
        "seen": {"before": {"observation": observation(50 * 10**9)}},
        "after": {"changed": False, "observation": observation()},
    }

    @pytest.mark.slow
    def test_registered_results_and_dotted_paths(self, tmp_path: Path) -> None:
        result = collect(tmp_path, self.VARIABLES, hosts=["localhost"], expected=EXPECTED, contracts=CONTRACTS)
        assert result["verdict"] == "pass", result["sentence"]

    @pytest.mark.slow
    def test_expectations_of_a_variable(self, tmp_path: Path) -> None:
        variables = {**self.VARIABLES, "wanted": {"exec_events": {"profile": "full", "variant": "full"}}}
        result = collect(tmp_path, variables, hosts=["localhost"], expected_var="wanted", contracts=CONTRACTS)
        assert result["verdict"] == "pass", result["sentence"]

    @pytest.mark.parametrize(
        "after",
        [
            {"failed": True, "observation": observation()},
            {"unreachable": True, "msg": "lost"},
            {"skipped": True},
            None,
        ],
    )
    @pytest.mark.sample(1)
    def test_a_host_that_could_not_be_observed_holds(self, tmp_path: Path, after: Any) -> None:
        variables = {**self.VARIABLES, "after": after}
        result = collect(tmp_path, variables, hosts=["localhost"], expected=EXPECTED, contracts=CONTRACTS)
        assert (result["failed"], result["verdict"]) == (False, "inconclusive")

    def test_a_host_that_is_in_no_inventory_holds(self, tmp_path: Path) -> None:
        result = collect(tmp_path, self.VARIABLES, hosts=["localhost", "ghost"], expected=EXPECTED, contracts=CONTRACTS)
        assert result["verdict"] == "inconclusive"
        assert "ghost" in result["sentence"]

    @pytest.mark.parametrize("wanted", [{"exec_events": {"profile": [1]}}, ["exec_events"], {"\x1b[2J": "full"}])
    @pytest.mark.sample(1)
    @pytest.mark.slow
    def test_predictions_that_are_none_are_said_of_their_host(self, tmp_path: Path, wanted: Any) -> None:
        variables = {**self.VARIABLES, "wanted": wanted}
        result = collect(tmp_path, variables, hosts=["localhost"], expected_var="wanted", contracts=CONTRACTS)
        assert (result["failed"], result["verdict"]) == (False, "fail")
        assert "no usable answer from localhost: expected.localhost" in result["sentence"]

    def test_no_hosts_hold(self, tmp_path: Path) -> None:
        assert collect(tmp_path, self.VARIABLES, hosts=[])["verdict"] == "inconclusive"


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of the following is required: changed, hosts"),
        ({"hosts": ["a"]}, "missing parameter(s) required by 'hosts': after_var"),
        ({"changed": {}, "limits": {"drop_ration_ppm": 1}}, "did you mean drop_ratio_ppm"),
        ({"changed": {}, "limit": {}}, "Unsupported parameters"),
        ({"changed": {}, "on_inconclusive": {"bpf_cpu": "skip"}}, "say hold or pass"),
        (
            {"changed": {}, "extra_checks": [{"name": "a", "expression": "a[", "max": 1}]},
            "extra_checks.a.expression: is not JMESPath",
        ),
        (
            {"changed": {}, "extra_checks": [{"name": "a", "expression": "(" * 30 + "b" + ")" * 30, "max": 1}]},
            "extra_checks.a.expression: is nested deeper than 20 brackets; split it",
        ),
    ],
)
@pytest.mark.sample(1)
def test_bad_arguments_fail_with_one_message(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    result = run_one(tmp_path, "gate", **arguments)
    assert result["failed"] is True
    assert message in result["msg"]
    # What ansible-core itself finds in the arguments has its own words; what the gate finds has a code.
    own = any(words in message for words in ("required", "Unsupported"))
    assert own or (result["msg"].startswith("EF_ARGUMENT: ") and result["reason_code"] == "EF_ARGUMENT")


@pytest.mark.skipif(not can_sandbox(), reason="loading programs needs root")
@pytest.mark.slow
@pytest.mark.kernel
def test_a_real_loader_is_judged(tmp_path: Path, loader: Path, feature_objects: Path, trust: Trust) -> None:
    """Every check but those of systemd and of the noisy machine must come to an end of its own."""
    names = ("runqlat", "exec_events")
    host = Sandbox(loader, tmp_path / "host", trust, {name: feature_of(feature_objects, name) for name in names})
    host.start(*names)
    time.sleep(1.5)
    observe = {"window": 4, "state_dir": str(host.service.state)}
    tasks = [
        {"ebpf.fleet.observation_info": {**observe, "window": 1}, "register": "before"},
        {"ebpf.fleet.observation_info": observe, "register": "after"},
        {
            "ebpf.fleet.gate": {
                "hosts": ["localhost"],
                "before_var": "before",
                "after_var": "after",
                "contracts": [contract_of(name) for name in names],
                "expected": {"*": dict.fromkeys(names, "reduced")},
                "digest": host.service.bundle.digest,
                "limits": {
                    "host_cpu_delta_ppm": 1_000_000,
                    "host_memory_delta_bytes": 10**12,
                    "loader_cpu_millicores": 500,
                },
                # Systemd did not start this loader; tests/loader/test_witness.py has the witness.
                "on_inconclusive": {"loader_active": "pass", "loader_restarts": "pass", "witness": "pass"},
            },
            "register": "gate",
        },
    ]
    try:
        _status, results, said = run_tasks(tmp_path, tasks)
    finally:
        host.stop()
    gate = results["gate"]
    assert gate["verdict"] in ("pass", "fail"), gate["sentence"]
    by_name = {(one["feature"], one["check"]): one for one in gate["checks"]}
    for name in names:
        assert by_name[(name, "accounting")]["verdict"] == "pass", by_name[(name, "accounting")]
        assert by_name[(name, "features_attached")]["verdict"] == "pass"
        assert by_name[(name, "map_memory")]["verdict"] == "pass"
        assert by_name[(name, "feature_cpu")]["measured"] is not None
    assert by_name[(None, "release")]["verdict"] == "pass"
    assert by_name[(None, "status_fresh")]["verdict"] == "pass"
    assert "failed=0" in said
