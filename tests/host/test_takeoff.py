# SPDX-License-Identifier: GPL-3.0-or-later
"""A foreign agent under real systemd is taken off a host, proved off, and put back; its neighbour runs on.

Through the playbook over SSH once; the module's own work, which is the same, in a process on the host.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import foreignagent
from tests.support.foreignagent import NETNS, PLACE, xdp_id
from tests.support.syshost import SysHost

ROOT = Path(__file__).resolve().parents[2]
AGENT, UNIT = "net-agent", "unit=net-agent.service"
RECORD = "/var/lib/ebpf-fleet/foreign/unit.net-agent.service.json"
# As the module does it. With a number it is killed at that change of the record, before or after the step.
ASK = """
import json, os, signal, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import host, store, target

scope, state, check, pins, die_at = sys.argv[1], sys.argv[2], sys.argv[3] == "1", sys.argv[4] == "1", int(sys.argv[5])
writes = [0]
write = store.Store.write


def counted(self, record):
    write(self, record)
    writes[0] += 1
    if writes[0] == die_at:
        os.kill(os.getpid(), signal.SIGKILL)


store.Store.write = counted
wish = host.Wish(target.parse(scope), "test", pins, check, 10)
try:
    print(json.dumps(host.release(wish) if state == "released" else host.take_off(wish)))
except FleetError as error:
    print(json.dumps({"fault": error.as_line()}))
"""


def ask(
    host: SysHost, scope: str, state: str = "engaged", check: bool = False, pins: bool = False, die_at: int = 0
) -> Any:
    command = f"PYTHONPATH={PLACE} python3 {PLACE}/ask.py '{scope}' {state} {int(check)} {int(pins)} {die_at}"
    ran = host.run(command)
    if die_at and ran.rc in (137, -9):
        return None
    assert ran.rc == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def agents(syshost: SysHost) -> Iterator[SysHost]:
    foreignagent.install(syshost)
    syshost.path(f"{PLACE}/ask.py").write_text(ASK)
    foreignagent.start(syshost, AGENT, "va", 7)
    foreignagent.start(syshost, "other-agent", "vb", 8)
    yield syshost


def unit(host: SysHost, name: str = f"{AGENT}.service") -> dict[str, str]:
    said = host.must(f"systemctl show -p ActiveState,UnitFileState,LoadState {name}")
    return dict(line.split("=", 1) for line in said.splitlines())


RUNS = {"ActiveState": "active", "UnitFileState": "enabled", "LoadState": "loaded"}


def await_runs(host: SysHost) -> None:
    # One that began in the test before may only now say that it is ready.
    host.must(f"systemctl stop {AGENT}")
    host.path(f"/run/{AGENT}.ready").unlink(missing_ok=True)
    host.must(f"systemctl start {AGENT}")
    foreignagent.await_ready(host, AGENT)


def neighbour(host: SysHost) -> tuple[Any, ...]:
    """What must not change: the other agent's process, unit and program."""
    pid = host.must("systemctl show -p MainPID other-agent.service")
    return unit(host, "other-agent.service"), pid, xdp_id(host, "vb")


