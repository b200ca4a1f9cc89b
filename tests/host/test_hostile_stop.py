# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that ignores SIGTERM and asks systemd for an hour more holds up no way back and no new release."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.rollback import MARK, render_rollback
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.script import command

from tests.host import hostile
from tests.support.sysfleet import Release, SysFleet, status
from tests.support.syshost import Ran, SysHost

# TimeoutStopSec= of the unit, a way to end what it does not end, and a start on a busy machine.
BOUND = 40.0


@pytest.fixture
def second(sysfleet: SysFleet, deployed: SysHost, first: Release) -> Iterator[Release]:
    """A release on its way over the first, which each test finds as the current one."""
    release = sysfleet.release("2.0.0", 2)
    yield release
    hostile.remove(deployed)
    deployed.must("rm -f /var/lib/ebpf-fleet/previous")
    sysfleet.deploy(first, ebpf_fleet_allow_downgrade=True)


def bounded(host: SysHost, command: str) -> Ran:
    try:
        return host.run(command, BOUND)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the service that asks for more time holds it up for more than {BOUND:.0f} s")


def answer_of(ran: Ran) -> dict[str, object]:
    line = next(line for line in ran.stdout.splitlines() if line.startswith(MARK))
    answer: dict[str, object] = json.loads(line[len(MARK) :])
    return answer


@pytest.mark.slow
def test_way_back_is_bounded(
    deployed: SysHost, sysfleet: SysFleet, evil: Path, first: Release, second: Release
) -> None:
    sysfleet.deploy(second)
    hostile.install(deployed, evil, "extend")
    answer = answer_of(bounded(deployed, command(render_rollback())))
    assert answer["ok"], answer
    assert answer["digest"] == first.digest
    assert status(deployed)["bundle"]["digest"] == first.digest
    assert hostile.hostile_processes(deployed) == []


@pytest.mark.slow
def test_way_back_to_nothing_is_bounded(deployed: SysHost, evil: Path, first: Release, second: Release) -> None:
    """The first release of a host goes back to nothing: the unit is stopped."""
    deployed.must("rm -f /var/lib/ebpf-fleet/previous")
    hostile.install(deployed, evil, "extend")
    answer = answer_of(bounded(deployed, command(render_rollback(from_digest=first.digest))))
    assert answer["ok"], answer
    assert hostile.hostile_processes(deployed) == []
    assert hostile.names() == []


@pytest.mark.slow
def test_new_release_over_it_is_bounded(deployed: SysHost, sysfleet: SysFleet, evil: Path, second: Release) -> None:
    hostile.install(deployed, evil, "extend")
    started = time.monotonic()
    played = sysfleet.try_deploy(second, ebpf_fleet_activation_timeout=25)
    assert time.monotonic() - started < BOUND + 20, played.text
    assert played.rc == 0, played.text
    assert status(deployed)["bundle"]["digest"] == second.digest
    assert hostile.hostile_processes(deployed) == []
