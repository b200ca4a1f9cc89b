# SPDX-License-Identifier: GPL-3.0-or-later
"""Scopes and standing orders over real OpenSSH: who gets an order, who has yet to, and who gets it later."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.integration.test_fan_out import Ran, play
from tests.support import sshhosts

pytestmark = pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made")

FAMILY = ".".join(platform.release().split(".")[:2])
RELEASE = ("-e", "state=released", "-e", "confirm=release", "-e", 'reason="fixed in 1.2.1"')
CELLS = {"a1": "a", "a2": "a", "b1": "b", "web, blue": "b"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshhosts.Hosts]:
    """Four hosts in two cells, one with an odd name, all with a release of one feature."""
    made = sshhosts.Hosts(tmp_path_factory.mktemp("standing"), first=800)
    try:
        for name, cell in CELLS.items():
            made.add("good", name, ebpf_fleet_cell=cell)
        made.wait()
        for name in CELLS:
            made.inside(name, "mkdir", "-p", "/var/lib/ebpf-fleet/current/bundle/features/exec_events")
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def no_orders(request: pytest.FixtureRequest) -> None:
    """Every test begins without an order on a host."""
    if "fleet" in request.fixturenames:
        for name in CELLS:
            clean(request.getfixturevalue("fleet"), name)


def clean(fleet: sshhosts.Hosts, name: str) -> None:
    fleet.inside(name, "rm", "-rf", "/run/ebpf-fleet", "/etc/ebpf-fleet")


def order(folder: Path, fleet: sshhosts.Hosts, *options: str, playbook: str = "rollback") -> tuple[Ran, dict[str, Any]]:
    record = folder / "record.json"
    record.unlink(missing_ok=True)
    given = ("-e", "ebpf_fleet_report=record.json") if playbook == "rollback" else ()
    state = str(folder / "state")
    ran = play(folder, f"ebpf.fleet.{playbook}", fleet.inventory(), *given, *options, XDG_STATE_HOME=state)
    return ran, json.loads(record.read_text()) if record.exists() else {}


def on(fleet: sshhosts.Hosts, name: str) -> list[str]:
    """The orders on a host, in both folders alike."""
    found = [
        fleet.inside(name, "sh", "-c", f"ls /{place}/ebpf-fleet/kill.d 2>/dev/null || true").split()
        for place in ("run", "etc")
    ]
    assert found[0] == found[1], (name, found)
    return found[0]


def kept(folder: Path, taken: bool = False) -> list[dict[str, Any]]:
    place = folder / "state/ebpf-fleet/orders" / ("released" if taken else "")
    return [json.loads(path.read_text()) for path in sorted(place.glob("*.json"))]


def test_a_cell_gets_its_order_and_no_other_host_is_asked(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    ran, record = order(tmp_path, fleet, "-e", "scope=cell=a", "-e", 'reason="load of 20"')
    assert ran.rc == 0 and record["off"] == ["a1", "a2"] == sorted(record["hosts"]), ran.text
    assert [on(fleet, name) for name in CELLS] == [["global"], ["global"], [], []]
    (own,) = kept(tmp_path)
    assert (own["scope"], own["placed"], own["outstanding"]) == (["cell=a"], ["a1", "a2"], [])
    assert own["reason"] == "load of 20" and own["everywhere"] is True and own["who"]
    ran, record = order(tmp_path, fleet, "-e", "scope=cell=a", *RELEASE)
    assert ran.rc == 0 and record["concerned"] == ["a1", "a2"], ran.text
    assert [on(fleet, name) for name in CELLS] == [[], [], [], []] and kept(tmp_path) == []
    (gone,) = kept(tmp_path, taken=True)
    assert gone["release"]["reason"] == "fixed in 1.2.1" and gone["release"]["who"] and gone["placed"] == ["a1", "a2"]
