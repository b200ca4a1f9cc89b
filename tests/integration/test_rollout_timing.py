# SPDX-License-Identifier: GPL-3.0-or-later
"""The times of a batch as both plays of the playbook have them: its very heads and arguments, rendered by Ansible."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.runner import ROOT, run_written

pytestmark = pytest.mark.apart

TEXT = (ROOT / "playbooks/rollout.yml").read_text(encoding="utf-8")
SLICE = {
    task["name"]: task
    for name in ("renew_lease", "bake_slice")
    for task in yaml.safe_load((ROOT / f"playbooks/tasks/{name}.yml").read_text(encoding="utf-8"))
}
RENEW, MEASURE = SLICE["Renew the lease"], SLICE["Measure while it bakes"]
JUDGED = yaml.safe_load((ROOT / "playbooks/tasks/measure_and_judge.yml").read_text(encoding="utf-8"))
PLANNED = {"serial": [2, 1], "batch_of": {"w1": 1, "w2": 1, "w3": 2},
           "batches": [{"hosts": ["w1", "w2"], "stage": "canary", "bake": 120},
                       {"hosts": ["w3"], "stage": "fleet", "bake": 30}]}  # fmt: skip


def heads() -> list[str]:
    """Both plays up to their tasks, as they are written: what they share is an anchor of YAML."""
    first, second = TEXT.split("- name: Roll out\n")
    return [first.partition("  tasks:\n")[0], "- name: Roll out\n" + second.partition("  tasks:\n")[0]]


def arguments() -> dict[str, Any]:
    """What the second play's tasks take of the times."""
    (play,) = [play for play in yaml.safe_load(TEXT) if play["name"] == "Roll out"]
    tasks = {task["name"]: task for one in play["tasks"] for task in [*one.get("block", []), *JUDGED]}
    return {
        "lease": tasks["Deploy the release"]["vars"]["ebpf_fleet_deploy_lease"],
        "slices": tasks["Bake in slices where it takes long"]["loop"],
        "bake": tasks["Let it bake, then measure after"]["ebpf.fleet.observation_info"]["bake"],
        "window": tasks["Let it bake, then measure after"]["ebpf.fleet.observation_info"]["window"],
        "renewed": RENEW["ebpf.fleet.lease"]["seconds"],
        "slice": MEASURE["ebpf.fleet.observation_info"],
        "folder": "{{ ebpf_fleet_report_folder }}",
    }


def rendered(folder: Path, variables: dict[str, Any], *options: str) -> dict[str, dict[str, Any]]:
    """{host: the arguments as its tasks get them}; the release is new to every host but w2."""
    base = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ebpf_fleet_plan": PLANNED,
            "ebpf_fleet_target": {"bundle": {"version": "1.1.0"}}, **variables}  # fmt: skip
    hosts = {name: {**base, "ebpf_fleet_release": {"changed": name != "w2"}} for name in ("w1", "w2", "w3")}
    (folder / "hosts.yml").write_text(json.dumps({"ebpf_fleet_rollout": {"hosts": hosts}}))
    copy = {"content": "{{ seen | to_json }}", "dest": f"{folder}/{{{{ inventory_hostname }}}}.json", "mode": "0600"}
    keep = {"ansible.builtin.copy": copy, "vars": {"seen": arguments(), **MEASURE["vars"]}}
    first, second = heads()
    fault = {"ansible.builtin.debug": {"msg": "fault <{{ ebpf_fleet_timing.fault }}>"}, "run_once": True}
    (folder / "play.yml").write_text(
        f"{first}  tasks: {json.dumps([fault])}\n\n{second}  tasks: {json.dumps([keep])}\n"
    )
    done = run_written(folder, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fault <>" in done.stdout
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in hosts}


def lease(seconds: int) -> dict[str, Any]:
    return {"seconds": seconds, "holder": "rollout of 1.1.0"}


@pytest.mark.slow
def test_without_any_variable(tmp_path: Path) -> None:
    found = rendered(tmp_path, {})
    one = {"lease": lease(530), "slices": list(range(11)), "bake": 10, "window": 30, "renewed": 530,
           "slice": {"bake": 0, "window": 10}, "folder": f"{tmp_path}/"}  # fmt: skip
    assert found["w1"] == one
    assert found["w2"] == {**one, "slices": [], "bake": 0}, "the release is not new there: nothing bakes"
    later = {"lease": lease(430), "renewed": 430, "slices": [0, 1], "bake": 10}
    assert found["w3"] == {**one, **later}, "one host, of a later stage"


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.sample(1)
@pytest.mark.slow
def test_with_all_of_them_as_numbers_and_as_text_of_the_command_line(tmp_path: Path, as_text: bool) -> None:
    given = {"ebpf_fleet_bake": 601, "ebpf_fleet_rollout_renew_seconds": 300, "ebpf_fleet_window_after": 1.5,
             "ebpf_fleet_activation_timeout": 7, "ebpf_fleet_report_dir": "records"}  # fmt: skip
    options = [word for name, value in given.items() for word in ("-e", f"{name}={value}")] if as_text else []
    found = rendered(tmp_path, {} if as_text else given, *options)
    # 7 s of activation, 300 of bake until it is renewed, 2 of measurement, 300, and 10 a host.
    assert found["w1"] == {"lease": lease(629), "slices": list(range(54)), "bake": 7, "window": 1.5, "renewed": 629,
                           "slice": {"bake": 9.5, "window": 1.5}, "folder": f"{tmp_path}/records"}  # fmt: skip
    assert (found["w2"]["slices"], found["w2"]["bake"]) == ([], 0)


@pytest.mark.parametrize(("asked", "given"), [(0, {}), (90000, lease(90000))])
@pytest.mark.sample(1)
def test_a_lease_that_is_asked_for(tmp_path: Path, asked: int, given: dict[str, Any]) -> None:
    found = rendered(tmp_path, {}, "-e", f"ebpf_fleet_rollout_lease_seconds={asked}")
    assert {name: one["lease"] for name, one in found.items()} == dict.fromkeys(found, given)
