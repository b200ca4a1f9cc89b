# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate against forged status files, under real systemd: unit, cgroup and user are the real ones."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.hostile import UNIT, wait_for
from tests.loader.service import contract_of
from tests.loader.witnessed import NOISY, failures
from tests.support.sysfleet import Release, SysFleet, status
from tests.support.syshost import SysHost

FEATURES = ("runqlat", "exec_events")
# Runs as the loader's user, as the loader's own code could: the last status again and again, with the time of now.
FORGER = """
import json, os, sys, time
folder = "/run/ebpf-fleet-loader/"
status = json.load(open(folder + "status.json"))
while True:
    status["time_unix_ns"], status["boottime_ns"] = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    status["loader"]["cpu_ns"] += 1000000
    for feature in status["features"].values():
        feature["counters"]["produced"] += 1
        feature["counters"]["delivered"] += 1
    with open(folder + ".forged", "w") as file:
        json.dump(status, file)
    os.rename(folder + ".forged", folder + "status.json")
    time.sleep(0.2)
"""


@pytest.fixture
def host(deployed: SysHost) -> Iterator[SysHost]:
    """The loader runs, its features are attached; whatever a test did to it is undone by a restart."""
    restart(deployed)
    wait_for(lambda: attached(deployed) == set(FEATURES), 30, "the features are attached")
    time.sleep(2)
    yield deployed
    deployed.run("systemctl stop forger; systemctl reset-failed forger")
    deployed.run(f"systemctl kill -s CONT {UNIT}")
    restart(deployed)


def restart(host: SysHost) -> None:
    """Restart the unit, whose limit of starts is for loaders that fail and not for tests."""
    host.must(f"systemctl reset-failed {UNIT}; systemctl restart {UNIT}", 60)


def attached(host: SysHost) -> set[str]:
    return {name for name, one in status(host)["features"].items() if one["state"] == "attached"}


def judge(fleet: SysFleet, release: Release, folder: Path, window: int = 6) -> tuple[Any, Any]:
    """(verdict, observation) of an ordinary play over SSH."""
    output = folder / "judged.json"
    played = fleet.play(
        "../tests/support/judge",
        {
            "judge_window": window, "judge_output": str(output), "judge_digest": release.digest, "judge_limits": NOISY,
            "judge_contracts": [contract_of(name) for name in FEATURES],
            "judge_expected": {"*": dict.fromkeys(FEATURES, "reduced")},
        },
    )  # fmt: skip
    assert played.rc == 0, played.text
    found = json.loads(output.read_text())
    return found["verdict"], found["after"]


def main_pid(host: SysHost) -> int:
    return int(host.must(f"systemctl show -p MainPID --value {UNIT}"))


def forge(host: SysHost, script: str = FORGER) -> None:
    """Start the forger as the loader's user, outside its unit."""
    host.path("/run/forger.py").write_text(script)
    host.must("systemd-run --quiet --unit=forger -p User=ebpf-fleet python3 /run/forger.py")
    time.sleep(1)


@pytest.mark.slow
def test_a_good_host_agrees_in_every_check(host: SysHost, sysfleet: SysFleet, first: Release, tmp_path: Path) -> None:
    verdict, after = judge(sysfleet, first, tmp_path)
    assert verdict["verdict"] == "pass", verdict["sentence"]
    seen = after["end"]["witness"]["loader"]
    assert seen["main_pid"] == main_pid(host) and seen["pids"] == [main_pid(host)]
    assert seen["main"]["exe_is_installed"] is True and 0 not in seen["main"]["uids"]
    assert after["end"]["witness"]["installed_digest"] == first.digest
    assert seen["cpu_source"] == "cgroup" and len(seen["programs"]) >= 2


@pytest.mark.slow
def test_a_frozen_loader_with_a_forged_status_fails(
    host: SysHost, sysfleet: SysFleet, first: Release, tmp_path: Path
) -> None:
    pid = main_pid(host)
    host.must(f"kill -STOP {pid}")
    forge(host)
    verdict, _after = judge(sysfleet, first, tmp_path)
    found = failures(verdict)
    assert verdict["verdict"] == "fail"
    assert f"process {pid} of the loader is stopped (state T)" in found["witness_process"]
    assert "its unit got 0 ns of CPU" in found["witness_advance"]


@pytest.mark.slow
def test_a_fifo_in_the_place_of_the_status_holds_and_hangs_nothing(
    host: SysHost, sysfleet: SysFleet, first: Release, tmp_path: Path
) -> None:
    host.must(f"kill -STOP {main_pid(host)}; cd /run/ebpf-fleet-loader && rm -f status.json && mkfifo status.json")
    begin = time.monotonic()
    verdict, after = judge(sysfleet, first, tmp_path)
    assert time.monotonic() - begin < 90
    assert "status.json: is not a regular file" in after["end"]["status_error"]
    assert verdict["verdict"] == "inconclusive" and "is not a regular file" in verdict["sentence"]


@pytest.mark.slow
def test_the_status_of_another_process_fails(host: SysHost, sysfleet: SysFleet, first: Release, tmp_path: Path) -> None:
    pid = main_pid(host)
    host.must(f"kill -STOP {pid}")
    forge(host, FORGER.replace("while True", 'status["pid"] = 1\nwhile True', 1))
    verdict, _after = judge(sysfleet, first, tmp_path)
    assert f"status is of process 1, systemd's main process is {pid}" in failures(verdict)["witness_pid"]


def test_a_control_host_and_a_host_without_our_unit_are_observed(syshost: SysHost, deployed: SysHost) -> None:
    """The module's answer where the unit is stopped: everything that is unknown is null and says why."""
    deployed.must(f"systemctl stop {UNIT}", 60)
    script = (
        "import json, time; from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import observation as o; "
        "print(json.dumps(o.observe(o.Places(), 'h', 0.2, time.sleep)))"
    )
    # Carried there: a host has a /tmp of its own, and this checkout may lie in ours.
    utils = "plugins/module_utils"
    carried = deployed.path("/srv/carried/ansible_collections/ebpf/fleet") / utils
    shutil.copytree(Path(__file__).resolve().parents[2] / utils, carried, dirs_exist_ok=True)
    after = json.loads(deployed.must(f"PYTHONPATH=/srv/carried python3 -c {json.dumps(script)}"))
    seen = after["end"]["witness"]["loader"]
    assert (seen["main_pid"], seen["pids"], seen["programs"], seen["main"]) == (0, [], [], None)
    assert "no main process" in seen["why"]["main"]
    restart(deployed)
