# SPDX-License-Identifier: GPL-3.0-or-later
"""A kill order in /etc holds across a reboot of the machine."""

from __future__ import annotations

import pytest

from tests.faults.conftest import programs, running, shell, until
from tests.support.play import lab, on_host

HOST = "k61b"


def state(host: str) -> str:
    return on_host(host, "systemctl is-active ebpf-fleet-loader").stdout.strip()


@pytest.fixture
def kept(fleet):
    """The host with a disk that keeps its files, taken back to normal afterwards."""
    lab("down", HOST)
    assert lab("up", "--persistent", HOST).returncode == 0
    yield HOST
    lab("down", HOST)
    assert lab("up", HOST).returncode == 0
    lab("reset", HOST)


@pytest.mark.slow
def test_a_kill_order_holds_across_a_reboot_and_the_release_comes_back_without_it(fleet, first, kept):
    done = fleet.roll_out(first, "--limit", kept)
    assert done.rc == 0, done.text
    before = programs(kept)
    assert before and fleet.kill("global", "--limit", kept).rc == 0
    boot = shell(kept, "cat /proc/sys/kernel/random/boot_id")
    assert lab("reboot", kept).returncode == 0
    assert shell(kept, "cat /proc/sys/kernel/random/boot_id") != boot, "the machine was not rebooted"
    assert until(lambda: state(kept), "active", 60) == "active"
    assert running(kept) == first.version and programs(kept) == []
    assert fleet.kill("global", "--limit", kept, state="released", confirm="release", reason="tested").rc == 0
    assert until(lambda: programs(kept), before, 60) == before
