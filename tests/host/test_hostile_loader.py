# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill against a compromised loader's user: it ends it in time, whatever it does, and tells the truth.

Each trick runs in the real unit, with the loader's user, capabilities and sandbox (evil.c). The
judge is bpftool and /proc, never our own code.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import hostile
from tests.host.hostile import DEADLINE, EXTRA, Killed, Other
from tests.support.sysfleet import our_programs
from tests.support.syshost import SysHost

TRICKS = {
    "deaf": "ignores SIGTERM and orders",
    "list_fifo": "the list of programs is a FIFO",
    "list_zero": "the list of programs is a link to /dev/zero",
    "list_giant": "the list of programs has 64 GiB",
    "list_odd": "the list has a million lines of shell, escapes and formats",
    "list_frames": "the list names systemd's own programs",
    "status_fifo": "status and metrics are FIFOs",
    "status_zero": "the status is a link to /dev/zero",
    "extend": "asks systemd for an hour more, five times a second",
    "frozen": "stops itself",
    "renamed": "runs on from a memfd as [kworker/u4:1]",
    "hydra": "sessions of their own, each revives the others",
    "storm": "each process lives for microseconds",
    "leaderless": "the leader has exited, a thread holds the link",
    "vforks": "a chain of parents in uninterruptible waits",
    "unreadable": "whoever reads its arguments waits",
    "rob": "removes and renames orders without end",
    "in_flight": "the link lies only in a socket, in a ring that keeps itself",
    "store": "hands the link to systemd to keep",
    "pin": "pins the link",
    "flood_inside": "floods systemd with messages",
    "main_pid": "names other processes as its main process",
}


@pytest.fixture
def host(deployed: SysHost) -> Iterator[SysHost]:
    """The prepared host with its own loader stopped: what is attached now is a stranger's, on the shared kernel."""
    deployed.must(f"systemctl stop {hostile.UNIT}", 60)
    hostile.wait_for(lambda: not our_programs(), 20, f"programs of another run on this kernel: {our_programs()}")
    yield deployed
    hostile.remove(deployed)
    hostile.wait_for(lambda: not our_programs(), 10, f"left over: {our_programs()}")


def check_time(killed: Killed) -> None:
    """The answer came, and in time."""
    assert killed.answer is not None, killed.text
    assert killed.seconds <= DEADLINE + EXTRA, killed


def check_gone(host: SysHost, started: float) -> None:
    """The hostile processes end within the deadline and five seconds of the order."""
    seconds = max(0.5, started + DEADLINE + EXTRA - time.monotonic())
    hostile.wait_for(
        lambda: not hostile.hostile_processes(host), seconds, f"still alive: {hostile.hostile_processes(host)}"
    )


def check_truth(killed: Killed, programs: list[str]) -> None:
    """Off is said only when it is so, and when it is so it is said."""
    assert killed.answer is not None
    assert killed.answer["ok"] is (not programs), (killed.answer, programs)


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.sample(6)
def test_trick(host: SysHost, evil: Path, trick: str) -> None:
    # Asked before: systemd reaps before it answers, so a storm of processes can keep it silent for minutes.
    framed = host.must("systemctl show -P MainPID systemd-journald.service").strip()
    hostile.install(host, evil, trick)
    started = time.monotonic()
    killed = hostile.kill(host, ssh=trick in ("list_fifo", "list_odd"))
    left = hostile.names()
    check_time(killed)
    check_gone(host, started)
    check_truth(killed, left)
    assert not left, killed.answer
    # Root did nothing to anybody else, and the order still lies where it was put.
    assert host.must("systemctl show -P MainPID systemd-journald.service").strip() == framed
    assert host.must("ls /run/ebpf-fleet/kill.d") == "global\n"
    assert host.must("find /sys/fs/bpf /run /tmp -xdev -name '*ef_evil*' -o -xdev -name evil-was-root") == ""
    assert "\033" not in killed.text


@pytest.mark.slow
def test_a_loader_that_is_hostile_at_each_start_stays_off(host: SysHost, evil: Path) -> None:
    """It is started again by systemd after two seconds (Restart=): the order has to outlast that."""
    hostile.install(host, evil, "again")
    started = time.monotonic()
    killed = hostile.kill(host)
    check_time(killed)
    time.sleep(max(0.0, started + DEADLINE + EXTRA - time.monotonic()))
    assert hostile.hostile_processes(host) == []
    assert hostile.names() == []


