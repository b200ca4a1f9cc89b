# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks measure with on this machine: processes, BPF programs, load, and what it is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from tests.support.play import ROOT

if str(ROOT / "collections") not in sys.path:
    sys.path.append(str(ROOT / "collections"))

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import loaded

LOAD = ROOT / "tools/bench/load"
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
PEERS = {"bpftrace": "bpftrace", "clush": "clustershell", "execsnoop": "libbpf-tools", "runqlat": "libbpf-tools"}
CPUS = sorted(os.sched_getaffinity(0))
LOAD_CPU, TRACER_CPU = CPUS[0], CPUS[-1]


def say(text: str) -> None:
    """A word on what is done, aside from the results."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def make_ready() -> None:
    """The peers' packages and tracefs; what is changed is said."""
    missing = sorted({package for command, package in PEERS.items() if not shutil.which(command)})
    if missing:
        say(f"installs the peers: apt-get install {' '.join(missing)}")
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", "-qq", *command], check=True, stdout=subprocess.DEVNULL, env=quiet)
    if not Path("/sys/kernel/tracing/events").is_dir():
        say("mounts tracefs, which the peers need, at /sys/kernel/tracing")
        subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=True)


@contextmanager
def statistics_on() -> Iterator[None]:
    """The kernel counts the run time of all programs, ours and the peers', meanwhile."""
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        yield
    finally:
        STATS.write_text(before)


def machine() -> str:
    """This machine by its traits."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return ", ".join(
        [
            f"{len(CPUS)} cores, {model.group(1).strip() if model else 'unknown processor'}",
            "a virtual machine" if "hypervisor" in cpuinfo else "no hypervisor seen",
            f"kernel {'.'.join(platform.release().split('.')[:2])} ({platform.machine()})",
            f"governor {governor.read_text().strip() if governor.exists() else 'unknown'}",
        ]
    )


class Programs:
    """The BPF programs that a process holds by descriptor: its own, whatever else this machine runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def ids(self) -> set[int]:
        """Their numbers, as the kernel tells them of each descriptor."""
        texts = map(_text_of, Path(f"/proc/{self.pid}/fdinfo").glob("*"))
        return {int(number) for text in texts for number in re.findall(r"^prog_id:\s*(\d+)$", text, re.M)}

    def all(self) -> list[dict[str, Any]]:
        """Them, with the kernel's count of their runs."""
        mine = self.ids()
        return [each for each in _programs() if each["id"] in mine]

    def ran(self) -> tuple[int, int] | None:
        """Run time in ns and the runs, over all of them; None where it holds none by descriptor."""
        found = self.all()
        if not found:
            return None
        return sum(each["run_time_ns"] for each in found), sum(each["run_cnt"] for each in found)

    def one_ran(self) -> bool:
        """Did one run since its attachment? What runs at the peer's own start does not count.

        Asked all the time while a tracer starts: the kernel's list is not read before there is something in it.
        """
        return bool(self.ids()) and any(each["run_cnt"] for each in self.all() if each["name"] != "BEGIN")


def still_loaded(ids: set[int]) -> set[int]:
    """Those of these programs that the kernel has."""
    return ids & {each["id"] for each in _programs()}


def _programs() -> list[dict[str, Any]]:
    listed = loaded.read_loaded(stats_on=True)
    if listed["programs"] is None:
        raise SystemExit(f"bench: programs cannot be listed: {listed['evidence']}; run it as root")
    return list(listed["programs"])


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # closed meanwhile


class Usage(NamedTuple):
    """A process's memory in bytes: the greatest so far, now, and now without BPF's buffers."""

    peak: int
    now: int
    beyond_rings: int


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, as its scheduler counts it: exact, unlike ticks."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in stats)


def usage(pid: int) -> Usage:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = {key: int(kib) * 1024 for key, kib in re.findall(r"^(Vm\w+):\s+(\d+) kB$", status, re.M)}
    return Usage(found["VmHWM"], found["VmRSS"], beyond_rings(Path(f"/proc/{pid}/smaps").read_text()))


def beyond_rings(smaps: str) -> int:
    """Resident bytes of an smaps text in what is neither a BPF map nor a perf buffer."""
    total, counts = 0, True
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = not re.search(r"anon_inode:(bpf-map|\[?perf_event)", line)
        elif line.startswith("Rss:") and counts:
            total += int(line.split()[1]) * 1024
    return total


def build_generator(folder: Path) -> Path:
    """The load's program; static, so that a guest of another userland runs it too."""
    binary = folder / "generator"
    command = ["gcc", "-static", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(binary)]
    subprocess.run([*command, str(LOAD / "generator.c")], check=True)
    return binary


class Load:
    """The load's process; its pid is known before it is told to work."""

    def __init__(self, binary: Path) -> None:
        pinned = ["taskset", "-c", str(LOAD_CPU), str(binary)]
        self.process = subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit("bench: the load's process does not start; see its message above")

    @property
    def pid(self) -> int:
        return self.process.pid

    def do(self, task: str) -> tuple[int, float]:
        """Have a task done; how many it made, and in how many seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 3:
            raise SystemExit(f"bench: the load's process ended at the task {task!r}")
        return int(answer[1]), int(answer[2]) / 1e9

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0, pause: float = 0.002) -> None:
    """Wait until it is so, or end the benchmark with what did not come."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit(f"bench: {what}: not within {seconds} s")
        time.sleep(pause)


def on_cpu(cpu: int, command: Sequence[str]) -> list[str]:
    """The command, kept on one CPU."""
    return ["taskset", "-c", str(cpu), *command]
