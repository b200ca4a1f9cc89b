# SPDX-License-Identifier: GPL-3.0-or-later
"""A tracer as the benchmarks see it: started, asked what arrived, and stopped. Runs in a guest too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from tools.bench.machine import TRACER_CPU, Programs, Usage, cpu_ns, on_cpu, usage, wait_until

# Limits that no benchmark reaches: it measures the path, not the budget.
POLICY = {
    "schema": "ebpf.fleet/policy/v1",
    "host": {"cpu_millicores": 1000, "event_rate_per_second": 100000000, "drop_ratio_ppm": 1000000},
}


class Tracer:
    """A process that traces."""

    name = "?"
    process: subprocess.Popen[bytes]
    started: float

    def delivered(self) -> int:
        """Events that arrived so far, by what it wrote."""
        raise NotImplementedError

    def attached(self) -> bool:
        """Does it say that it traces?"""
        raise NotImplementedError

    @property
    def programs(self) -> Programs:
        return Programs(self.process.pid)

    def cpu_ns(self) -> int:
        return cpu_ns(self.process.pid)

    def usage(self) -> Usage:
        return usage(self.process.pid)

    def settle(self) -> int:
        """What arrived, once nothing more comes; the pause is longer than any of them buffers."""
        before, now = -1, self.delivered()
        while now != before:
            time.sleep(0.4)
            before, now = now, self.delivered()
        return now

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lines(Tracer):
    """A peer that writes a line an event into a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, ready: str, marker: bytes) -> None:
        self.name, self.ready, self.marker = name, ready, marker
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.at, self.count = folder / "out", 0, 0
        self.started = time.perf_counter()
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(on_cpu(TRACER_CPU, command), stdout=out, stderr=subprocess.STDOUT)

    def attached(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"bench: {self.name} ended: {self.out.read_text()[-500:]}")
        return self.ready in self.out.read_text(errors="replace")

    def delivered(self) -> int:
        with self.out.open("rb") as file:
            file.seek(self.at)
            while block := file.read(1 << 20):
                whole = block[: block.rfind(b"\n") + 1]
                if not whole:
                    break
                self.count += whole.count(self.marker)
                self.at += len(whole)
                file.seek(self.at)
        return self.count


def says_attached(status: Mapping[str, Any] | None) -> bool:
    """Does the loader's status say that all it was asked for is attached?"""
    if not status or not status["compatibility"]:
        return False
    for name, each in status["features"].items():
        if each["state"] != "attached":
            raise SystemExit(f"bench: {name} is {each['state']}: {each['reason']}")
    return True


def start(make: Callable[[], Tracer]) -> Tracer:
    """A tracer that says it traces."""
    tracer = make()
    wait_until(tracer.attached, f"{tracer.name} attaches", seconds=60)
    return tracer


def bpftrace(script: str, folder: Path, marker: bytes = b"E ", buffer: int | None = None) -> Lines:
    """bpftrace with a script; a line of an event begins with E. `buffer` is each CPU's, by default its own 256 KiB."""
    script = 'BEGIN { printf("READY\\n"); } ' + script
    pages = [f"BPFTRACE_PERF_RB_PAGES={buffer // os.sysconf('SC_PAGE_SIZE')}"] if buffer else []
    return Lines("bpftrace", ("env", *pages, "bpftrace", "-e", script), folder, "READY", marker)
