"""What it costs when nothing happens: a minute with everything attached and no event."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Iterator

from tools.bench_events import CALLS
from tools.bench_machine import Load
from tools.bench_report import Result, result
from tools.bench_tracers import Ours, bpftrace, calls_feature, release_feature, start

SECONDS = int(os.environ.get("EBPF_FLEET_BENCH_IDLE_SECONDS", "60"))
INTERVAL = 5  # seconds, the unit's


class Quiet(Ours):
    """Ours with the interval that the unit has; the other benchmarks ask for its figures more often."""

    def start(self) -> None:
        self.service.interval = INTERVAL
        super().start()


def idle() -> Iterator[Result]:
    """Ours with an events feature whose process is silent and runqlat, beside bpftrace with the same event, at once."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        load = Load(folder)
        features = {**calls_feature(folder, load.pid), **release_feature("runqlat")}
        tracers = [start(lambda: Quiet("ours", folder / "ours", features))]
        try:
            tracers.append(start(lambda: bpftrace(CALLS % load.pid, folder / "peer")))
            time.sleep(2)
            before, since = [each.cpu_ns() for each in tracers], time.perf_counter()
            time.sleep(SECONDS)
            took = time.perf_counter() - since
            shares = [100 * (each.cpu_ns() - was) / 1e9 / took for each, was in zip(tracers, before)]
            memory = [each.usage() for each in tracers]
        finally:
            for each in tracers:
                each.end()
            load.end()
    yield result("idle: CPU", "% of a core", shares[:1], "bpftrace", shares[1:])
    for what, attribute in (("resident memory", "now"), ("resident memory beyond rings", "beyond_rings")):
        mine, other = (getattr(each, attribute) / 1048576 for each in memory)
        yield result(f"idle: {what}", "MiB", [mine], "bpftrace", [other])
