# SPDX-License-Identifier: GPL-3.0-or-later
"""Every name that an inventory may have is addressed and accounted for by all four playbooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Sequence

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.plugin_utils.inventory_answer import InventoryAnswer, texts_of

from tests.integration.test_playbooks import rollout_options

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests/fixtures/names/inventory.json"
NAMES: list[str] = json.loads(FIXTURE.read_text())["all"]["hosts"]
PLAYBOOKS = ("capabilities", "prepare", "rollback", "rollout")
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def inventory(folder: Path, names: Sequence[str] = NAMES, **variables: Any) -> Path:
    """A dynamic inventory: only those take every name as it is."""
    hostvars = {name: {**LOCAL, "ebpf_fleet_cell": "c", "ebpf_fleet_region": "r", **variables} for name in names}
    document = {"all": {"hosts": list(names)}, "group1": {"hosts": names[:3]}, "empty": {"hosts": []}}
    (folder / "hosts.json").write_text(json.dumps({**document, "_meta": {"hostvars": hostvars}}))
    path = folder / "inventory"
    path.write_text(f'#!/bin/sh\ncat "{folder}/hosts.json"\n')
    path.chmod(0o755)
    return path


def ansible(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_LOCALHOST_WARNING": "false", "PWD": str(folder), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def addressed(folder: Path, playbook: str, *options: str) -> list[str]:
    """The hosts that the first play of a playbook addresses."""
    path = inventory(folder)
    status, text = ansible(folder, "playbook", "-i", str(path), f"ebpf.fleet.{playbook}", "--list-hosts", *options)
    assert status == 0, text
    lines = text.split("play #1", 1)[1].split("play #2")[0].split("hosts (", 1)[1].split("\n")[1:]
    return sorted(line[6:] for line in lines if line.startswith("      "))


def answer(folder: Path, *options: str) -> list[str]:
    """The inventory's own answer."""
    status, text = ansible(folder, "adhoc", "-i", str(inventory(folder)), "all", "--list-hosts", *options)
    assert status == 0, text
    return sorted(line[4:] for line in text.split("\n")[1:] if line.startswith("    "))


@pytest.mark.sample(2)
@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.slow
def test_every_name_is_addressed_and_by_a_list_of_names_and_by_limit(tmp_path, playbook):
    assert addressed(tmp_path, playbook) == answer(tmp_path) == sorted(NAMES)
    # What a person types behind -e is a template, as everywhere in Ansible.
    typed = [name for name in NAMES if "{{" not in name]
    assert addressed(tmp_path, playbook, "-e", json.dumps({"ebpf_fleet_hosts": typed})) == sorted(typed)
    odd = NAMES[1:]
    assert addressed(tmp_path, playbook, "--limit", ",".join(map(hostnames.exact_pattern, odd))) == sorted(odd)


def resolved(folder: Path, asked: Any, limit: str | None = None) -> list[str]:
    """What Ansible's own reader makes of the patterns that a playbook gets."""
    loader = DataLoader()
    manager = InventoryManager(loader, sources=[str(inventory(folder))])
    variables = {"groups": manager.get_groups_dict(), "ansible_limit": limit}
    patterns = InventoryAnswer(loader, variables).patterns(texts_of([asked]))
    manager.subset(limit)
    return [host.name for host in manager.get_hosts(patterns)]


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_addressed_alone_and_left_out_alone(tmp_path, name):
    assert resolved(tmp_path, name) == resolved(tmp_path, [name]) == [name]
    assert resolved(tmp_path, "all", hostnames.exact_pattern(name)) == [name]
    others = [one for one in NAMES if one != name]
    assert resolved(tmp_path, ["all", f"!{name}"]) == others
    assert resolved(tmp_path, "all", f"all:!{hostnames.exact_pattern(name)}") == others