def play(folder: Path, host: SysHost, *options: str) -> tuple[int, str]:
    hosts = {"all": {"hosts": {"h1": host.ssh}}}
    (folder / "hosts.json").write_text(json.dumps(hosts))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "ebpf.fleet.takeoff", "-i", "hosts.json", *options],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_LOCALHOST_WARNING": "false", "PWD": str(folder), "XDG_STATE_HOME": str(folder / "state")},
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_pages_commands_take_an_agent_off_prove_it_and_put_it_back(agents: SysHost, tmp_path: Path) -> None:
    before, kept = neighbour(agents), xdp_id(agents, "va")
    assert kept is not None
    page = (ROOT / "docs/foreign-programs.md").read_text(encoding="utf-8")
    typed = [line.split("ebpf.fleet.takeoff ")[1] for line in page.split("```")[1].strip().splitlines()]
    check, do, release = (shlex.split(line) for line in typed)

    status, said = play(tmp_path, agents, *check)
    assert status == 0, said
    assert f"stop unit {AGENT}.service (active, enabled)" in said and "xdp:va (generic)" in said
    assert "-e confirm=takeoff-unit=net-agent.service -e 'reason=" in said
    assert unit(agents) == RUNS and not agents.path(RECORD).exists()

    status, said = play(tmp_path, agents, *do, "-e", "ebpf_fleet_report=report.json")
    assert status == 0, said
    assert "off, by the kernel's own word: 1" in said and "-e state=released -e confirm=release" in said
    found = json.loads((tmp_path / "report.json").read_text())["hosts"]["h1"]
    assert found["status"] == "off" and found["left"] == [] and found["record"] == RECORD
    assert not [line for line in found["told"] if "other-agent" in line]
    assert xdp_id(agents, "va") is None and unit(agents)["LoadState"] == "masked"
    assert unit(agents)["ActiveState"] in ("inactive", "failed") and neighbour(agents) == before
    assert agents.path(RECORD).stat().st_mode & 0o777 == 0o600
    assert json.loads(agents.path(RECORD).read_text())["reason"] == "WHY"

    status, said = play(tmp_path, agents, *release)
    assert status == 0 and "put back: 1" in said, said
    foreignagent.await_ready(agents, AGENT)
    assert unit(agents) == RUNS and xdp_id(agents, "va") is not None and neighbour(agents) == before
    assert not agents.path(RECORD).exists() and agents.path(f"{RECORD.replace('/unit', '/released/unit')}").exists()
    assert agents.must("ls /sys/fs/bpf/ebpf-fleet").strip() == ""


def test_what_outlived_the_unit_is_put_back_before_the_unit_is_started(agents: SysHost) -> None:
    await_runs(agents)
    kept = xdp_id(agents, "va")
    # The unit was stopped already, so that only what it left is to be taken off, by its tag.
    agents.must(f"systemctl stop {AGENT}")
    tag = json.loads(agents.must(f"bpftool -j prog show id {kept}"))["tag"]
    found = ask(agents, f"program={tag}")["takeoff"]
    assert (found["status"], xdp_id(agents, "va")) == ("off", None)
    assert [line for line in found["done"] if "stop unit" in line] == []
    found = ask(agents, f"program={tag}", "released")["takeoff"]
    assert (found["status"], xdp_id(agents, "va")) == ("released", kept)
    agents.must(f"systemctl start {AGENT}")


def test_a_second_run_proves_it_again_and_changes_nothing(agents: SysHost) -> None:
    await_runs(agents)
    assert ask(agents, UNIT)["takeoff"]["status"] == "off"
    record = agents.path(RECORD).read_text()
    again = ask(agents, UNIT)
    assert (again["changed"], again["takeoff"]["status"], again["takeoff"]["plan"]) == (False, "off", [])
    assert json.loads(agents.path(RECORD).read_text())["steps"] == json.loads(record)["steps"]
    assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released" and unit(agents) == RUNS


