# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace host is what the tests of this suite take it for, and nothing of it stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.host import hostile
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost, SysHostError, cgroup2

ROOT = Path(__file__).resolve().parents[2]


def test_real_systemd_is_the_first_process(syshost: SysHost) -> None:
    assert syshost.must("cat /proc/1/comm") == "systemd\n"
    assert syshost.must("systemctl is-system-running --wait") == "running\n"
    assert "Journal started" in syshost.must("journalctl --no-pager -u systemd-journald")


def test_release_is_attached_in_the_real_unit(deployed: SysHost, first: Release) -> None:
    found = status(deployed)
    assert (found["state"], found["bundle"]["digest"]) == ("running", first.digest)
    assert sorted(one["name"] for one in our_programs()) == [
        "ef_exec",
        "ef_rql_switch",
        "ef_rql_wake_new",
        "ef_rql_wakeup",
    ]
    pid = found["pid"]
    assert deployed.must(f"cat /proc/{pid}/cgroup").endswith(f"0::/system.slice/{hostile.UNIT}\n")
    fields = dict(line.split(":\t", 1) for line in deployed.must(f"cat /proc/{pid}/status").splitlines())
    assert fields["Uid"].split()[0] == deployed.must("id -u ebpf-fleet").strip()
    assert fields["CapEff"] == "000000c000000000"  # CAP_PERFMON and CAP_BPF, the third is dropped
    assert fields["NoNewPrivs"] == "1"
    # The unit's own mounts: it sees no kernel symbols and cannot write where root keeps the orders.
    assert deployed.run(f"nsenter -t {pid} -m test -s /proc/kallsyms").rc != 0
    assert "ro" in deployed.must(f"nsenter -t {pid} -m findmnt -no OPTIONS /").strip().split(",")


def test_a_second_run_of_the_roles_changes_nothing(deployed: SysHost, sysfleet: SysFleet, first: Release) -> None:
    played = sysfleet.try_deploy(first)
    assert played.rc == 0 and "changed=0" in played.text, played.text


def test_this_machine_is_not_written_to(syshost: SysHost) -> None:
    syshost.must("touch /etc/only-on-the-host /usr/only-on-the-host; userdel games")
    assert not Path("/etc/only-on-the-host").exists() and not Path("/usr/only-on-the-host").exists()
    assert syshost.run("echo 1 >/proc/sys/kernel/sysrq").rc != 0
    assert syshost.run("echo 1 >/sys/kernel/profiling").rc != 0
    assert "games" in Path("/etc/passwd").read_text()


def test_stop_leaves_nothing_also_with_processes_that_ignore_signals(can_boot: None) -> None:
    host = SysHost.boot()
    try:
        host.must("trap '' TERM INT HUP; setsid sleep 1234567 >/dev/null 2>&1 & sleep 0.2")
        assert sleepers(), "nothing ran that could have stayed"
    finally:
        host.stop()
    host.stop()
    assert not sleepers()
    assert not host.folder.exists() and not host.cgroup.exists()
    assert str(host.folder) not in Path("/proc/self/mounts").read_text()


def sleepers() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"1234567" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_host_dies_with_the_test_that_made_it(can_boot: None) -> None:
    code = (
        "import os; from tests.support.syshost import SysHost; h = SysHost.boot(); "
        "print(h.pid_of_init, h.cgroup, h.folder, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == -9, done.stderr
    pid, cgroup, folder = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.1)
    # Empty folders are what it could not remove.
    subprocess.run(["find", cgroup, "-depth", "-type", "d", "-delete"], check=False)
    shutil.rmtree(folder)


def test_a_host_that_does_not_boot_says_what_it_printed(can_boot: None, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Path(__file__).with_name("no-such-boot-script.sh")
    monkeypatch.setattr("tests.support.syshost.BOOT_SCRIPT", broken)
    with pytest.raises(SysHostError, match="ended while it booted.*no-such-boot-script"):
        SysHost.boot()
    root = cgroup2()
    assert root is not None and not list(root.glob(f"syshost-{os.getpid()}-*-*"))
