# SPDX-License-Identifier: GPL-3.0-or-later
"""What was planned is what is installed: a bundle file that is swapped at any moment after the plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features

from tests.integration.release_host import (
    REPO,
    FolderHost,
    as_bundle,
    contracts,
    environment,
    make_bundle,
    make_key,
    order,
    run_ansible,
    writer,
)

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(os.geteuid() != 0, reason="a host's releases belong to root; run as root"),
]
NEW, OTHER = ("2.0.0", 2), ("3.0.0", 3)


@pytest.fixture
def host(tmp_path: Path) -> FolderHost:
    return FolderHost(tmp_path / "host")


def same_version() -> bd.Bundle:
    """A signed bundle that calls itself as the planned one does, and holds something else."""
    made = order(*NEW, make_key(), features=contracts.find_features([REPO / "bpf/features"], ["runqlat"]))
    return as_bundle(writer.build(made).members)


def swapped_in() -> dict[str, bd.Bundle]:
    return {
        "another release": make_bundle(*OTHER),
        "an older release": make_bundle(),
        "the same version": same_version(),
    }


def planned() -> bd.Bundle:
    return make_bundle(*NEW)


def refused(answer: dict[str, Any], found: bd.Bundle) -> None:
    assert answer.get("failed") and answer["reason_code"] == "EF_NOT_PLANNED", answer
    assert planned().manifest.digest in answer["msg"] and found.manifest.digest in answer["msg"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("what", ["another release", "an older release", "the same version"])
@pytest.mark.slow
def test_another_bundle_than_planned_is_refused(host: FolderHost, tmp_path: Path, what: str) -> None:
    path, found = tmp_path / "b.tar", swapped_in()[what]
    path.write_bytes(bd.as_tar(found))
    before = host.listing(times=True)
    for check in (True, False):
        answer = run_ansible("release", host.arguments(bundle=str(path), digest=planned().manifest.digest), check=check)
        refused(answer, found)
        assert str(path) in answer["msg"]
    assert host.listing(times=True) == before
    path.write_bytes(bd.as_tar(planned()))
    assert run_ansible("release", host.arguments(bundle=str(path), digest=planned().manifest.digest))["changed"]


@pytest.mark.parametrize("what", ["another release", "an older release", "the same version"])
@pytest.mark.sample(2)
@pytest.mark.slow
def test_the_module_refuses_it_too_before_it_unpacks(host: FolderHost, what: str) -> None:
    """Past the controller's own check, as from a controller that was changed."""
    found = swapped_in()[what]
    before = host.listing(times=True)
    features = resolve_features(None, found.contracts)
    refused(host.deploy_raw(found.members, features, digest=planned().manifest.digest), found)
    assert host.listing(times=True) == before
    assert host.deploy_raw(found.members, features, digest=found.manifest.digest)["changed"]


def test_a_release_that_is_there_already_must_be_the_planned_one(host: FolderHost, tmp_path: Path) -> None:
    """Nothing is sent to a host that has the bundle; it is refused all the same."""
    host.deploy(make_bundle(*OTHER))
    before = host.listing(times=True)
    found = make_bundle(*OTHER)
    refused(host.deploy(found, digest=planned().manifest.digest), found)
    assert host.listing(times=True) == before


@pytest.mark.parametrize("digest", ["", "3F" * 32, "3f" * 31, "latest"])
def test_a_digest_must_be_a_sha256(host: FolderHost, digest: str) -> None:
    answer = host.deploy(make_bundle(), digest=digest)
    assert answer["failed"] and answer["reason_code"] in ("EF_ARGUMENT", "EF_NOT_PLANNED")


def play(folder: Path, inventory: str, tasks: list[dict[str, Any]], **keywords: Any) -> dict[str, Any]:
    """Run one play; each host's result of the task that registers ``result``."""
    keep = {"ansible.builtin.copy": {"content": "{{ result | to_json }}", "mode": "0600",
                                     "dest": f"{folder}/answer-{{{{ inventory_hostname }}}}.json"},
            "delegate_to": "localhost", "vars": {"ansible_connection": "local",
                                                 "ansible_python_interpreter": sys.executable}}  # fmt: skip
    (folder / "hosts.ini").write_text(inventory)
    one = {"hosts": "all,!localhost", "gather_facts": False, "tasks": [*tasks, keep], **keywords}
    (folder / "play.yml").write_text(json.dumps([one]))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(folder / "hosts.ini"), str(folder / "play.yml")],
        env=environment(), cwd=REPO, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    answers = {path.stem[len("answer-") :]: json.loads(path.read_text()) for path in folder.glob("answer-*.json")}
    assert answers, done.stdout + done.stderr
    return answers


