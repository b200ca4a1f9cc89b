# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells with controllers of their own, which are machines: real jobs to real hosts, and one whose power is cut."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.world import World, at_once, has_release, runs
from tests.support import sshhosts

RUNNER = [sys.executable, "-m", "ansible_runner"]
# One batch of the first cell, then one of all the others.
WAVES: dict[str, Any] = {"ebpf_fleet_stages": [{"stage": "cell"}, {"stage": "fleet"}], "ebpf_fleet_max_batch": 2}


class Cells:
    """A cell for each host of the world, with a controller behind an sshd in a process namespace."""

    def __init__(self, world: World) -> None:
        self.world = world
        keys = world.folder / "controllers"
        keys.mkdir()
        self.machines = sshhosts.Hosts(keys, first=200)
        self.controllers: dict[str, Any] = {}
        for cell, host in zip("ab", world.hosts):
            world.fleet.own[host.name] = {"ebpf_fleet_cell": cell, "ebpf_fleet_region": "r1"}
            self.boot(cell)

    def boot(self, cell: str) -> None:
        """A new machine becomes the cell's controller."""
        name = self.machines.add("good", f"controller-{cell}-{len(self.machines.names)}")
        self.machines.wait()
        self.machines.inventory()
        at, keys = self.machines.variables[name], self.machines.folder
        options = ["-F", "none", "-i", at["ansible_ssh_private_key_file"], "-p", str(at["ansible_port"]),
                   "-o", f"UserKnownHostsFile={keys}/known_hosts"]  # fmt: skip
        self.controllers[cell] = {"ssh": f"root@{at['ansible_host']}", "options": options, "runner": RUNNER}

    def cut(self, cell: str) -> None:
        """Its controller loses its power."""
        (name,) = [one for one in self.machines.names if self.machines.variables[one]["ansible_host"]
                   == self.controllers[cell]["ssh"].partition("@")[2]]  # fmt: skip
        self.machines.kill(name)


@pytest.fixture
def cells(running: World) -> Iterator[Cells]:
    reason = sshhosts.why_not()
    if reason:
        # Of the machine, such as a container that forbids namespaces: tests/holes.yml has each with its why.
        pytest.skip(reason)
    made = Cells(running)
    try:
        yield made
    finally:
        running.fleet.own.clear()
        made.machines.stop()


def test_cell_controller_killed(cells: Cells) -> None:
    world = cells.world
    good = world.another()
    one, other = world.hosts
    given = {**WAVES, "ebpf_fleet_cell_controllers": cells.controllers}
    with at_once(lambda: has_release(other, good) and not runs(other, good), lambda: cells.cut("b")) as cut:
        played = world.roll_out(good, **given)
    assert cut, f"no controller was lost while its host was changed; nothing was tested: {played.text}"
    assert played.rc == 2 and "EF_CELL_LOST: cell b: its controller" in played.text, played.text
    # The wave before keeps what it was given; of the lost cell's host nothing was judged.
    assert world.verdicts() == ["pass"] and world.begun() == [one.name, other.name]
    assert not (world.ledger / "quarantine.json").exists()
    # The coordinator reaches the host itself, and sends it back.
    world.check(run={one: good, other: world.first})
    rollout = world.rollout_id()
    cells.boot("b")
    played = world.roll_out(good, **given, ebpf_fleet_resume=rollout)
    assert played.rc == 0, played.text
    assert "EF_CELL" not in played.text and world.rollout_id() == rollout
    world.check(run=good)
