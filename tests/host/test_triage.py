# SPDX-License-Identifier: GPL-3.0-or-later
"""Triage over a real loader under load: two windows, the reduced profile, the costliest off, evidence, the radius."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.play import Played
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

YES = {"ebpf_fleet_triage_yes": True, "ebpf_fleet_triage_window": 4}
# Whatever runs costs more than nothing: the load of the test makes sure that something runs.
NOTHING_ALLOWED = {
    "ebpf_fleet_gate_limits": {"bpf_cpu_millicores": 0, "total_cpu_millicores": 1000, "loader_cpu_millicores": 1000}
}
ORDER = "/run/ebpf-fleet/kill.d/feature."


@pytest.fixture
def load(deployed: SysHost) -> Iterator[None]:
    """Programs that start one after the other, on the machine that all hosts share."""
    with subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) as process:
        yield
        process.kill()


@pytest.fixture
def host(deployed: SysHost, sysfleet: SysFleet, first: Release) -> Iterator[SysHost]:
    """The host with all features attached and the limits of its inventory, before and after."""
    await_attached(deployed)
    yield deployed
    # The order stands on the controller too: a deployment would give it to the host again.
    for order in deployed.must("ls /run/ebpf-fleet/kill.d").split():
        back = {"scope": order.replace(".", "=", 1), "state": "released", "confirm": "release", "reason": "tested"}
        played = sysfleet.play("rollback", back)
        assert played.rc == 0, played.text
    sysfleet.deploy(first)
    deployed.must("systemctl restart ebpf-fleet-loader")
    await_attached(deployed)


def await_attached(host: SysHost) -> None:
    deadline = time.monotonic() + 60
    while {one["state"] for one in status(host)["features"].values()} != {"attached"}:
        assert time.monotonic() < deadline, json.dumps(status(host)["features"])
        time.sleep(0.2)


def triage(fleet: SysFleet, folder: Path, *arguments: str, **variables: Any) -> tuple[Played, dict[str, Any]]:
    """How it ended, and the blast radius."""
    report = folder / "blast.json"
    given = {"ebpf_fleet_report": str(report), "ebpf_fleet_forensics_dir": str(folder), **variables}
    played = fleet.play("triage", given, *arguments)
    return played, json.loads(report.read_text()) if report.exists() else {}


def policy(host: SysHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.must("cat /etc/ebpf-fleet/policy.json"))
    return found


@pytest.mark.slow
def test_without_a_terminal_and_without_a_yes_it_stops_before_it_acts(
    host: SysHost, load: None, sysfleet: SysFleet, tmp_path: Path
) -> None:
    before = policy(host)
    played, found = triage(sysfleet, tmp_path, ebpf_fleet_triage_window=4, **NOTHING_ALLOWED)
    assert played.rc == 2 and "EF_NOT_ALLOWED: " in played.text and found == {}, played.text
    assert "CPU of all programs" in played.text and "-e ebpf_fleet_triage_yes=true" in " ".join(played.text.split())
    assert policy(host) == before and {one["state"] for one in status(host)["features"].values()} == {"attached"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_step_acts_and_says_what_it_found(host: SysHost, load: None, sysfleet: SysFleet, tmp_path: Path) -> None:
    played, found = triage(sysfleet, tmp_path, **YES, **NOTHING_ALLOWED)
    assert found, played.text
    (group,) = found["groups"]
    kernel = status(host)["kernel"]["family"]
    assert (group["kernel"], group["version"], group["confirmed"]) == (kernel, "1.0.0", [host.name])
    assert group["checks"]["bpf_cpu"]["worst"] >= 1 and group["checks"]["bpf_cpu"]["limit"] == 0
    # The costliest by the kernel's own account, and it is the one that is off.
    costs = [one["ns_per_second"] for one in found["costs"]]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0
    steps = {one["step"]: one for one in found["steps"]}
    gone = steps["disable"]["feature"]
    assert steps["disable"]["hosts"] == [host.name] and host.run(f"test -e {ORDER}{gone}").rc == 0
    listed = sysfleet.play("rollback", {"state": "list"})
    assert f"scope=feature={gone}" in listed.text and "1 confirmed" in listed.text, listed.text
    features = status(host)["features"]
    assert features[gone]["state"] == "killed" and not features[gone]["programs"]
    (other,) = set(features) - {gone}
    # With nothing allowed what remains is over the limit still, and that is not a success.
    assert found["still_over"] == ([host.name] if features[other]["state"] == "attached" else found["still_over"])
    assert played.rc == (2 if found["still_over"] else 0) and ("EF_TRIAGE" in played.text) == bool(found["still_over"])
    (evidence,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert "SHA256SUMS" in {path.name for path in (evidence / host.name).iterdir()}
    assert f"step disable: {gone}: All 1 hosts confirmed" in " ".join(played.text.split())
    names = {one["name"] for one in our_programs()}
    assert not any(name in names for name in ("ef_exec" if gone == "exec_events" else "ef_rql_switch",))


@pytest.mark.slow
def test_a_lowered_limit_makes_the_loader_take_its_own_steps(
    host: SysHost, load: None, sysfleet: SysFleet, tmp_path: Path
) -> None:
    """What maps hold cannot be sampled away: the limit of the map's memory takes the feature down at once."""
    limits = {"ebpf_fleet_gate_limits": {"map_memory_bytes": 1000}}
    played, found = triage(sysfleet, tmp_path, **YES, **limits, ebpf_fleet_triage_features=0)
    (step, _evidence) = found["steps"]
    assert step["step"] == "reduce" and step["hosts"] == [host.name], played.text
    lowered = policy(host)["features"]
    assert set(lowered) == {"exec_events", "runqlat"}
    degraded = {name: one["degraded"] for name, one in status(host)["features"].items()}
    assert any(one and one["reason_code"] == "EF_BUDGET_MAP_MEMORY" for one in degraded.values()), degraded


@pytest.mark.slow
def test_where_nothing_is_over_nothing_is_asked_and_nothing_done(
    host: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    generous = {"loader_cpu_millicores": 2000, "bpf_cpu_millicores": 2000, "total_cpu_millicores": 4000,
                "event_rate_per_second": 10**9, "drop_ratio_ppm": 1000000, "map_memory_bytes": 1 << 40}  # fmt: skip
    played, found = triage(sysfleet, tmp_path, ebpf_fleet_triage_window=4, ebpf_fleet_gate_limits=generous)
    assert (found["confirmed"], found["steps"], found["within"] + found["once"]) == (0, [], 1), played.text
    assert played.rc == 0 and {one["state"] for one in status(host)["features"].values()} == {"attached"}