@pytest.mark.parametrize("role", ["collude", "blind"])
def test_a_link_given_to_another_user_is_never_called_off(host: SysHost, evil: Path, role: str) -> None:
    """Root kills nobody else's process for it, and does not say that it is off."""
    with Other(host, evil, role, "/run/other/door", name="colluder") as other:
        assert other.line() == "listens\n"
        hostile.install(host, evil, "give", "/run/other/door")
        started = time.monotonic()
        killed = hostile.kill(host)
        left = hostile.names()
        check_time(killed)
        check_gone(host, started)
        assert left == ["ef_evil"]
        check_truth(killed, left)
        assert other.process.poll() is None, "root killed a process of another user"
        holders = [inside(pid) for pid in other.family()]
        if role == "collude":
            assert killed.answer is not None
            assert any(pid in killed.answer["detail"] for pid in holders), (killed.answer, holders)


def inside(pid: int) -> str:
    """A process's number in the host's own pid namespace."""
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("NSpid:"))
    return line.split()[-1]


def test_a_program_that_a_cgroup_holds_is_never_called_off(host: SysHost, evil: Path) -> None:
    hostile.install(host, evil, "stuck")
    try:
        started = time.monotonic()
        killed = hostile.kill(host)
        left = hostile.names()
        check_time(killed)
        check_gone(host, started)
        assert left == ["ef_evil_stuck"]
        check_truth(killed, left)
    finally:
        for one in our_programs():
            host.run(f"bpftool cgroup detach /sys/fs/cgroup/system.slice cgroup_device id {one['id']} multi")


def freeze_real_loader(host: SysHost) -> int:
    """Start the real loader, attached, and stop it with SIGSTOP; its pid in the host."""
    host.must(f"systemctl restart {hostile.UNIT}", 60)
    hostile.wait_for(lambda: "ef_exec" in hostile.names(), 20, "the real loader did not attach")
    pid = int(host.must(f"systemctl show -P MainPID {hostile.UNIT}"))
    host.must(f"kill -STOP {pid}")
    return pid


def test_descriptor_bomb_of_a_local_user_does_not_save_a_frozen_loader(host: SysHost, evil: Path) -> None:
    """150 processes with our name share 20,000 descriptors: whoever greps them all is late."""
    freeze_real_loader(host)
    with Other(host, evil, "bomb", "150", "20000") as bomb:
        assert int(bomb.line().split()[0]) >= 1000
        hostile.wait_for(lambda: len(bomb.family()) >= 150, 10, "the bomb has not all its processes")
        killed = hostile.kill(host)
        left = hostile.names()
        check_time(killed)
        check_truth(killed, left)
        assert not left, killed.answer
        assert killed.seconds <= DEADLINE, killed
        assert len(bomb.family()) >= 150, "root killed processes of another user"


def test_a_process_that_is_only_named_like_ours_survives(host: SysHost, evil: Path) -> None:
    freeze_real_loader(host)
    with Other(host, evil, "innocent") as innocent:
        hostile.wait_for(lambda: len(innocent.family()) == 1, 10, "it did not start")
        killed = hostile.kill(host)
        check_time(killed)
        check_truth(killed, hostile.names())
        assert killed.answer is not None and killed.answer["ok"], killed.answer
        assert innocent.process.poll() is None, "root killed a process for its name"


def test_flood_of_systemd_by_a_local_user_does_not_save_a_frozen_loader(host: SysHost, evil: Path) -> None:
    """systemd answers late or never: the kill must not need its answer."""
    freeze_real_loader(host)
    with Other(host, evil, "flood", "8", name="flooder") as flood:
        hostile.wait_for(lambda: len(flood.family()) >= 8, 10, "the flood does not run")
        killed = hostile.kill(host)
        left = hostile.names()
    check_time(killed)
    check_truth(killed, left)
    assert not left, killed.answer


def test_frozen_systemd_does_not_save_a_frozen_loader(host: SysHost) -> None:
    """A systemd that answers nothing at all is the end of that flood."""
    freeze_real_loader(host)
    os.kill(host.pid_of_init, signal.SIGSTOP)
    try:
        killed = hostile.kill(host)
        left = hostile.names()
    finally:
        os.kill(host.pid_of_init, signal.SIGCONT)
    check_time(killed)
    check_truth(killed, left)
    assert not left, killed.answer
