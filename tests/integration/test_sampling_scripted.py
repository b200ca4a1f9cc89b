# SPDX-License-Identifier: GPL-3.0-or-later
"""sampling.yml by the real playbook, with hosts whose observation is a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scripted import inventory, played
from tests.unit.test_sampling import observed

pytestmark = pytest.mark.apart

HOSTS = inventory(["w1", "w2", "w3"])
MEASURE = "Measure the events of each host"
ASKED = {"ebpf_fleet_sampling_feature": "exec_events", "ebpf_fleet_sampling_per_hour": 7200}


def seen(per_hour: int) -> dict[str, Any]:
    return {"observation": observed(per_hour)}


def test_the_target_becomes_the_sampling_of_each_host(tmp_path: Path) -> None:
    output = tmp_path / "sampling.json"
    answers = {MEASURE: {"w1": seen(360000), "w2": seen(360000), "w3": seen(0)}}
    ended = played(tmp_path, "sampling", HOSTS, answers, ebpf_fleet_sampling_output=str(output), **ASKED)
    assert ended.status == 0, ended.said
    assert {call.arguments["window"] for call in ended.calls} == {60.0} and len(ended.calls) == 3
    assert "720000 events an hour on 3 hosts; one in 100 is 7200 samples an hour" in ended.said
    found = json.loads(output.read_text())
    assert {
        name: one["ebpf_fleet_features"]["exec_events"] for name, one in found["host_vars"].items()
    } == dict.fromkeys(("w1", "w2", "w3"), {"sample_every": 100})


def test_who_was_not_measured_is_named_and_fails_the_run_behind_the_answer(tmp_path: Path) -> None:
    output = tmp_path / "sampling.json"
    answers = {
        MEASURE: {"w1": seen(720000), "w2": {"failed": True, "msg": "no"}, "w3": {"unreachable": True, "msg": "x"}}
    }
    ended = played(tmp_path, "sampling", HOSTS, answers, ebpf_fleet_sampling_output=str(output), **ASKED)
    assert ended.status == 2 and "EF_NO_ANSWER: Not measured: w2, w3" in ended.said, ended.said
    assert set(json.loads(output.read_text())["hosts"]) == {"w1"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"ebpf_fleet_sampling_feature": "exec_events"}, "EF_SAMPLING: ebpf_fleet_sampling_per_hour: None is not"),
     ({"ebpf_fleet_sampling_per_hour": 5}, "EF_SAMPLING: ebpf_fleet_sampling_feature: is missing"),
     ({**ASKED, "ebpf_fleet_sampling_per_hour": 0}, "EF_ARGUMENT: ebpf_fleet_sampling_per_hour: is 0"),
     ({**ASKED, "ebpf_fleet_sampling_feature": "no_such"}, "EF_SAMPLING: no host was measured: w1 (no_such was not")],
)  # fmt: skip
def test_what_cannot_be_answered_is_told(tmp_path: Path, variables: dict[str, Any], said: str) -> None:
    ended = played(tmp_path, "sampling", HOSTS, {MEASURE: {"*": seen(7200)}}, **variables)
    assert ended.status == 2 and said in ended.said, ended.said