@pytest.mark.slow
def test_a_place_that_is_taken_is_not_forced_and_the_record_stays(agents: SysHost) -> None:
    await_runs(agents)
    assert ask(agents, UNIT)["takeoff"]["status"] == "off"
    other = f"nsenter --net=/run/netns/{NETNS} ip link set va xdpgeneric"
    pin = f"mkdir -p /sys/fs/bpf/x && bpftool prog pin id {xdp_id(agents, 'vb')} /sys/fs/bpf/x/p"
    agents.must(f"{pin} && {other} pinned /sys/fs/bpf/x/p")
    taken = xdp_id(agents, "va")
    # What the agent itself does when it starts is its own; here only what this puts back is asked about.
    agents.path(f"{PLACE}/agent.py").write_text("import time; time.sleep(100000)")
    try:
        found = ask(agents, UNIT, "released")["takeoff"]
        assert found["status"] == "released_in_part" and "the place is taken" in found["left"][0]
        assert xdp_id(agents, "va") == taken and agents.path(RECORD).exists() and unit(agents) == RUNS
        agents.must(f"{other} off && rm -r /sys/fs/bpf/x")
        found = ask(agents, UNIT, "released")["takeoff"]
        assert found["status"] == "released" and xdp_id(agents, "va") not in (None, taken)
    finally:
        agents.path(f"{PLACE}/agent.py").write_text(foreignagent.PROGRAM)


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.sample(2)
def test_a_run_that_is_killed_is_gone_on_with_and_put_back_whole(agents: SysHost, at: int) -> None:
    """kill -9 at a change of the record; the steps are keep, stop, mask and detach."""
    await_runs(agents)
    kept = xdp_id(agents, "va")
    assert ask(agents, UNIT, die_at=at) is None
    assert agents.path(RECORD).exists()
    found = ask(agents, UNIT)["takeoff"]
    assert (found["status"], xdp_id(agents, "va")) == ("off", None) and unit(agents)["LoadState"] == "masked"
    agents.path(f"{PLACE}/agent.py").write_text("import time; time.sleep(100000)")
    try:
        assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released"
        assert xdp_id(agents, "va") == kept and unit(agents) == RUNS
    finally:
        agents.path(f"{PLACE}/agent.py").write_text(foreignagent.PROGRAM)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 5))
def test_a_release_that_is_killed_is_gone_on_with(agents: SysHost, at: int) -> None:
    """kill -9 at a change of the record: attached again, unmasked, started, let go."""
    await_runs(agents)
    kept = xdp_id(agents, "va")
    assert ask(agents, UNIT)["takeoff"]["status"] == "off"
    agents.path(f"{PLACE}/agent.py").write_text("import time; time.sleep(100000)")
    try:
        assert ask(agents, UNIT, "released", die_at=at) is None
        assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released"
        assert xdp_id(agents, "va") == kept and unit(agents) == RUNS
        assert agents.must("ls /sys/fs/bpf/ebpf-fleet").strip() == "" and not agents.path(RECORD).exists()
    finally:
        agents.path(f"{PLACE}/agent.py").write_text(foreignagent.PROGRAM)


@pytest.mark.slow
def test_a_run_that_is_killed_before_anything_is_done_can_be_taken_back(agents: SysHost) -> None:
    await_runs(agents)
    kept = xdp_id(agents, "va")
    assert ask(agents, UNIT, die_at=1) is None
    assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released"
    assert (xdp_id(agents, "va"), unit(agents)) == (kept, RUNS)


@pytest.mark.slow
def test_a_tag_takes_the_unit_with_it_that_holds_its_programs_and_leaves_that_of_another(agents: SysHost) -> None:
    await_runs(agents)
    kept, before = xdp_id(agents, "va"), neighbour(agents)
    tag = json.loads(agents.must(f"bpftool -j prog show id {kept}"))["tag"]
    planned = ask(agents, f"program={tag}", check=True)["takeoff"]["plan"]
    assert f"stop unit {AGENT}.service (active, enabled)" in planned and not [one for one in planned if "other" in one]
    assert ask(agents, f"program={tag}")["takeoff"]["status"] == "off"
    assert (xdp_id(agents, "va"), unit(agents)["LoadState"], neighbour(agents)) == (None, "masked", before)
    assert ask(agents, f"program={tag}", "released")["takeoff"]["status"] == "released"
    assert unit(agents) == RUNS and xdp_id(agents, "va") is not None and neighbour(agents) == before


