# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts whose cells have controllers of their own: real jobs of ansible-runner, and hosts with a state.

The workers are real processes, here or behind a real sshd; what they are made to do wrong is done to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration import events
from tests.integration.fake_hosts import FakeHosts
from tests.integration.scripted import inventory
from tests.integration.test_playbooks import bundle  # noqa: F401  # a fixture
from tests.integration.test_rollout_scripted import ASK, CAPABILITY, JUDGE, PASS, digest_of, given

pytestmark = pytest.mark.apart

CELLS = {"a": ["a1", "a2"], "b": ["b1", "b2"]}
EARLY = "Judge what fails plainly"


class Cells:
    """A fleet of two cells, each with a controller."""

    def __init__(self, folder: Path, bundle: Path, **controllers: Any) -> None:  # noqa: F811
        self.folder, self.bundle, self.digest = folder, bundle, digest_of(bundle)
        self.controllers = {cell: controllers.get(cell, {"local": True}) for cell in CELLS}

    def hosts(self) -> dict[str, Any]:
        found: dict[str, Any] = inventory([])
        for cell, names in CELLS.items():
            one = inventory(names, ebpf_fleet_cell_controllers=self.controllers, ebpf_fleet_control_hosts=0)
            for name, variables in one["all"]["hosts"].items():
                found["all"]["hosts"][name] = {**variables, "ebpf_fleet_cell": cell}
        return found

    def roll_out(self, script: dict[str, Any] | None = None, **more: Any) -> events.Run:
        stages = [{"stage": "canary", "per_stratum": 1}, {"stage": "cell"}, {"stage": "fleet"}]
        script = {
            ASK: {"*": CAPABILITY},
            JUDGE: {"*": PASS},
            EARLY: {"*": PASS},
            "fake_hosts": self.digest,
            **(script or {}),
        }
        return events.run(self.folder, "rollout", self.hosts(), script,
                          **given(self.bundle, ebpf_fleet_window_after=0, **{"ebpf_fleet_stages": stages, **more}))  # fmt: skip

    def runs(self) -> dict[str, Any]:
        """{host: (whether it runs the release, whether it is on probation)}."""
        fake = FakeHosts(self.folder / "scripted", self.digest)
        names = [name for names in CELLS.values() for name in names]
        return {one: (fake.state(one)["current"] == self.digest, fake.state(one)["lease"]) for one in names}


DONE, BEFORE_IT, PROBATION = (True, False), (False, False), (True, True)


def test_a_good_rollout_over_two_cells_ends_everywhere(tmp_path: Path, bundle: Path) -> None:  # noqa: F811
    fleet = Cells(tmp_path, bundle)
    run = fleet.roll_out()
    assert run.status == 0, run.said
    assert fleet.runs() == dict.fromkeys(fleet.runs(), DONE)
