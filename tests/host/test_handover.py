# SPDX-License-Identifier: GPL-3.0-or-later
"""An upgrade under real systemd: the next release's loader takes over, and is the unit's main process then."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

UNIT = "ebpf-fleet-loader.service"


def shown(host: SysHost, *names: str) -> dict[str, str]:
    said = host.must(f"systemctl show {' '.join(f'-p {name}' for name in names)} {UNIT}")
    return dict(line.split("=", 1) for line in said.splitlines())


def pids(host: SysHost) -> set[str]:
    return set(host.must(f"cat /sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs").split())


def pid_by_status(host: SysHost) -> int | None:
    """None: there is no status, as while no loader runs."""
    said = host.run("cat /run/ebpf-fleet-loader/status.json")
    return int(json.loads(said.stdout)["pid"]) if said.rc == 0 else None


def handed_over(host: SysHost) -> int:
    return host.must(f"journalctl -u {UNIT} -o cat").count("took over from the loader before")


def test_an_upgrade_hands_over_and_systemd_goes_with_it(deployed: SysHost, sysfleet: SysFleet, first: Release) -> None:
    before, was = shown(deployed, "MainPID", "NRestarts"), status(deployed)
    second = sysfleet.release("2.0.0", 2)
    sysfleet.deploy(second)
    now, found = shown(deployed, "MainPID", "ActiveState", "SubState", "NRestarts", "StatusText"), status(deployed)
    assert handed_over(deployed) == 1, deployed.must(f"journalctl -u {UNIT} -o cat | tail -40")
    assert found["bundle"]["digest"] == second.digest and found["state"] == "running"
    assert now["MainPID"] == str(found["pid"]) != before["MainPID"] and pids(deployed) == {now["MainPID"]}
    assert (now["ActiveState"], now["SubState"], now["NRestarts"]) == ("active", "running", before["NRestarts"])
    assert now["StatusText"].startswith("running")
    for name, feature in found["features"].items():
        lacked = feature["unobserved_ns"]
        assert lacked["handover"] == lacked["down"] == 0, (name, lacked)
        assert feature["counters"]["produced"] >= was["features"][name]["counters"]["produced"]
    # It is watched as the one before was: when it dies systemd starts another, and that gap is told.
    deployed.must(f"kill -9 {now['MainPID']}")
    until = time.monotonic() + 30
    while time.monotonic() < until and pid_by_status(deployed) in (None, found["pid"]):
        time.sleep(0.2)
    again = status(deployed)
    assert str(again["pid"]) == shown(deployed, "MainPID")["MainPID"] and again["pid"] != found["pid"]
    assert all(feature["unobserved_ns"]["down"] > 0 for feature in again["features"].values())
    assert int(shown(deployed, "NRestarts")["NRestarts"]) == int(before["NRestarts"]) + 1


def test_a_person_may_reload_and_a_stop_ends_all(deployed: SysHost) -> None:
    before, times = status(deployed), handed_over(deployed)
    deployed.must(f"systemctl reload {UNIT}")
    after = status(deployed)
    assert after["pid"] != before["pid"] and handed_over(deployed) == times + 1
    assert after["bundle"]["digest"] == before["bundle"]["digest"]
    deployed.must(f"systemctl stop {UNIT}")
    assert shown(deployed, "ActiveState")["ActiveState"] == "inactive" and not our_programs()
    deployed.must(f"systemctl start {UNIT}")
    assert status(deployed)["state"] == "running"


@pytest.mark.slow
def test_a_unit_that_cannot_hand_over_is_restarted_and_that_is_told(deployed: SysHost, sysfleet: SysFleet) -> None:
    """As hosts of before are, until they are prepared again."""
    times = handed_over(deployed)
    deployed.must("mkdir -p /etc/systemd/system/ebpf-fleet-loader.service.d")
    deployed.must(
        "printf '[Service]\\nExecReload=\\n' > /etc/systemd/system/ebpf-fleet-loader.service.d/no-reload.conf"
        " && systemctl daemon-reload"
    )
    third = sysfleet.release("3.0.0", 3)
    played = sysfleet.try_deploy(third, "-vv")
    assert played.rc == 0 and "has no ExecReload=" in played.text, played.text[-2000:]
    found = status(deployed)
    assert found["bundle"]["digest"] == third.digest and handed_over(deployed) == times
    assert all(feature["unobserved_ns"]["down"] > 0 for feature in found["features"].values())