@pytest.mark.parametrize("limit", ["all,!db*", "group1", "~.*[ %].*", "@limit", "all:!empty", "group1[0]"])
def test_a_limit_is_what_the_inventory_says_it_is(tmp_path, monkeypatch, limit):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "limit").write_text("db: primary\nweb, blue\ndb:5432\n")
    manager = InventoryManager(DataLoader(), sources=[str(inventory(tmp_path))])
    manager.subset(limit)
    expected = [host.name for host in manager.get_hosts("all")]
    assert expected and resolved(tmp_path, "all", limit) == expected
    assert resolved(tmp_path, ["all", "!web, blue"], limit) == [name for name in expected if name != "web, blue"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-e", '{"ebpf_fleet_hosts": ["plain1", "web, bleu"]}'), "did you mean 'web, blue'?"),
        (("--limit", "plain1,palin1"), "--limit: 'palin1' matches no host and no group; did you mean 'plain1'?"),
        (("--limit", "plain1,web, blue"), "did you mean 'web, blue'?"),
        (("--limit", "all:!grup1"), "did you mean 'group1'?"),
        (("-e", "ebpf_fleet_hosts=plain1,no_such_*"), "ebpf_fleet_hosts: 'no_such_*' matches no host and no group"),
    ],
)
def test_a_name_that_means_no_host_is_told_with_the_nearest(tmp_path, options, words):
    flag, value = options
    asked, limit = "all", value
    if flag == "-e":
        asked, limit = json.loads(value)["ebpf_fleet_hosts"] if value[0] == "{" else value.partition("=")[2], None
    loader = DataLoader()
    manager = InventoryManager(loader, sources=[str(inventory(tmp_path))])
    variables = {"groups": manager.get_groups_dict(), "ansible_limit": limit}
    (sentence,) = InventoryAnswer(loader, variables).unmatched(texts_of([asked]))
    assert words in sentence


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.sample(2)
def test_a_name_that_means_no_host_fails_every_playbook(tmp_path, playbook):
    scope = ("-e", "scope=global", "-e", "ebpf_fleet_return_timeout=5")
    path, options, words = inventory(tmp_path), ("--limit", "plain1,palin1"), "did you mean 'plain1'?"
    status, text = ansible(tmp_path, "playbook", "-i", str(path), f"ebpf.fleet.{playbook}", "--check", *scope, *options)
    assert status != 0 and words in " ".join(text.split()), text


def test_a_host_that_was_left_out_is_named():
    assert hostnames.difference(NAMES, NAMES) == []
    (sentence,) = hostnames.difference(NAMES, NAMES[2:])
    assert sentence == f"2 of {len(NAMES)} hosts of the inventory were not addressed: 'plain1', 'fe80::1%eth0'."
    assert "does not name so: 'other'" in hostnames.difference(["a"], ["a", "other"])[0]


@pytest.mark.slow
def test_capabilities_accounts_for_every_name(tmp_path):
    options = ("-e", "ebpf_fleet_report=fleet")
    # Ansible itself refuses a template from an inventory script where it is set to be strict.
    names = [name for name in NAMES if "{{" not in name]
    status, text = ansible(
        tmp_path, "playbook", "-i", str(inventory(tmp_path, names)), "ebpf.fleet.capabilities", *options
    )
    assert status == 0, text
    assert sorted(json.loads((tmp_path / "fleet.json").read_text())["hosts"]) == sorted(names)


@pytest.mark.slow
def test_a_rollout_enters_the_hosts_themselves(tmp_path, bundle):
    names = ["db: primary", "plain1", "web, blue", "db:5432", "fe80::1%eth0", "[::1]:22"]
    options = (*rollout_options(bundle)[:2], "--check")
    # It goes as far as the first batch where the machine has no systemd, and that is a host of an odd name.
    _status, text = ansible(tmp_path, "playbook", "-i", str(inventory(tmp_path, names)), "ebpf.fleet.rollout", *options)
    assert "TASK [Measure before]" in text, text
    recap = [line.split(" : ok=")[0].rstrip() for line in text.split("PLAY RECAP")[1].split("\n") if " : ok=" in line]
    assert sorted(recap) == sorted(names), "another host was entered, or one was not"


@pytest.mark.slow
def test_a_group_of_later_plays_has_the_host_itself(tmp_path):
    """add_host reads db:5432 as the port of another host that is called db."""
    names = [name for name in reversed(NAMES) if "{{" not in name]
    queue = {"ebpf.fleet.host_group": {"name": "{{ item }}", "group": "queue"}, "loop": names, "run_once": True}
    keep = {"ansible.builtin.file": {"path": str(tmp_path / "{{ ansible_play_hosts_all.index(inventory_hostname) }}"),
                                     "state": "touch"}}  # fmt: skip
    said = {"ansible.builtin.copy": {"content": "{{ ansible_play_hosts_all | to_json }}",
                                     "dest": str(tmp_path / "queue.json")}, "run_once": True}  # fmt: skip
    plays = [{"hosts": "all", "gather_facts": False, "tasks": [queue]},
             {"hosts": "queue", "gather_facts": False, "tasks": [said, keep]}]  # fmt: skip
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    status, text = ansible(tmp_path, "playbook", "-i", str(inventory(tmp_path)), "play.yml")
    assert status == 0, text
    assert json.loads((tmp_path / "queue.json").read_text()) == names, "the order is lost, or a name was read"
    assert all((tmp_path / str(number)).exists() for number in range(len(names)))


def test_a_host_that_the_inventory_does_not_have_is_put_into_no_group(tmp_path):
    (tmp_path / "play.yml").write_text(
        '[{"hosts": "all", "gather_facts": false,'
        ' "tasks": [{"ebpf.fleet.host_group": {"name": "palin1", "group": "g"}}]}]'
    )
    status, text = ansible(tmp_path, "playbook", "-i", str(inventory(tmp_path)), "play.yml")
    assert status != 0 and "'palin1' is not in the inventory; did you mean 'plain1'?" in " ".join(text.split())
