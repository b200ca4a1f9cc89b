# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts on real hosts while things break: the batch goes back, and nothing later starts."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Fleet, everywhere, installed, programs, recap, running, shell, until
from tests.support.play import ROOT, lab, on_host

STAGES = [{"stage": "canary", "count": 1}, {"stage": "fleet"}]
FILES = "find /etc /var/lib /usr/lib/tmpfiles.d /usr/lib/sysusers.d /run/systemd /opt -xdev -newer /proc/1/cmdline " \
        "! -path '*/journal/*' 2>/dev/null | sort; getent passwd; systemctl list-unit-files | sort"  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def new_hosts(fleet: Fleet) -> None:
    fleet.reset()


@pytest.mark.slow
def test_check_mode_on_a_fresh_host_says_what_would_change_and_changes_nothing(fleet, first):
    before = shell("k510", FILES)
    told = fleet.roll_out(first, "--check", "--diff", "--limit", "k510")
    assert told.rc == 0, told.text
    assert "+Description=ebpf.fleet loader" in told.text, "the unit's text is not in the diff"
    assert first.version in told.text and recap(told)["k510"]["changed"] >= 2
    assert shell("k510", FILES) == before
    assert installed("k510") == "" and programs("k510") == []


def test_a_rollout_reaches_the_whole_fleet(fleet, first):
    # In stages and within the shares of a batch where there are hosts for them.
    whole = {"ebpf_fleet_stages": STAGES[1:], "ebpf_fleet_fleet_percent": 100, "ebpf_fleet_cell_percent": 100}
    done = fleet.roll_out(first, **({"ebpf_fleet_stages": STAGES} if len(fleet.hosts) > 2 else whole))
    assert done.rc == 0, done.text
    assert everywhere(running, fleet.hosts) == dict.fromkeys(fleet.hosts, first.version)
    assert all(programs(host) for host in fleet.hosts)


@pytest.mark.slow
def test_a_second_run_changes_nothing(fleet, first):
    again = fleet.roll_out(first, ebpf_fleet_stages=STAGES)
    assert again.rc == 0, again.text
    assert {host: row["changed"] for host, row in recap(again).items()} == dict.fromkeys(fleet.hosts, 0)


@pytest.mark.slow
def test_a_host_lost_midway_rolls_its_batch_back_and_stops_the_rollout(fleet, first, second):
    batch = ["k61a", "k612"]
    plan = {"ebpf_fleet_stages": [{"stage": "canary", "count": 1, "cell": "us-a"},
                                  {"stage": "region", "region": "eu", "percent": 50}, {"stage": "fleet"}]}  # fmt: skip
    lost: list[str] = []

    def cut_when_deployed() -> None:
        # The moment that hurts: the batch's first host has the new release already.
        for _attempt in range(600):
            rows = subprocess.run(["pgrep", "-f", "ansible-playbook.*rollout"], capture_output=True, check=False)
            for host in batch if rows.returncode == 0 else []:
                if second.version in installed(host) and running(host) == second.version:
                    lab("unplug", host)
                    lost.append(host)
                    return
            time.sleep(0.2)

    watcher = threading.Thread(target=cut_when_deployed)
    watcher.start()
    try:
        done = fleet.roll_out(second, **plan)
    finally:
        watcher.join()
        for host in lost:
            lab("plug", host)
    assert lost, "no host of the batch was seen with the new release; nothing was tested"
    assert done.rc != 0, done.text
    assert "no later batch was started" in done.text
    changed = {host for host in fleet.hosts if second.version in installed(host)}
    canary = {"k73"}
    for host in changed - canary - set(lost):
        assert until(lambda host=host: running(host), first.version) == first.version, host
    for host in set(fleet.hosts) - changed:
        assert running(host) == first.version
    assert len(set(fleet.hosts) - changed) >= 1, "a later batch was started"
    assert running("k73") == second.version, "a batch that had passed stays as it is"


@pytest.mark.slow
def test_the_next_release_reaches_the_whole_fleet_also_after_that_loss(fleet, second):
    done = fleet.roll_out(second, ebpf_fleet_stages=[{"stage": "fleet"}])
    assert done.rc == 0, done.text
    assert everywhere(running, fleet.hosts) == dict.fromkeys(fleet.hosts, second.version)


@pytest.mark.slow
def test_no_rollout_begins_while_a_host_is_silent(fleet, second):
    lab("unplug", "k612")
    try:
        done = fleet.roll_out(second, "--limit", "k510,k612")
    finally:
        lab("plug", "k612")
    assert done.rc != 0
    assert "do not answer: k612" in done.text and "Measure before" not in done.text


def test_a_bundle_that_was_altered_is_refused_on_the_host_and_the_old_release_runs_on(fleet):
    stranger = fleet.folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    forged = fleet.release("3.0.0", 3, key=stranger)
    before, ran = programs("k510"), running("k510")
    assert ran and before, "a test before leaves a release that runs"
    done = fleet.roll_out(forged, "--limit", "k510")
    assert done.rc != 0
    assert "EF_SIG_UNKNOWN_SIGNER" in done.text
    assert running("k510") == ran and programs("k510") == before
    assert "3.0.0" not in installed("k510")


