# SPDX-License-Identifier: GPL-3.0-or-later
"""Game days on a real host: real faults, the real loader under real systemd, and a report that is held against both.

What the report says is compared with what bpftool, systemd and the host's files say beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import drills, plan, scripts

from tests.support.play import ROOT, VENV, Played, environment
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

FEATURES = ("exec_events", "runqlat", "syscall_errors")
# So low that a fault on two busy cores exceeds it, and so high that nothing else does.
LIMITS = {
    "host": {"cpu_millicores": 200},
    "features": {"exec_events": {"event_rate_per_second": 200}, "syscall_errors": {"cpu_millicores": 25}},
}
LOADER = "ebpf-fleet-loader.service"
KILLS = "ls /run/ebpf-fleet/kill.d /etc/ebpf-fleet/kill.d"


@pytest.fixture(scope="module")
def first(sysfleet: SysFleet) -> Release:
    return sysfleet.release("1.0.0", 1, FEATURES)


@pytest.fixture(scope="module")
def deployed(syshost: SysHost, sysfleet: SysFleet, first: Release) -> SysHost:
    sysfleet.own[syshost.name] = {"ebpf_fleet_gameday": True}
    sysfleet.deploy(first, ebpf_fleet_policy=LIMITS)
    return syshost


@pytest.fixture
def host(deployed: SysHost) -> Iterator[SysHost]:
    """The host with everything attached; afterwards nothing of a game day is there, and the bundle is as it was."""
    await_attached(deployed)
    before = bundle(deployed)
    yield deployed
    assert deployed.run(f"ls {scripts.FOLDER} {scripts.UNIT_FILE} {scripts.DROP_IN}").stdout == ""
    assert bundle(deployed) == before and deployed.must(KILLS).split("\n") == [
        "/etc/ebpf-fleet/kill.d:", "", "/run/ebpf-fleet/kill.d:", ""]  # fmt: skip
    await_attached(deployed)


def await_attached(host: SysHost) -> None:
    deadline = time.monotonic() + 120
    while True:
        ran = host.run("cat /run/ebpf-fleet-loader/status.json")
        features = json.loads(ran.stdout)["features"] if ran.rc == 0 else {}
        good = [one["state"] == "attached" and one["degraded"] is None for one in features.values()]
        if len(good) == len(FEATURES) and all(good):
            return
        assert time.monotonic() < deadline, json.dumps(features) + host.run("systemctl status ebpf-fleet-*").stdout
        time.sleep(0.2)


def bundle(host: SysHost) -> str:
    return hashlib.sha256(
        host.must("cd $(readlink -f /var/lib/ebpf-fleet/current) && find . -type f | sort | xargs sha256sum").encode()
    ).hexdigest()


# Generous: two busy cores are shared with other suites, and a fault that is over before it is met would be no drill.
TIMES = {"ebpf_fleet_gameday_seconds": 150, "ebpf_fleet_gameday_off_ms": 20000}


def arguments(*names: str, **more: Any) -> dict[str, Any]:
    given = {"ebpf_fleet_gameday_drills": list(names), "confirm": plan.confirmation(names), "reason": "practice"}
    return {**given, **TIMES, **more}


def game(fleet: SysFleet, folder: Path, *names: str, **more: Any) -> tuple[Played, dict[str, Any]]:
    """How it ended, and the score of each drill."""
    path = folder / "gameday.json"
    played = fleet.play("gameday", arguments(*names, ebpf_fleet_report=str(path), **more), timeout=600)
    found = json.loads(path.read_text()) if path.exists() else {"scores": []}
    assert path.with_name("gameday.json.txt").read_text().startswith("game day of "), played.text
    return played, {one["drill"]: one for one in found["scores"]}


def passed(played: Played, score: dict[str, Any]) -> None:
    assert score["verdict"] == "pass", played.text + json.dumps(score, indent=1)
    parts = [score[name]["answer"] for name in ("detected", "degraded", "recovered")]
    assert parts == ["yes"] * 3 and score["recovered"]["ended_by"] == "success" and played.rc == 0, played.text


def test_a_tampered_bundle_is_refused_and_nothing_of_it_is_on_the_disk(
    host: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    pid = status(host)["pid"]
    played, found = game(sysfleet, tmp_path, "tampered_bundle")
    score = found["tampered_bundle"]
    passed(played, score)
    during = score["facts"]["during"]
    assert (during["active_state"], during["exit_status"], during["held"]) == ("failed", 3, 0)
    assert during["codes"]["refuse EF_FILE_DIGEST"] == 1 and status(host)["pid"] != pid
    assert "its SHA-256 is not the manifest's" in host.must("journalctl --no-pager -u ebpf-fleet-loader")


@pytest.mark.slow
def test_a_crash_loop_ends_in_a_unit_that_systemd_gives_up(host: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    played, found = game(sysfleet, tmp_path, "crash_loop")
    passed(played, found["crash_loop"])
    during = found["crash_loop"]["facts"]["during"]
    assert (during["active_state"], during["exit_status"], during["held"]) == ("failed", signal.SIGKILL, 0)
    assert during["n_restarts"] >= 5 and found["crash_loop"]["off"] is None


@pytest.mark.slow
def test_after_a_crash_loop_the_loader_comes_back_by_the_runbooks_command_alone(host: SysHost) -> None:
    """What the page says, by hand: a restart alone is refused, and behind reset-failed it is not."""
    tags = {one["tag"] for feature in status(host)["features"].values() for one in feature["programs"]}
    assert tags & {one["tag"] for one in our_programs()}
    deadline = time.monotonic() + 60
    while host.must(f"systemctl show -P ActiveState {LOADER}").strip() != "failed":
        assert time.monotonic() < deadline, host.run(f"systemctl status {LOADER}").stdout
        host.run(f"systemctl kill --kill-who=main --signal=KILL {LOADER}")
        time.sleep(0.3)
    # By tag: programs of other hosts and suites may be in this kernel too.
    assert not tags & {one["tag"] for one in our_programs()}
    assert "Start request repeated too quickly" in host.must(f"journalctl --no-pager -u {LOADER} -n 50")
    assert host.run(f"systemctl restart {LOADER}").rc != 0
    assert host.run(f"systemctl reset-failed {LOADER} && systemctl restart {LOADER}").rc == 0


@pytest.mark.slow
def test_without_btf_features_are_off_with_the_reason(host: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    played, found = game(sysfleet, tmp_path, "missing_btf")
    passed(played, found["missing_btf"])
    during = found["missing_btf"]["facts"]["during"]
    assert during["btf"] == "missing" and during["held"] == 0
    assert {one["reason_code"] for one in during["features"].values()} == {"EF_NO_BTF"}
    assert status(host)["kernel"]["btf"] == "vmlinux"


def off(score: dict[str, Any]) -> None:
    assert score["off"]["answer"] == "yes" and 0 <= score["off"]["ms"] <= score["off"]["limit_ms"], score["off"]


@pytest.mark.slow
def test_a_flood_of_events_is_thinned_and_the_feature_turned_off_in_it(
    host: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    played, found = game(sysfleet, tmp_path, "event_flood")
    passed(played, found["event_flood"])
    off(found["event_flood"])
    assert found["event_flood"]["facts"]["during"]["features"]["exec_events"]["thinned"] > 0
    assert '"event":"kill"' in host.must("cat /var/log/ebpf-fleet/audit.jsonl").replace(" ", "")


@pytest.mark.slow
def test_a_map_that_is_filled_takes_the_feature_down_and_is_emptied(
    host: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    pid = status(host)["pid"]
    played, found = game(sysfleet, tmp_path, "map_flood")
    passed(played, found["map_flood"])
    off(found["map_flood"])
    assert "degrade EF_BUDGET_MAP_FILL" in found["map_flood"]["facts"]["during"]["codes"]
    maps = status(host)["features"]["syscall_errors"]["maps"]
    assert status(host)["pid"] != pid and all((one["entries"] or 0) < 1000 for one in maps)


@pytest.mark.slow
def test_a_burn_of_cpu_takes_the_costliest_feature_down(host: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    pid = status(host)["pid"]
    played, found = game(sysfleet, tmp_path, "cpu_burn")
    score = found["cpu_burn"]
    passed(played, score)
    off(score)
    down = score["facts"]["during"]["features"][score["feature"]]
    assert down["measured"] > down["limit"] and down["why"] in ("EF_BUDGET_CPU", "EF_BUDGET_HOST_CPU")
    assert status(host)["pid"] == pid, "it comes back by itself, without a restart"


@pytest.mark.slow
def test_a_sink_that_is_full_is_counted_and_nothing_of_it_is_left(
    host: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    played, found = game(sysfleet, tmp_path, "sink_stall")
    passed(played, found["sink_stall"])
    off(found["sink_stall"])
    assert found["sink_stall"]["facts"]["during"]["features"]["exec_events"]["dropped"] > 0
    assert "tmpfs" not in host.must(f"grep /var/log/ebpf-fleet /proc/{status(host)['pid']}/mountinfo")


@pytest.mark.slow
def test_without_a_controller_the_host_ends_it_at_its_bound(host: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    played, found = game(sysfleet, tmp_path, "controller_loss", ebpf_fleet_gameday_seconds=30)
    score = found["controller_loss"]
    assert score["verdict"] == "pass" and score["recovered"]["ended_by"] == "timeout", played.text
    assert score["detected"]["after_ms"] >= 30_000


@pytest.mark.slow
def test_a_playbook_that_is_killed_leaves_a_host_that_recovers_by_itself(
    host: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    given = arguments("tampered_bundle", "missing_btf", ebpf_fleet_gameday_seconds=30)
    command = [str(VENV / "ansible-playbook"), str(ROOT / "playbooks/gameday.yml"), "-i", str(sysfleet.inventory()),
               "-e", json.dumps(given)]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True,
                          stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while host.run(f"systemctl is-active {scripts.UNIT}").stdout.strip() != "active":
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    while host.must(f"systemctl show -P ActiveState {LOADER}").strip() != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    await_attached(host)
    assert time.monotonic() - began < 60 and host.run(f"systemctl is-active {scripts.UNIT}").rc != 0
    assert host.must(f"cat {scripts.FOLDER}/ended").strip() == "timeout"
    # The next run says what is there, and does nothing; `ended` takes the record away, and then has nothing to do.
    played = sysfleet.play("gameday", arguments("crash_loop"))
    assert played.rc == 2 and "state=ended first" in " ".join(played.text.split()), played.text
    ended = sysfleet.play("gameday", {"state": "ended"})
    again = sysfleet.play("gameday", {"state": "ended"})
    assert ended.rc == 0 and "changed=1" in ended.text, ended.text
    assert again.rc == 0 and "changed=0" in again.text, again.text


ALONE = """
import json, os, signal, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import act, host

