# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill switch on real hosts: every scope, and when the host has nothing left to help with."""

from __future__ import annotations

import re

import pytest

from tests.faults.conftest import Fleet, everywhere, programs, running, shell, until
from tests.support.play import lab, on_host

PYTHONS = "chmod a-x $(readlink -f /usr/bin/python3)"
PYTHONS_BACK = "chmod a+x $(readlink -f /usr/bin/python3)"


def has_both(host: str, first, second) -> bool:
    """Whether a host runs these very releases: the second, and the first to go back to."""
    lies = shell(host, "cd /var/lib/ebpf-fleet && readlink current previous; true").split()
    wanted = [f"releases/{one.version}-{one.digest[:12]}" for one in (second, first)]
    return lies == wanted and running(host) == second.version


@pytest.fixture(scope="module", autouse=True)
def rolled_out(fleet: Fleet, first, second) -> None:
    """One release on every host, the first or the second; the rollout tests leave it so."""
    found = everywhere(lambda host: (running(host), bool(programs(host))), fleet.hosts)
    if set(found.values()) in ({(first.version, True)}, {(second.version, True)}):
        return
    fleet.reset()
    roll_out(fleet, first)


def roll_out(fleet: Fleet, release) -> None:
    done = fleet.roll_out(release, ebpf_fleet_stages=[{"stage": "fleet"}])
    assert done.rc == 0, done.text


@pytest.fixture(autouse=True)
def take_back(fleet: Fleet, rolled_out):
    """Every test begins and ends with everything attached."""
    before = everywhere(programs, fleet.hosts)
    assert all(before.values()), before
    yield before
    everywhere(lambda host: shell(host, "rm -f /run/ebpf-fleet/kill.d/* /etc/ebpf-fleet/kill.d/*"), fleet.hosts)
    assert until(lambda: everywhere(programs, fleet.hosts), before) == before


def test_global_kill_empties_every_kernel_and_release_fills_it_again(fleet, take_back):
    done = fleet.kill("global")
    assert done.rc == 0, done.text
    assert everywhere(programs, fleet.hosts) == dict.fromkeys(fleet.hosts, [])
    released = fleet.kill("global", state="released", confirm="release", reason="tested")
    assert released.rc == 0, released.text
    assert until(lambda: everywhere(programs, fleet.hosts), take_back) == take_back


@pytest.mark.slow
def test_one_feature_is_turned_off_and_the_other_goes_on(fleet, take_back):
    done = fleet.kill("feature=exec_events")
    assert done.rc == 0, done.text
    for host in fleet.hosts:
        assert programs(host) == [name for name in take_back[host] if not name.startswith("ef_exec")]


@pytest.mark.parametrize("family", ["6.12", pytest.param("6.1", marks=pytest.mark.slow)])
def test_one_kernel_family_is_turned_off_and_the_others_go_on(fleet, take_back, family):
    done = fleet.kill(f"kernel_family={family}")
    assert done.rc == 0, done.text
    for host in fleet.hosts:
        of_family = shell(host, "uname -r").startswith(f"{family}.")
        assert programs(host) == ([] if of_family else take_back[host]), host


@pytest.mark.slow
def test_back_to_the_previous_release_and_forward_again(fleet, first, second):
    if not all(everywhere(lambda host: has_both(host, first, second), fleet.hosts).values()):
        roll_out(fleet, first)
        roll_out(fleet, second)
    done = fleet.kill("previous")
    assert done.rc == 0, done.text
    assert everywhere(running, fleet.hosts) == dict.fromkeys(fleet.hosts, first.version)
    roll_out(fleet, second)


@pytest.mark.slow
def test_a_host_that_does_not_answer_is_named_and_the_others_are_off(fleet, take_back):
    lab("unplug", "k612")
    try:
        done = fleet.kill("global")
    finally:
        lab("plug", "k612")
    assert done.rc != 0
    assert re.search(r"NOT CONFIRMED: 1\n +'k612': ", done.text), done.text
    assert all(programs(host) == [] for host in fleet.hosts if host != "k612")
    assert programs("k612") == take_back["k612"]
    again = fleet.kill("global")
    assert again.rc == 0, again.text
    assert programs("k612") == []


def test_it_works_without_python_and_without_a_free_block_on_disk(fleet):
    shell("k612", "mount -t tmpfs -o size=64k tmpfs /etc/ebpf-fleet/kill.d")
    shell("k612", "dd if=/dev/zero of=/etc/ebpf-fleet/kill.d/.fill bs=4k 2>/dev/null; df /etc/ebpf-fleet/kill.d; true")
    shell("k612", PYTHONS)
    try:
        done = fleet.kill("global", "--limit", "k612")
        assert done.rc == 0, done.text
        assert programs("k612") == []
    finally:
        shell("k612", f"{PYTHONS_BACK}; umount /etc/ebpf-fleet/kill.d")


def test_a_loader_that_hangs_is_killed_and_stays_off(fleet):
    shell("k510", "kill -STOP $(systemctl show -p MainPID --value ebpf-fleet-loader)")
    done = fleet.kill("global", "--limit", "k510")
    assert done.rc == 0, done.text
    assert programs("k510") == []
    # systemd starts the next one; the order holds it back.
    assert until(lambda: on_host("k510", "systemctl is-active ebpf-fleet-loader").stdout.strip(), "active") == "active"
    assert programs("k510") == []


@pytest.mark.parametrize("host", ["k510", pytest.param("k612", marks=pytest.mark.slow)])
def test_an_order_that_a_person_writes_by_hand_is_obeyed_and_its_time_is_told(fleet, take_back, host):
    """How long it takes is measured by `make bench` (kill): an emulated processor says nothing of it."""
    shell(host, "touch /run/ebpf-fleet/kill.d/global")
    assert until(lambda: programs(host), []) == []
    said = shell(host, "journalctl -u ebpf-fleet-loader -o cat -n 50")
    assert re.search(r"detached \d+ us after the order was seen", said), said
    shell(host, "rm /run/ebpf-fleet/kill.d/global")
    assert until(lambda: programs(host), take_back[host]) == take_back[host]


@pytest.mark.slow
def test_a_vague_order_is_refused_before_any_host_is_asked(fleet):
    for scope in ("everything", "feature=", "feature=a/b", "kernel_family"):
        done = fleet.kill(scope)
        assert done.rc != 0 and "Engage or release the kill order" not in done.text, scope


@pytest.mark.slow
def test_check_mode_orders_nothing(fleet, take_back):
    fleet.kill("global", "--check")
    assert everywhere(programs, fleet.hosts) == take_back
