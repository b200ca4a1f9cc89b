# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs a kernel or a clock of its own, on two guests of the lab: 5.10 and 6.12."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.lab import ssh
from tests.scenarios import guests
from tests.scenarios.world import World, at_once, has_release, runs
from tests.support.play import lab

OLD, NEW = "k510", "k612"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both guests with the first release."""
    world = World(tmp_path_factory.mktemp("guests"), guests.up(OLD, NEW), guests.PATIENT)
    world.fleet.deploy(world.release(), **world.deployed)
    world.check(run=world.first)
    yield world
    guests.down(OLD, NEW)


def test_clock_skew_of_a_minute(running: World) -> None:
    """One host is a minute ahead of the controller and one behind: a good release is good."""
    good = running.another()
    ahead, behind = running.hosts
    for host, seconds in ((ahead, 60), (behind, -60)):
        host.must(f"date -u -s @{int(time.time()) + seconds}")
    try:
        assert 50 < ssh.clock_error(ahead.port) < 70 and -70 < ssh.clock_error(behind.port) < -50
        played = running.roll_out(good)
    finally:
        for host in running.hosts:
            ssh.set_clock(host.port)
    assert played.rc == 0, played.text
    assert running.verdicts() == ["pass", "pass"]
    running.check(run=good)


def test_feature_that_loads_on_only_some_kernels(running: World) -> None:
    """slow_sends needs bpf_loop, which 5.10 lacks: each kernel runs what was predicted for it, and both pass."""
    good = running.bad_feature("slow_sends")
    played = running.roll_out(good)
    assert played.rc == 0, played.text
    running.check(run=good)
    for host, state in zip(running.hosts, ("disabled", "attached")):
        told = json.loads(host.must("cat /run/ebpf-fleet-loader/status.json"))["features"]
        assert (told["slow_sends"]["state"], told["exec_events"]["state"]) == (state, "attached"), told
        names = [one.get("name", "") for one in json.loads(host.must("bpftool prog show -j"))]
        assert ("ef_slow_enter" in names) == (state == "attached"), "the kernel's own account"


def test_host_rebooted_during_bake(running: World) -> None:
    good = running.another()
    one, other = running.hosts
    boot = one.must("cat /proc/sys/kernel/random/boot_id")
    with at_once(lambda: runs(one, good), lambda: lab("reboot", one.name), every=3) as rebooted:
        played = running.roll_out(good, ebpf_fleet_bake=60, ebpf_fleet_return_timeout=120)
    assert rebooted, "the host was not rebooted in its bake; nothing was tested"
    assert one.must("cat /proc/sys/kernel/random/boot_id") != boot
    assert played.rc == 2 and "no later batch was started" in played.text, played.text
    assert running.begun() == [one.name] and "pass" not in running.verdicts()
    assert has_release(one, good) and not has_release(other, good)
    running.check(run=running.first)
