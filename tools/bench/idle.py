# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs when nothing happens: a minute without an event, and a minute of a host with every feature."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Iterator, NamedTuple

from tests.loader.features.rounds import NAMES
from tools.bench.events import CALLS
from tools.bench.machine import Load, build_generator, say, wait_until
from tools.bench.ours import Ours, calls_feature, release_feature
from tools.bench.report import Result, result
from tools.bench.tracers import Tracer, bpftrace, start

SECONDS = int(os.environ.get("EBPF_FLEET_BENCH_IDLE_SECONDS", "60"))
INTERVAL = 5  # seconds, the unit's
NOTES: list[str] = []


class Quiet(Ours):
    """Ours with the interval that the unit has; the other benchmarks ask for its figures more often."""

    def start(self) -> None:
        self.service.interval = INTERVAL
        super().start()


class Whole(Quiet):
    """Ours with every released feature, of which this kernel may not have what some need."""

    def attached(self) -> bool:
        status = self.service.status()
        return bool(self.service.alive() and status and status["compatibility"])

    def states(self) -> dict[str, str]:
        """State by feature."""
        return {name: each["state"] for name, each in self.service.now()["features"].items()}


class Idle(NamedTuple):
    """What one tracer cost meanwhile."""

    cpu_percent: float
    bpf_percent: float | None
    now: int
    beyond_rings: int


def watch(tracers: list[Tracer], seconds: float) -> list[Idle]:
    """Leave them alone for a while."""
    before = [(each.cpu_ns(), each.programs.ran()) for each in tracers]
    since = time.perf_counter()
    time.sleep(seconds)
    after = [(each.cpu_ns(), each.programs.ran()) for each in tracers]
    took = (time.perf_counter() - since) * 1e9
    return [_idle(each, one, two, took) for each, one, two in zip(tracers, before, after)]


def _idle(
    tracer: Tracer, before: tuple[int, tuple[int, int] | None], after: tuple[int, tuple[int, int] | None], took: float
) -> Idle:
    ran, was = after[1], before[1]
    bpf = 100 * (ran[0] - was[0]) / took if ran and was else None
    memory = tracer.usage()
    return Idle(100 * (after[0] - before[0]) / took, bpf, memory.now, memory.beyond_rings)


def idle() -> Iterator[Result]:
    """Ours with a feature whose process is silent, ours with all that is released, and bpftrace silent too, at once."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        load = Load(build_generator(folder))
        tracers: list[Tracer] = []
        try:
            silent = {**calls_feature(folder, load.pid), **release_feature("runqlat")}
            tracers.append(start(lambda: Quiet("ours", folder / "ours", silent)))
            tracers.append(start(lambda: bpftrace(CALLS % load.pid, folder / "peer")))
            whole = Whole("ours", folder / "whole", release_feature(*NAMES))
            tracers.append(whole)
            wait_until(whole.attached, "every feature was tried", seconds=60)
            time.sleep(2)
            ours, peer, all_of_ours = watch(tracers, SECONDS)
            _note(whole.states())
        finally:
            for each in tracers:
                each.end()
            load.end()
    yield from _results("idle, a silent event and runqlat", ours, peer)
    yield from _results("idle, every released feature", all_of_ours, peer)


def _note(states: dict[str, str]) -> None:
    lacking = [name for name, state in states.items() if state != "attached"]
    text = f"`every released feature`: {len(states) - len(lacking)} of {len(states)} are attached"
    NOTES.append(text + (f"; this kernel cannot run {', '.join(lacking)}." if lacking else "."))
    say(NOTES[-1])


def _results(label: str, ours: Idle, peer: Idle) -> Iterator[Result]:
    which = "bpftrace, the silent event"
    yield result(f"{label}: CPU of the process", "% of a core", [ours.cpu_percent], which, [peer.cpu_percent])
    for what, attribute in (("resident memory", "now"), ("resident memory beyond rings", "beyond_rings")):
        mine, other = (getattr(each, attribute) / 1048576 for each in (ours, peer))
        yield result(f"{label}: {what}", "MiB", [mine], which, [other])