def test_nothing_is_sent_before_it_is_refused(tmp_path: Path) -> None:
    """The host cannot be reached at all, and the refusal is there."""
    path = tmp_path / "b.tar"
    path.write_bytes(bd.as_tar(make_bundle(*OTHER)))
    inventory = "away ansible_host=127.0.0.1 ansible_port=1 ansible_connection=ssh\n"
    arguments = {"bundle": str(path), "digest": planned().manifest.digest}
    task = {"ebpf.fleet.release": arguments, "register": "result", "ignore_errors": True, "ignore_unreachable": True}
    refused(play(tmp_path, inventory, [task])["away"], make_bundle(*OTHER))
    arguments["digest"] = make_bundle(*OTHER).manifest.digest
    assert play(tmp_path, inventory, [task])["away"].get("unreachable")


def hosts_of(folder: Path, count: int) -> tuple[dict[str, FolderHost], str]:
    hosts = {f"h{number}": FolderHost(folder / f"h{number}") for number in range(count)}
    line = "{} ansible_connection=local ansible_python_interpreter={} root={}\n"
    return hosts, "".join(line.format(name, sys.executable, one.root) for name, one in hosts.items())


RELEASE = {"root": "{{ root }}", "service": ""}


@pytest.mark.slow
def test_a_file_that_is_swapped_between_two_batches_is_refused_from_then_on(tmp_path: Path) -> None:
    path, other = tmp_path / "b.tar", tmp_path / "o.tar"
    path.write_bytes(bd.as_tar(planned()))
    other.write_bytes(bd.as_tar(make_bundle(*OTHER)))
    hosts, inventory = hosts_of(tmp_path, 4)
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.set_fact": {"target": f"{{{{ lookup('ebpf.fleet.bundle', '{path}') }}}}"},
         "when": "inventory_hostname == 'h0'"},
        {"ansible.builtin.command": f"cp {other} {path}", "when": "inventory_hostname == 'h2'"},
        {"ebpf.fleet.release": {**RELEASE, "bundle": str(path), "digest": "{{ hostvars['h0'].target.digest }}"},
         "register": "result", "ignore_errors": True},
    ]  # fmt: skip
    answers = play(tmp_path, inventory, tasks, serial=1)
    for name in ("h0", "h1"):
        assert answers[name]["changed"] and hosts[name].current() == planned().manifest.release_id
    for name in ("h2", "h3"):
        refused(answers[name], make_bundle(*OTHER))
        assert hosts[name].current() is None and hosts[name].releases() == []


@pytest.mark.slow
def test_a_file_that_keeps_changing_installs_the_planned_bundle_or_nothing(tmp_path: Path) -> None:
    """Eight hosts at once, while the file is one release and the other in turn, hundreds of times a second."""
    path = tmp_path / "b.tar"
    both = [bd.as_tar(planned()), bd.as_tar(make_bundle(*OTHER))]
    path.write_bytes(both[0])
    over, turns = threading.Event(), [0]

    def swap() -> None:
        while not over.wait(0.002):
            turns[0] += 1
            (tmp_path / "next").write_bytes(both[turns[0] % 2])
            (tmp_path / "next").replace(path)

    hosts, inventory = hosts_of(tmp_path, 8)
    arguments = {**RELEASE, "bundle": str(path), "digest": planned().manifest.digest}
    tasks = [{"ebpf.fleet.release": arguments, "register": "result", "ignore_errors": True}]
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        answers = play(tmp_path, inventory, tasks)
    finally:
        over.set()
        swapper.join()
    assert turns[0] > 100 and len(answers) == 8
    for name, answer in answers.items():
        if answer.get("failed"):
            refused(answer, make_bundle(*OTHER))
            assert hosts[name].releases() == [] and hosts[name].current() is None
        else:
            assert hosts[name].releases() == [planned().manifest.release_id] and hosts[name].loader_verifies()


def test_a_folder_that_is_changed_while_it_is_read_is_refused(host: FolderHost, tmp_path: Path) -> None:
    for path, member in planned().members.items():
        target = tmp_path / "bundle" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(member.data)
        target.chmod(member.mode)
    other = make_bundle(*OTHER)
    for path in ("manifest.json", "manifest.json.sig"):
        (tmp_path / "bundle" / path).write_bytes(other.members[path].data)
    answer = run_ansible("release", host.arguments(bundle=str(tmp_path / "bundle"), digest=planned().manifest.digest))
    assert answer["failed"] and answer["reason_code"] in ("EF_NOT_PLANNED", "EF_FILE_DIGEST", "EF_FILE_SIZE")
    assert host.releases() == []


