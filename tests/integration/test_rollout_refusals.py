# SPDX-License-Identifier: GPL-3.0-or-later
"""The refusals of a rollout, each by the very task of the playbook, on both sides of what it refuses. No VM."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.runner import ROOT, run_written

pytestmark = pytest.mark.apart

PLAN, ROLL_OUT = yaml.safe_load((ROOT / "playbooks/rollout.yml").read_text(encoding="utf-8"))[:2]
PLANNING = yaml.safe_load((ROOT / "playbooks/tasks/plan_rollout.yml").read_text(encoding="utf-8"))
TASKS = {
    task["name"]: task
    for one in PLAN["tasks"]
    for task in (PLANNING if "ansible.builtin.import_tasks" in one else [one])
}
*BEGIN, CHANGE = ROLL_OUT["tasks"]
LATER = {task["name"]: task for task in [*BEGIN, *CHANGE["block"]]}
REFUSALS = [name for name in TASKS if name.startswith(("Refuse ", "Hold unless "))]
# When a refusal is skipped, and why that opens nothing.
SKIPPED = {
    "Refuse a folder for records that cannot be used": "ebpf_fleet_report_dir | default('') | length > 0",
    "Refuse a bundle that cannot be used": "ebpf_fleet_target.fault is defined",
    "Refuse a plan that cannot be carried out": "ebpf_fleet_plan.fault is defined",
    "Refuse a quarantine that cannot be used": "ebpf_fleet_taking_part.kept is not defined",
    # Check mode changes nothing, and shows the plan at any time.
    "Refuse a rollout in a freeze window or in blocked hours": "not ansible_check_mode",
}
LEASE = "Refuse a lease that would run out while its batch is watched"
POLICY = "Refuse policy features where no healthy release observes the host"
FEATURES = "Refuse features that the bundle does not hold"
GATE = "Refuse limits and checks that the gate does not know"
VALUES = "Refuse values that cannot be used"
CONFIRMED = "Hold unless every host has confirmed"
RECORDS = "Refuse a folder for records that cannot be used"


def contract(feature: str, data_path: str) -> dict[str, Any]:
    return {"feature": feature, "data_path": data_path, "budget": {"drop_ratio_ppm": 10_000}}


TARGET = {"contracts": [contract("runqlat", "metrics"), contract("exec_policy", "policy")], "digest": "d" * 64}
FACTS = {"kernel": {"family": "6.1"}, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}}


def answer(**changes: Any) -> dict[str, Any]:
    """What a host answered on which a release observes well, but for the changes of its feature."""
    seen = {"state": "attached", "data_path": "metrics", "produced": 1000, "dropped": 0, "sampled_out": 0, **changes}
    release = {"version": "1.0.0", "state": "running", "status_age_ns": 10**9, "features": {"runqlat": seen}}
    return {"capabilities": {**FACTS, "release": release}}


def asked(folder: Path, name: str, everyone: dict[str, Any], others: Any = None, *options: str) -> tuple[bool, str]:
    """(whether the task refused, what was said): hosts w1 and w2 have `everyone`, and w2 also `others`."""
    base = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"w1": {**base, **everyone}, "w2": {**base, **everyone, **(others or {})}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    task = {**TASKS, **LATER}[name]
    play = {"hosts": "all", "gather_facts": False, "vars": PLAN["vars"], "tasks": [task]}
    (folder / "play.yml").write_text(json.dumps([play]))
    done = run_written(folder, *options)
    said = " ".join((done.stdout + done.stderr).split())
    assert f"TASK [{name}]" in said, said
    assert (done.returncode != 0) == (" failed=1 " in said), said
    return done.returncode != 0, said


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_stands_before_any_change_is_for_every_host_and_cannot_be_ignored(name: str) -> None:
    task = TASKS[name]
    allowed = {"name", "vars", "run_once", "delegate_to", "when"}
    (action,) = set(task) - allowed
    assert action in ("ansible.builtin.assert", "ansible.builtin.fail", "ebpf.fleet.gate")
    assert task["run_once"] is True and task.get("when") == SKIPPED.get(name)
    names = list(TASKS)
    assert names.index(name) < names.index("Queue the hosts batch by batch")


def test_no_refusal_has_gone() -> None:
    assert len(REFUSALS) == 15 and {LEASE, POLICY, FEATURES, GATE, VALUES, RECORDS, *SKIPPED} <= set(REFUSALS)


# --- leases --------------------------------------------------------------------------------------

SHORT = {"ebpf_fleet_window_after": 1.5, "ebpf_fleet_bake": 0}


@pytest.mark.parametrize(
    ("given", "options", "refused"),
    [
        ({"ebpf_fleet_rollout_lease_seconds": 61, **SHORT}, (), True),
        ({"ebpf_fleet_rollout_lease_seconds": 62, **SHORT}, (), False),
        (SHORT, ("-e", "ebpf_fleet_rollout_lease_seconds=61"), True),
        (SHORT, ("-e", "ebpf_fleet_rollout_lease_seconds=62"), False),
        (SHORT, ("-e", "ebpf_fleet_rollout_lease_seconds=0"), False),
        (SHORT, (), False),
    ],
)
@pytest.mark.sample(2)
@pytest.mark.slow
def test_a_lease_shorter_than_its_batch_is_watched_is_refused(
    tmp_path: Path, given: dict[str, Any], options: tuple[str, ...], refused: bool
) -> None:
    found, said = asked(tmp_path, LEASE, given, None, *options)
    assert found is refused, said
    assert ("ebpf_fleet_rollout_lease_seconds is 61: a host needs 62 s for its activation" in said) is refused


# --- policy features -----------------------------------------------------------------------------

UNSEEN = {"ebpf_fleet_capability": {"capabilities": {**FACTS, "release": None}}}
WANTED = {"ebpf_fleet_target": TARGET, "ebpf_fleet_features": {"runqlat": {}, "exec_policy": {}},
          "ebpf_fleet_taking_part": {"kept": ["w1", "w2"]}}  # fmt: skip


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({}, None),
        ({"ebpf_fleet_capability": answer(dropped=10)}, None),
        ({"ebpf_fleet_capability": answer(dropped=11)}, "runqlat dropped 11 of 1000; its contract allows 10000 ppm"),
        ({"ebpf_fleet_capability": answer(produced=0)},
         "no feature proves that it works: runqlat has produced nothing yet"),
        (UNSEEN, "no release of ours is known to run"),
        ({**UNSEEN, "ebpf_fleet_features": {"runqlat": {}}}, None),
    ],
)  # fmt: skip
@pytest.mark.sample(3)
@pytest.mark.slow
def test_a_policy_feature_is_refused_where_no_healthy_release_observes(
    tmp_path: Path, others: dict[str, Any], sentence: str | None
) -> None:
    """w1 is well observed: a refusal is of w2 alone."""
    refused, said = asked(tmp_path, POLICY, {**WANTED, "ebpf_fleet_capability": answer()}, others)
    assert refused is (sentence is not None), said
    assert sentence is None or f"w2: exec_policy: EF_POLICY_NOT_READY: {sentence}" in said
    assert "w1: exec_policy" not in said


def test_a_host_that_is_left_out_is_not_asked_whether_it_is_observed(tmp_path: Path) -> None:
    given = {**WANTED, "ebpf_fleet_capability": answer(), "ebpf_fleet_taking_part": {"kept": ["w1"]}}
    refused, said = asked(tmp_path, POLICY, given, UNSEEN)
    assert not refused, said


# --- what would only be found out once a host was changed -----------------------------------------


@pytest.mark.parametrize(
    ("name", "everyone", "others", "sentence"),
    [
        (FEATURES, WANTED, {}, None),
        (FEATURES, {**WANTED, "ebpf_fleet_features": {"runqlatt": {}}}, {},
         "ebpf_fleet_features names runqlatt, which the bundle does not hold; it holds runqlat, exec_policy."),
        (GATE, {**WANTED, "ebpf_fleet_gate_limits": {"loader_cpu_millicores": "80"},
                "ebpf_fleet_on_inconclusive": {"application_p99": "pass"}}, {}, None),
        (GATE, {**WANTED, "ebpf_fleet_gate_limits": {"loader_cpu": 80}}, {}, "limits: unknown name 'loader_cpu'"),
        (GATE, {**WANTED, "ebpf_fleet_on_inconclusive": {"application_p99": "skip"}}, {}, "say hold or pass"),
        (GATE, {**WANTED, "ebpf_fleet_gate_checks": [{"name": "bpf_cpu", "expression": "a", "max": 1}]}, {},
         "extra_checks.bpf_cpu: the name is taken"),
        (VALUES, {"ebpf_fleet_bake": "86400"}, {}, None),
        (VALUES, {"ebpf_fleet_bake": "30"}, {"ebpf_fleet_bake": 86401}, "w2: ebpf_fleet_bake: is 86401"),
        (RECORDS, {"ebpf_fleet_report_dir": "."}, {}, None),
        (RECORDS, {"ebpf_fleet_report_dir": "none"}, {}, "none is not a folder on the controller; make it first."),
    ],
)  # fmt: skip
@pytest.mark.sample(4)
def test_what_cannot_be_is_refused_before_a_host_is_changed(
    tmp_path: Path, name: str, everyone: dict[str, Any], others: dict[str, Any], sentence: str | None
) -> None:
    refused, said = asked(tmp_path, name, everyone, others)
    assert refused is (sentence is not None), said
    assert sentence is None or sentence in said, said


@pytest.mark.parametrize(("confirmed", "sentence"), [
    ({"changed": True}, None),
    ({"changed": False, "skipped": True}, None),
    ({"unreachable": True, "msg": "gone"}, "Not confirmed, so these hosts would detach by themselves: w2"),
])  # fmt: skip
def test_a_host_that_was_lost_while_it_confirmed_holds_its_batch(
    tmp_path: Path, confirmed: dict[str, Any], sentence: str | None
) -> None:
    """Which Ansible ends before this task today; an older one goes on to it."""
    batch = {"ebpf_fleet_batch": {"hosts": ["w1", "w2"]}, "ebpf_fleet_confirmed": {"changed": True}}
    refused, said = asked(tmp_path, CONFIRMED, batch, {"ebpf_fleet_confirmed": confirmed})
    assert refused is (sentence is not None), said
    assert sentence is None or f"EF_LEASE_NOT_CONFIRMED: {sentence}" in said
    assert sentence is None or f"{sentence}," not in said
