# SPDX-License-Identifier: GPL-3.0-or-later
"""A compromised loader in the place of ours, and what the kernel says of it, told by nothing of ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.kill.script import MARK, command, render

from tests.support.sysfleet import our_programs
from tests.support.syshost import Ran, SysHost

UNIT = "ebpf-fleet-loader.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/evil.conf"
INSTALLED = "/var/lib/ebpf-fleet/evil/ebpf-loader"
WAS_HERE = "/var/log/ebpf-fleet/evil-was-here"
DEADLINE = 10
# What the promise allows beyond the deadline, and what the test itself may take to notice.
EXTRA = 5
GIVE_UP = DEADLINE + EXTRA + 5.0
NOT_ROOT = 65534


class Killed(NamedTuple):
    """What the kill script answered, and how long it took; `answer` is None when it did not answer in time."""

    answer: dict[str, Any] | None
    seconds: float
    text: str


def script(state: str = "engaged") -> str:
    """The kill script as the playbook renders it."""
    return str(command(render(["global"], state, deadline_seconds=DEADLINE)))


def kill(host: SysHost, ssh: bool = False) -> Killed:
    """Run the kill script on the host as root, by the real ssh if asked; never wait for ever."""
    started = time.monotonic()
    try:
        ran = host.over_ssh(script(), GIVE_UP) if ssh else host.run(script(), GIVE_UP)
    except subprocess.TimeoutExpired:
        return Killed(None, time.monotonic() - started, f"no answer within {GIVE_UP:.0f} s")
    return Killed(read_answer(ran), ran.seconds, ran.stdout[-2000:] + ran.stderr[-2000:])


def read_answer(ran: Ran) -> dict[str, Any] | None:
    """The answer in what the script printed, read without our own parser."""
    lines = [line for line in ran.stdout.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        return None
    answer: dict[str, Any] = json.loads(lines[0][len(MARK) :])
    assert answer["ok"] is (ran.rc == 0), f"exit status {ran.rc} with {answer}"
    return answer


def names() -> list[str]:
    """Names of all our programs in the kernel that the hosts share, by bpftool."""
    return sorted(str(one["name"]) for one in our_programs())


def release(host: SysHost) -> None:
    """Take all orders back."""
    host.must("rm -f /run/ebpf-fleet/kill.d/* /etc/ebpf-fleet/kill.d/*")


def install(host: SysHost, binary: Path, trick: str, argument: str = "") -> None:
    """Let the real unit run the hostile program, everything else of the unit as it is; returns when it is attached."""
    place = host.path(INSTALLED)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        shutil.copy(binary, place)
    drop_in = host.path(DROP_IN)
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={INSTALLED} run {trick} {argument}\n")
    host.must(f"rm -f {WAS_HERE}; systemctl daemon-reload; systemctl reset-failed {UNIT}; systemctl restart {UNIT}")
    wait_for(lambda: "ef_evil" in names(), 10, f"{trick} is not attached")


def remove(host: SysHost) -> None:
    """Whatever a test left: the unit is stopped for good, its processes are killed, its drop-in and orders go."""
    host.run(f"rm -rf {DROP_IN} {WAS_HERE}", 60)
    # Before systemd is asked for anything: while a storm of processes lives it may not answer.
    kill_rest(host)
    host.run("systemctl daemon-reload", 60)
    kill_rest(host)
    host.run(f"systemctl kill -s KILL {UNIT}; systemctl stop {UNIT}; systemctl reset-failed {UNIT}", 60)
    release(host)


def unit_cgroup(host: SysHost) -> Path:
    """The unit's cgroup, from outside of the host."""
    return host.cgroup / "system.slice" / UNIT


def kill_rest(host: SysHost) -> None:
    """End what is left in the unit's cgroup, from outside of the host."""
    deadline = time.monotonic() + 10
    while members(host) and time.monotonic() < deadline:
        (unit_cgroup(host) / "cgroup.kill").write_text("1")
        time.sleep(0.05)


def members(host: SysHost) -> list[int]:
    """Pids on this machine of everything in the unit's cgroup, zombies aside."""
    try:
        return [int(pid) for pid in (unit_cgroup(host) / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def hostile_processes(host: SysHost) -> list[str]:
    """Processes of the loader's user on the host that are not the real loader, by /proc and not by name."""
    uid = host.must("id -u ebpf-fleet").strip()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status = (process / "status").read_text()
            group = (process / "cgroup").read_text()
        except OSError:
            continue
        of_host = f"/{host.cgroup.name}/" in group
        fields = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.M))
        if of_host and fields["Uid"] == uid and not _is_real(process):
            found.append(f"{fields['Pid']} {fields['Name']} {fields['State']}")
    return found


def _is_real(process: Path) -> bool:
    try:
        return "/releases/" in str((process / "exe").readlink())
    except OSError:
        return False


def wait_for(condition: Any, seconds: float, otherwise: str) -> None:
    """Wait until a condition holds, or fail with what that means."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


class Other:
    """A process of another user on the host, outside of the unit, by whatever name. Ends with the context."""

    def __init__(self, host: SysHost, binary: Path, *arguments: str, name: str = "ebpf-loader") -> None:
        host.run("rm -rf /run/other")
        place = host.path(f"/run/other/{name}")
        place.parent.mkdir(exist_ok=True)
        place.parent.chmod(0o1777)
        if not place.exists():
            shutil.copy(binary, place)
        words = " ".join(shlex.quote(word) for word in arguments)
        as_user = f"setpriv --reuid={NOT_ROOT} --regid={NOT_ROOT} --clear-groups /run/other/{name} {words}"
        self.host = host
        self.process = subprocess.Popen(
            host.enter("/bin/sh", "-c", f"ulimit -n $(ulimit -Hn); exec {as_user}"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def family(self) -> list[int]:
        """Pids on this machine of it and its children."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                group, link = (process / "cgroup").read_text(), str((process / "exe").readlink())
            except OSError:
                continue
            if f"/{self.host.cgroup.name}/" in group and "/run/other/" in link:
                found.append(int(process.name))
        return found

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_why: object) -> None:
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