# The role and the playbooks


def test_the_role_hands_the_digest_to_the_module(tmp_path: Path) -> None:
    """With the right digest it goes on to the host, which was not prepared; with another it never gets there."""
    path = tmp_path / "b.tar"
    path.write_bytes(bd.as_tar(make_bundle(*OTHER)))
    inventory = "away ansible_host=127.0.0.1 ansible_port=1 ansible_connection=ssh\n"

    def run(digest: str) -> dict[str, Any]:
        role = {"ansible.builtin.include_role": {"name": "ebpf.fleet.deploy"},
                "vars": {"ebpf_fleet_bundle": str(path), "ebpf_fleet_deploy_digest": digest}}  # fmt: skip
        block = {"block": [role], "rescue": [{"ansible.builtin.debug": {"msg": "refused"}}]}
        result = {"ansible.builtin.set_fact": {"result": "{{ ebpf_fleet_release | default({}) }}"}}
        return dict(play(tmp_path, inventory, [block, result], ignore_unreachable=True)["away"])

    refused(run(planned().manifest.digest), make_bundle(*OTHER))
    assert run(make_bundle(*OTHER).manifest.digest).get("unreachable")
    assert run("").get("unreachable")


def deployments(node: Any, variables: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables with which each deployment in a playbook's text runs."""
    if isinstance(node, list):
        return [found for item in node for found in deployments(item, variables)]
    if not isinstance(node, dict):
        return []
    here = {**variables, **(node.get("vars") or {})}
    for key in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
        if isinstance(node.get(key), dict) and node[key].get("name") == "ebpf.fleet.deploy":
            return [here]
    return [found for key, item in node.items() if key != "vars" for found in deployments(item, here)]


def test_every_deployment_of_a_rollout_is_of_the_planned_digest() -> None:
    # A cell's controller deploys what its job is bound to, which is the coordinator's planned digest.
    digests = {
        "rollout.yml": "{{ ebpf_fleet_target.digest }}", "cell_deploy.yml": "{{ cell_job.binding.bundle_digest }}"
    }  # fmt: skip
    found = []
    for path in sorted((REPO / "playbooks").rglob("*.yml")):
        for variables in deployments(yaml.safe_load(path.read_text()), {}):
            found.append(path.name)
            assert variables.get("ebpf_fleet_deploy_digest") == digests[path.name], path
    assert sorted(found) == sorted(digests)
    assert "    ebpf.fleet.cell_work: &cell_work" in (REPO / "playbooks/rollout.yml").read_text()
    assert (
        'digest: "{{ ebpf_fleet_target.digest }}"'
        in ((REPO / "playbooks/rollout.yml").read_text().split("ebpf.fleet.cell_work: &cell_work", 1)[1][:200])
    )
    plan = (REPO / "playbooks/rollout.yml").read_text()
    assert plan.count("lookup('ebpf.fleet.bundle'") == 1, "the bundle is read once, for the plan"


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
@pytest.mark.sample(1)
@pytest.mark.slow
def test_a_bundle_path_that_is_not_a_file_is_refused_at_once(host: FolderHost, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fifo" if kind == "fifo" else Path(kind)
    if kind == "fifo":
        os.mkfifo(path)
    link = tmp_path / "link.tar"
    link.symlink_to(path)
    before = host.listing(times=True)
    for name in (path, link):
        answer = run_ansible("release", host.arguments(bundle=str(name)))
        assert answer["failed"] and answer["reason_code"] == "EF_FILE_TYPE" and str(name) in answer["msg"]
        expression = f"{{{{ lookup('ebpf.fleet.bundle', '{name}') }}}}"
        task = {"ansible.builtin.set_fact": {"x": expression}, "register": "result", "ignore_errors": True}
        inventory = f"h ansible_connection=local ansible_python_interpreter={sys.executable}\n"
        answer = play(tmp_path, inventory, [task])["h"]
        assert answer["failed"] and "EF_FILE_TYPE" in answer["msg"]
    assert host.listing(times=True) == before
    asked = host.questions(make_bundle().members, resolve_features(None, make_bundle().contracts))
    answer = host.module(**{**asked, "archive": str(path)})
    assert answer["failed"] and answer["reason_code"] == "EF_FILE_TYPE" and host.releases() == []