@pytest.mark.slow
def test_a_unit_in_etc_is_masked_before_its_own_file(agents: SysHost) -> None:
    foreignagent.start(agents, "etc-agent", "vb", 9, "/etc/systemd/system")
    found = ask(agents, "unit=etc-agent.service")["takeoff"]
    assert found["status"] == "off", found
    assert unit(agents, "etc-agent.service")["LoadState"] == "masked"
    assert agents.run("systemctl start etc-agent").rc != 0
    assert agents.path("/etc/systemd/system/etc-agent.service").is_file()
    assert ask(agents, "unit=etc-agent.service", "released")["takeoff"]["status"] == "released"
    assert unit(agents, "etc-agent.service") == RUNS
    agents.must("systemctl disable --now --quiet etc-agent && rm /etc/systemd/system/etc-agent.service")
    agents.must("systemctl restart other-agent")


@pytest.mark.slow
def test_a_unit_that_was_masked_before_stays_masked(agents: SysHost) -> None:
    await_runs(agents)
    link = agents.path(f"/etc/systemd/system/{AGENT}.service")
    link.symlink_to("/dev/null")
    agents.must("systemctl daemon-reload")
    assert ask(agents, UNIT)["takeoff"]["status"] == "off"
    found = ask(agents, UNIT, "released")["takeoff"]
    assert found["status"] == "released_in_part" and "start unit" in found["left"][0]
    assert os.readlink(link) == "/dev/null"
    link.unlink()
    agents.must("systemctl daemon-reload")
    assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released" and unit(agents) == RUNS


@pytest.mark.slow
def test_a_unit_made_at_run_time_and_a_holder_in_a_scope_are_told_as_what_is_not_started_again(agents: SysHost) -> None:
    index = foreignagent.ifindex(agents, "va")
    run = f"env PYTHONPATH={PLACE} python3 {PLACE}/agent.py"
    agents.must(f"systemctl stop {AGENT}")
    for name, more in (("run-agent", ""), ("hand-agent", "--scope")):
        enter = f"nsenter --net=/run/netns/{NETNS} {run} {name} {index} 11"
        end = " >/dev/null 2>&1 &" if more else ""
        agents.must(f"systemd-run --quiet {more} --unit={name} {enter}{end}")
        foreignagent.await_ready(agents, name)
        unit_name = f"{name}.{'scope' if more else 'service'}"
        found = ask(agents, f"unit={unit_name}")["takeoff"]
        assert (found["status"], xdp_id(agents, "va")) == ("off", None), found
        done = "end process" if more else f"stop unit {unit_name} (active, transient)"
        assert [line for line in found["done"] if done in line], found
        assert agents.run(f"systemctl is-active {unit_name}").rc != 0
        found = ask(agents, f"unit={unit_name}", "released")["takeoff"]
        words = "cannot be started by this" if more else "was made at run time and ended with its stop"
        assert found["status"] == "released" and words in found["told"][0], found
        assert [one["points"] for one in found["programs"] if one["type"] == "xdp"] == [["xdp:va"]]
        agents.must(f"ip -n {NETNS} link set va xdpgeneric off")
    agents.must(f"systemctl start {AGENT}")


@pytest.mark.slow
def test_a_unit_that_does_not_stop_is_killed_with_its_cgroup(agents: SysHost) -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN)\n" + foreignagent.PROGRAM
    await_runs(agents)
    agents.path(f"{PLACE}/agent.py").write_text(stubborn)
    agents.must(f"mkdir -p /run/systemd/system/{AGENT}.service.d && printf '[Service]\nTimeoutStopSec=infinity\n'"
                f" >/run/systemd/system/{AGENT}.service.d/stay.conf && systemctl daemon-reload")  # fmt: skip
    await_runs(agents)
    try:
        found = ask(agents, UNIT)["takeoff"]
        assert (found["status"], xdp_id(agents, "va")) == ("off", None), found
        assert unit(agents)["ActiveState"] in ("inactive", "failed")
    finally:
        agents.path(f"{PLACE}/agent.py").write_text(foreignagent.PROGRAM)
        agents.must(f"rm -r /run/systemd/system/{AGENT}.service.d")
    assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released"


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("unit=net-agnet.service", "EF_TAKEOFF_ABSENT: this host has no unit net-agnet.service"),
        ("unit=syshost-ssh.service", "EF_TAKEOFF_ABSENT: syshost-ssh.service is a unit of this host"),
        ("program=0123456789abcdef", "EF_TAKEOFF_ABSENT: no program of tag 0123456789abcdef"),
        ("unit=init.scope", "EF_TAKEOFF_PROTECTED: init.scope"),
        ("unit=systemd-journald.service", "EF_TAKEOFF_PROTECTED"),
        ("unit=ebpf-fleet-loader.service", "EF_TAKEOFF_PROTECTED"),
    ],
)
def test_what_is_not_there_or_protected_is_refused_and_nothing_is_written(
    agents: SysHost, scope: str, words: str
) -> None:
    assert words in ask(agents, scope)["fault"]
    assert ask(agents, scope, "released")["fault"].startswith("EF_TAKEOFF_ABSENT: ")
    assert not list(agents.path("/var/lib/ebpf-fleet/foreign").glob("*.json"))