state, at = sys.argv[1:3]
die = lambda *_args: os.kill(os.getpid(), signal.SIGKILL)
if at == "before-start":
    act.start = die
elif at == "before-unit":
    act.reload = die
elif at == "between":
    host._host = die
wish = host.Wish(sys.argv[3], sys.argv[4], 40, False)
try:
    found = host.begin(wish) if state == "begun" else host.end(wish, 60)
    print(json.dumps({"changed": found["changed"], "seen": found["seen"]}))
except FleetError as error:
    print(json.dumps({"fault": error.as_line()}))
"""


def alone(
    host: SysHost, state: str, at: str = "", drill: str = "tampered_bundle", name: str = "g"
) -> tuple[int, dict[str, Any]]:
    """The module's own code on the host, killed at a moment; the host sees this machine's files."""
    path = f"PYTHONPATH={ROOT}/collections PYTHONDONTWRITEBYTECODE=1"
    host.path("/root/alone.py").write_text(ALONE)
    ran = host.run(f"{path} {sys.executable} /root/alone.py {state} '{at}' {drill} '{name}'")
    return ran.rc, json.loads(ran.stdout) if ran.stdout.strip() else {"stderr": ran.stderr}


@pytest.mark.slow
@pytest.mark.parametrize("at", ["between", "before-unit", "before-start"])
def test_a_module_that_is_killed_has_injected_nothing_and_is_gone_on_with_or_undone(host: SysHost, at: str) -> None:
    pid = status(host)["pid"]
    code, _none = alone(host, "begun", at)
    assert code != 0 and host.run(f"test -e {scripts.FOLDER}/record.json").rc == 0
    assert status(host)["pid"] == pid and host.run(f"systemctl is-active {scripts.UNIT}").rc != 0
    assert "first" in alone(host, "begun", drill="crash_loop")[1]["fault"]
    code, found = alone(host, "begun")
    assert (code, found["changed"]) == (0, True) and alone(host, "begun")[1]["changed"] is False
    assert host.run(f"systemctl is-active {scripts.UNIT}").rc == 0
    assert alone(host, "ended", name="of-another")[1] == {"changed": False, "seen": {}}
    code, found = alone(host, "ended", name="")
    assert code == 0 and found["changed"] is True and "as_before" in found["seen"], found
    assert alone(host, "ended")[1] == {"changed": False, "seen": {}}


@pytest.mark.slow
def test_what_was_killed_and_never_gone_on_with_is_undone(host: SysHost) -> None:
    assert alone(host, "begun", "before-start")[0] != 0
    code, found = alone(host, "ended")
    assert code == 0 and found["changed"] is True and "as_before" in found["seen"], found


@pytest.mark.slow
def test_a_host_on_probation_and_one_with_an_order_refuse(host: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    pid = status(host)["pid"]
    for path in ("/etc/ebpf-fleet/lease.json", "/run/ebpf-fleet/kill.d/feature.runqlat"):
        host.must(f"touch {path}")
        time.sleep(1)
        played, found = game(sysfleet, tmp_path, "tampered_bundle")
        host.must(f"rm {path}")
        await_attached(host)
        assert played.rc == 2 and found["tampered_bundle"]["verdict"] == "refused", played.text
        assert "EF_GAMEDAY_UNFIT" in found["tampered_bundle"]["why"]
    assert status(host)["pid"] == pid


def test_check_mode_says_who_would_meet_what_and_changes_nothing(host: SysHost, sysfleet: SysFleet) -> None:
    pid, kept = status(host)["pid"], host.must("ls -la /run /run/systemd/system")
    played = sysfleet.play("gameday", {"ebpf_fleet_gameday_drills": "all"}, "--check")
    said = " ".join(played.text.split())
    assert played.rc == 0 and "changed=0" in said and "not possible" not in said, played.text
    assert all(f"{host.name}: {name}: " in said for name in drills.DRILLS), said
    assert status(host)["pid"] == pid and host.must("ls -la /run /run/systemd/system") == kept
