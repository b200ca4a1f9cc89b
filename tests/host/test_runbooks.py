# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the runbooks that need systemd, and those of Ansible, on a host with both."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.play import environment
from tests.support.runbooks import Typed, asks_systemd, typed, typed_elsewhere
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

ROOT = Path(__file__).resolve().parents[2]
FEATURES = sorted(path.parent.name for path in ROOT.glob("bpf/features/*/contract.yml"))
ON_SYSTEMD = [each for each in [*typed("shell"), *typed_elsewhere()] if asks_systemd(each.text)]
FOR_ANSIBLE = typed("play")
RELEASE = """ -e state=released -e confirm=release -e 'reason="WHY"'"""


@pytest.fixture(scope="module")
def first(sysfleet: SysFleet) -> Release:
    """A release of every feature; those that this kernel refuses are disabled on the host."""
    return sysfleet.release("1.0.0", 1, FEATURES)


def _await_running(host: SysHost) -> None:
    deadline = time.monotonic() + 60
    while host.run('grep -q \'"state": *"running"\' /run/ebpf-fleet-loader/status.json').rc:
        assert time.monotonic() < deadline, host.run("journalctl --no-pager -u ebpf-fleet-loader -n 20").stdout
        time.sleep(0.2)


WANTED = {
    "systemctl status": "Active: active (running)",
    "journalctl -u ebpf-fleet-bcc": "",
    "journalctl -u": '"event":"attach"',
    "journalctl": "attached: variant",
    "cat /proc/$(systemctl": "(ebpf-loader)",
    "systemctl restart": "",
    "systemctl reset-failed": "",
    "systemctl show": "1s",
}


@pytest.mark.parametrize("command", ON_SYSTEMD, ids=lambda one: f"{one.page}: {one.text}")
@pytest.mark.sample(3)
def test_a_command_for_systemd_finds_what_the_page_says(deployed: SysHost, command: Typed) -> None:
    wanted = [found for begin, found in WANTED.items() if command.text.startswith(begin)]
    assert wanted, "no answer is known for this command of a runbook: write it above"
    _await_running(deployed)
    before = status(deployed)["pid"]
    assert wanted[0] in deployed.must(command.text)
    _await_running(deployed)
    assert (status(deployed)["pid"] != before) == (" restart " in command.text)


def _play(fleet: SysFleet, text: str) -> str:
    """A command of a page by the real ansible-playbook; what it printed. It must end with 0."""
    text = text.replace("INVENTORY", str(fleet.inventory())).replace("HOST", fleet.hosts[0].name)
    done = subprocess.run(
        shlex.split(text), cwd=fleet.folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", FOR_ANSIBLE, ids=lambda one: f"{one.page}: {one.text[17:]}")
def test_a_command_for_ansible_is_one_that_the_page_may_give(command: Typed) -> None:
    """Each names the inventory and one host, and turns off the page's own feature or goes back."""
    found = re.fullmatch(
        r"ansible-playbook -i INVENTORY ebpf\.fleet\.rollback -e scope=(\S+) --limit HOST", command.text
    )
    assert found, command.text
    feature = found[1].removeprefix("feature=")
    assert found[1] == "previous" or feature in FEATURES
    assert found[1] == "previous" or command.page in (f"{feature}.md", "events_dropped.md")
    page = (ROOT / "docs/runbooks" / command.page).read_text(encoding="utf-8")
    assert found[1] == "previous" or f"`{RELEASE.strip()}`" in page, "how the order is taken back"


@pytest.mark.parametrize("text", sorted({each.text for each in FOR_ANSIBLE if "scope=feature=" in each.text}))
@pytest.mark.sample(2)
def test_an_order_of_a_page_turns_the_feature_off_and_is_taken_back(
    deployed: SysHost, sysfleet: SysFleet, text: str
) -> None:
    feature = text.partition("feature=")[2].split()[0]
    _await_running(deployed)
    found = status(deployed)["features"][feature]
    # Of the kernel: what does not attach cannot be turned off; tests/lab has every feature attached.
    if found["state"] != "attached":
        pytest.skip(f"{feature} does not attach here: {found['reason']}")
    names = {one["name"] for one in found["programs"]}
    assert names <= {one["name"] for one in our_programs()}
    said = _play(sysfleet, text)
    assert re.search(r"confirmed", said), said
    assert status(deployed)["features"][feature]["state"] == "killed"
    assert not names & {one["name"] for one in our_programs()}
    _play(sysfleet, text + RELEASE)
    deadline = time.monotonic() + 30
    while status(deployed)["features"][feature]["state"] != "attached":
        assert time.monotonic() < deadline, json.dumps(status(deployed)["features"][feature])
        time.sleep(0.1)


@pytest.mark.slow
def test_the_way_back_of_a_page_runs_the_release_before(deployed: SysHost, sysfleet: SysFleet, first: Release) -> None:
    (text,) = {each.text for each in FOR_ANSIBLE if "scope=previous" in each.text}
    second = sysfleet.release("1.1.0", 2, ["runqlat"])
    sysfleet.deploy(second)
    assert status(deployed)["bundle"]["digest"] == second.digest
    _play(sysfleet, text)
    assert status(deployed)["bundle"]["digest"] == first.digest