def test_a_loader_refuses_what_was_altered_behind_the_modules_back(fleet):
    object_file = "/var/lib/ebpf-fleet/current/bundle/features/runqlat/full.bpf.o"
    shell("k612", f"cp -p {object_file} /root/kept; printf X | dd of={object_file} bs=1 seek=99 conv=notrunc")
    try:
        assert on_host("k612", "systemctl restart ebpf-fleet-loader").returncode != 0
        said = shell("k612", "journalctl -u ebpf-fleet-loader -n 20")
        assert "EF_FILE_DIGEST" in said and "full.bpf.o" in said
        assert programs("k612") == []
    finally:
        shell("k612", f"cp -p /root/kept {object_file}; systemctl restart ebpf-fleet-loader")
    assert until(lambda: bool(programs("k612")), True)


@pytest.mark.slow
def test_the_same_playbooks_run_on_a_plain_inventory(fleet, second, tmp_path):
    """An INI file with addresses, what the hosts allow, and nothing that the lab wrote; no group, no lab variable."""
    known = (ROOT / "inventories/lab/hosts.yml").read_text()
    key = next(line.split(":", 1)[1].strip() for line in known.splitlines() if "private_key_file" in line)
    options = next(line.split(":", 1)[1].strip() for line in known.splitlines() if "ssh_common_args" in line)
    port = known.split("k61b:", 1)[1].split("ansible_port:", 1)[1].split()[0]
    plain = tmp_path / "hosts.ini"
    plain.write_text(
        f"web1 ansible_host=127.0.0.1 ansible_port={port} ansible_user=root ansible_ssh_private_key_file={key} "
        f'ansible_ssh_common_args="{options}" ebpf_fleet_cell=c1 ebpf_fleet_region=r1 '
        "ebpf_fleet_policy=\"{'host': {'cpu_millicores': 200}}\" ebpf_fleet_loader_cpu_quota=60%\n"
    )
    done = fleet.roll_out(second, inventory=plain)
    assert done.rc == 0, done.text
    assert recap(done)["web1"]["changed"] == 0


def test_nothing_in_roles_and_playbooks_knows_the_lab():
    for path in [*(ROOT / "roles").rglob("*"), *(ROOT / "playbooks").rglob("*"), *(ROOT / "plugins").rglob("*.py")]:
        if path.is_file():
            words = path.read_text().split()
            assert not {"lab", "lab's", "inventories/lab", "tests.lab"} & set(words), path


@pytest.mark.slow
def test_a_host_that_ran_the_release_before_keeps_it_when_its_deployment_fails(fleet, first, second):
    """What a batch goes back to is what it ran before this rollout, not what lies one further back."""
    place = "/var/lib/ebpf-fleet"
    shell("k61b", f"mount --bind {place} {place} && mount -o remount,bind,ro {place}")
    try:
        done = fleet.roll_out(second, "--limit", "k61b", ebpf_fleet_features={"runqlat": {"sample_every": 2}})
    finally:
        shell("k61b", f"umount {place}")
    assert done.rc != 0 and "Deploy the release" in done.text
    assert running("k61b") == second.version
    previous = shell("k61b", "readlink /var/lib/ebpf-fleet/previous")
    assert previous.strip().startswith(f"releases/{first.version}-"), "it was asked to go back"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ebpf_fleet_bundle": ""}, "A rollout needs ebpf_fleet_bundle"),
        ({"ebpf_fleet_bundle": "/nowhere/x.tar"}, "does not exist"),
        ({"ebpf_fleet_allowed_signers": " "}, "ebpf_fleet_allowed_signers"),
        ({"ebpf_fleet_stages": [{"stage": "moon"}]}, "moon"),
        ({"ebpf_fleet_stages": [{"stage": "cell", "cell": "eu-z"}, {"stage": "fleet"}]}, "eu-z"),
        ({"ebpf_fleet_stages": [{"stage": "region", "percent": 0}, {"stage": "fleet"}]}, "percent"),
        ({"ebpf_fleet_until": "cellar"}, "cellar"),
        ({"ebpf_fleet_features": {"runqlatt": {}}}, "runqlatt, which the bundle does not hold; it holds exec"),
        ({"ebpf_fleet_gate_limits": {"drop_ratio": 1}}, "drop_ratio"),
    ],
)
@pytest.mark.slow
def test_bad_input_is_refused_with_one_clear_message_and_changes_nothing(fleet, second, variables, says):
    before = (running("k61a"), installed("k61a"))
    done = fleet.roll_out(second, "--limit", "k61a", **variables)
    assert done.rc != 0
    assert says in done.text
    assert (running("k61a"), installed("k61a")) == before


@pytest.mark.slow
def test_a_host_without_systemd_is_refused_before_anything_changes_on_it(fleet, second, tmp_path):
    """This machine runs no systemd, so it stands for such a host."""
    # Of the machine: what is tried is a host without it, and no other is at hand that is not a guest with systemd.
    if Path("/run/systemd/system").is_dir():
        pytest.skip("this machine was booted with systemd, so it cannot stand for a host without it")
    bare = tmp_path / "bare.ini"
    bare.write_text(
        f"bare ansible_connection=local ansible_python_interpreter={sys.executable} "
        "ebpf_fleet_cell=c ebpf_fleet_region=r\n"
    )
    done = fleet.roll_out(second, inventory=bare)
    assert done.rc != 0
    assert "systemd" in done.text
    assert not Path("/etc/ebpf-fleet").exists() and not Path("/var/lib/ebpf-fleet").exists()