def test_the_unit_in_which_it_runs_is_refused(agents: SysHost) -> None:
    name = "own-run.service"
    command = f"PYTHONPATH={PLACE} python3 {PLACE}/ask.py unit={name} engaged 0 0 0"
    ran = agents.run(f"systemd-run --quiet --pipe --wait --unit={name} sh -c '{command}'")
    assert "EF_TAKEOFF_PROTECTED" in ran.stdout and "this very command runs" in ran.stdout, ran.stderr


def walls(host: SysHost) -> list[tuple[int, str, str]]:
    """(id, hook, name) of the programs that systemd has at the cgroup of a unit."""
    (tree,) = json.loads(host.must("bpftool -j cgroup tree /sys/fs/cgroup/system.slice/walled.service"))
    return [(one["id"], one["attach_type"], one["name"]) for one in tree["programs"]]


def test_systemds_own_programs_go_by_their_tag_alone_and_systemd_is_never_ended(agents: SysHost) -> None:
    agents.must("systemd-run --quiet --unit=walled -p IPAddressDeny=any sleep 1000")
    before = walls(agents)
    assert len(before) >= 2
    await_runs(agents)
    assert ask(agents, UNIT)["takeoff"]["status"] == "off"
    # With ids of their own: systemd attaches them again whenever it reads its units.
    assert [one[1:] for one in walls(agents)] == [one[1:] for one in before]
    assert ask(agents, UNIT, "released")["takeoff"]["status"] == "released"
    tag = json.loads(agents.must(f"bpftool -j prog show id {walls(agents)[0][0]}"))["tag"]
    planned = ask(agents, f"program={tag}", check=True)["takeoff"]
    assert "process 1 (systemd) keeps the host up or reachable: it is never ended" in "\n".join(planned["plan"])
    assert not [line for line in planned["plan"] if line.startswith(("stop", "end", "mask"))]
    agents.must("systemctl stop walled")


def test_a_record_that_cannot_be_used_changes_nothing(agents: SysHost) -> None:
    await_runs(agents)
    agents.path(RECORD).parent.mkdir(parents=True, exist_ok=True)
    agents.path(RECORD).write_text("{}")
    try:
        assert ask(agents, UNIT)["fault"].startswith(f"EF_TAKEOFF_RECORD: {RECORD}")
        assert unit(agents) == RUNS
    finally:
        agents.path(RECORD).unlink()


def test_a_full_disk_changes_nothing(agents: SysHost) -> None:
    await_runs(agents)
    agents.must("mkdir -p /var/lib/ebpf-fleet/foreign && mount -t tmpfs -o size=4k tmpfs /var/lib/ebpf-fleet/foreign")
    try:
        agents.must("head -c 4096 /dev/zero >/var/lib/ebpf-fleet/foreign/full")
        assert ask(agents, UNIT)["fault"].startswith("EF_DISK_FULL: ")
        assert unit(agents) == RUNS
    finally:
        agents.must("umount /var/lib/ebpf-fleet/foreign")
