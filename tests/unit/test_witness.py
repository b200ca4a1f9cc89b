# SPDX-License-Identifier: GPL-3.0-or-later
"""Root's own view: the parsers on real formats, bounds, and what cannot be seen staying null with its reason."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import witness
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.witness import Unit, UnseenError

STAT = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 {} {} {} {} 20 0 2 0 500 1000 {} 18446744073709551615\n"
PROC = Path("/proc")


def unit(**more: object) -> Unit:
    given = {"name": "ours", "main_pid": None, "cgroup": None, "exe": Path("/bin/sh"), **more}
    return Unit(**given)  # type: ignore[arg-type]


def test_stat_is_read_past_a_name_that_looks_like_fields() -> None:
    assert witness.parse_stat(STAT.format(1, 2, 3, 4, 5), 100, 4096) == {
        "state": "S",
        "cpu_ns": 30_000_000,
        "children_cpu_ns": 70_000_000,
        "started_boottime_ns": 5_000_000_000,
        "rss_bytes": 20_480,
    }


@pytest.mark.parametrize("text", ["", "7 (a) S", "7 (a) S x" + " 1" * 40, "no"])
def test_what_is_no_stat_is_null(text: str) -> None:
    assert witness.parse_stat(text, 100, 4096) is None


def test_this_process_is_seen_as_it_is() -> None:
    me = unit(main_pid=os.getpid(), pids=(os.getpid(),), exe=Path(sys.executable))
    seen = witness.read_unit_witness(Path("/"), me)
    main = seen["main"]
    assert main["state"] == "R" and main["uids"] == [os.getuid()] * 4
    assert main["exe"] == os.path.realpath(sys.executable) and main["exe_is_installed"] is True
    assert abs(main["cpu_ns"] - time.process_time_ns()) < 1_000_000_000
    assert seen["cpu_source"] == "processes" and seen["rss_bytes"] > 1 << 20
    assert "memory_bytes" in seen["why"]


def test_a_stopped_process_and_a_zombie_are_told_apart_from_one_that_runs() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        assert witness.read_process(PROC, child.pid)["state"] == "T"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert witness.read_process(PROC, child.pid)["state"] == "Z"
        with pytest.raises(UnseenError, match="has ended"):
            witness.read_programs(PROC, [child.pid])
    finally:
        child.kill()
        child.wait()
    with pytest.raises(UnseenError, match="is not there"):
        witness.read_programs(PROC, [child.pid])


def test_a_unit_that_does_not_run_has_no_processes_and_one_without_a_cgroup_is_unseen() -> None:
    stopped = witness.read_unit_witness(Path("/"), unit(main_pid=0))
    assert (stopped["pids"], stopped["programs"], stopped["main"]) == ([], [], None)
    assert stopped["why"]["main"] == "ours has no main process"
    lost = witness.read_unit_witness(Path("/"), unit(main_pid=1, cgroup="/no/such.service"))
    assert (lost["pids"], lost["programs"], lost["cpu_ns"]) == (None, None, None)
    assert "there is no cgroup /no/such.service" in lost["why"]["pids"]


def test_a_whole_view_is_of_both_units_and_says_what_could_not_be_seen(tmp_path: Path) -> None:
    ours, theirs = unit(main_pid=0), unit(main_pid=0, name="theirs")
    found = witness.read_witness(tmp_path, ours, theirs, 5)
    assert {name: found[name] for name in ("boottime_ns", "boot_id", "installed_digest")} == {
        "boottime_ns": 5, "boot_id": None, "installed_digest": None}  # fmt: skip
    assert set(found) == {"boottime_ns", "boot_id", "installed_digest", "loader", "collector", "why"}
    assert (found["loader"]["unit"], found["collector"]["unit"]) == ("ours", "theirs")
    manifest = tmp_path / "var/lib/ebpf-fleet/current/bundle/manifest.json"
    boot_id = tmp_path / "proc/sys/kernel/random/boot_id"
    assert found["why"] == {"boot_id": f"{boot_id}: is not there", "installed_digest": f"{manifest}: is not there"}
    for path, data in ((manifest, b"{}\n"), (boot_id, b"a-b-c\n")):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    assert witness.read_witness(tmp_path, None, None, 7) == {
        "boottime_ns": 7, "boot_id": "a-b-c", "loader": None, "collector": None, "why": {},
        "installed_digest": hashlib.sha256(b"{}\n").hexdigest(),
    }  # fmt: skip
    manifest.unlink()
    manifest.mkdir()
    unread = witness.read_witness(tmp_path, None, None, 7)
    assert unread["installed_digest"] is None and str(manifest) in unread["why"]["installed_digest"]
    assert "NoneType" not in unread["why"]["installed_digest"] and "is not there" not in str(unread["why"])
    assert witness.read_witness(tmp_path, ours, None, 7)["collector"] is None
    assert witness.read_witness(tmp_path, None, theirs, 7)["loader"] is None


@pytest.mark.parametrize("path", ["/", "/../../etc", ""])
def test_a_cgroup_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UnseenError, match="names no cgroup"):
        witness.cgroup_folder(Path("/"), unit(main_pid=1, cgroup=path))


class TestLayouts:
    """The three layouts of cgroups as folders; the numbers are those of the files."""

    def test_version_2(self, tmp_path: Path) -> None:
        folder = tmp_path / "sys/fs/cgroup/system.slice/a.service"
        (folder / "below").mkdir(parents=True)
        (folder / "cgroup.procs").write_text("12\n7\n")
        (folder / "below/cgroup.procs").write_text("40\n")
        (folder / "cpu.stat").write_text("usage_usec 1234\nuser_usec 1000\n")
        (folder / "memory.current").write_text("8192\n")
        one = unit(main_pid=7, cgroup="/system.slice/a.service")
        assert witness.unit_pids(tmp_path, one) == [7, 12, 40]
        assert witness.read_cpu(tmp_path, one, []) == (1_234_000, "cgroup")
        assert witness.read_memory(tmp_path, one) == 8192

    def test_version_1(self, tmp_path: Path) -> None:
        one = unit(main_pid=7, cgroup="/a.service")
        for controller, name, text in (
            ("systemd", "cgroup.procs", "7\n"), ("cpu,cpuacct", "cpuacct.usage", "99\n"),
            ("memory", "memory.usage_in_bytes", "4096\n"),
        ):  # fmt: skip
            folder = tmp_path / "sys/fs/cgroup" / controller / "a.service"
            folder.mkdir(parents=True)
            (folder / name).write_text(text)
        assert witness.unit_pids(tmp_path, one) == [7]
        assert witness.read_cpu(tmp_path, one, []) == (99, "cpuacct")
        assert witness.read_memory(tmp_path, one) == 4096

    def test_too_many_processes_are_unseen(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.procs").write_text("\n".join(map(str, range(1, 100))))
        with pytest.raises(UnseenError, match="more than 64 processes"):
            witness.cgroup_pids(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF: needs root")
class TestPrograms:
    """A real program in this kernel, held in ways that a hostile process may choose."""

    @pytest.fixture
    def program(self) -> Iterator[int]:
        fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=1))
        yield fd
        os.close(fd)

    def test_a_descriptor_is_seen_with_name_and_type(self, program: int) -> None:
        found = witness.read_programs(PROC, [os.getpid()])["programs"]
        assert [(one["name"], one["type"], one["links"]) for one in found] == [("probe", "socket_filter", [])]
        assert all(isinstance(one["run_cnt"], int) for one in found)

    def test_a_thread_with_a_table_of_its_own_hides_nothing(self, program: int) -> None:
        """The thread keeps the descriptor; the process's leader has closed it."""
        script = (
            "import ctypes, os, sys, threading, time; libc = ctypes.CDLL(None); started = threading.Event();\n"
            "def hold():\n    libc.unshare(0x400); started.set(); time.sleep(60)\n"
            "threading.Thread(target=hold, daemon=True).start(); started.wait(); os.close(int(sys.argv[1]));\n"
            "print('ready', flush=True); time.sleep(60)\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(program)], pass_fds=[program], stdout=subprocess.PIPE
        )
        try:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            assert not os.path.exists(f"/proc/{child.pid}/fd/{program}")
            assert len(witness.read_programs(PROC, [child.pid])["programs"]) == 1
        finally:
            child.kill()
            child.wait()

    def test_a_bomb_of_descriptors_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(witness, "DESCRIPTORS_LIMIT", 200)
        fds = [os.open("/dev/null", os.O_RDONLY) for _one in range(300)]
        try:
            with pytest.raises(UnseenError, match="stopped after 200 descriptors"):
                witness.holdings(PROC, [os.getpid()])
        finally:
            for fd in fds:
                os.close(fd)


def test_threads_that_come_and_go_while_they_are_read_are_no_error() -> None:
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            threading.Thread(target=lambda: None).start()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _turn in range(50):
            witness.holdings(PROC, [os.getpid()])
    finally:
        ended.set()
        thread.join()
