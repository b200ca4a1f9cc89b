"""runqlat: what a context switch costs under ours, libbpf-tools' and bpftrace's, and how soon they measure."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

from tools.bench_machine import Load, wait_until
from tools.bench_report import Result, measured, result
from tools.bench_tracers import Lines, Ours, Tracer, release_feature

ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_EVENT_ROUNDS", "3"))
SWITCHES_MS = 1500


class Cost(NamedTuple):
    """One round of one tracer."""

    ns_per_run: float | None
    ns_per_switch: float | None
    seconds_until_first_run: float
    peak_bytes: int
    cpu_ns_per_second: float


def bpftrace_script() -> str:
    """bpftrace's own runqlat.bt; its header, of which it needs one constant, is not on every machine."""
    path = shutil.which("runqlat.bt")
    if path is None:
        raise SystemExit("bench: there is no runqlat.bt; Debian's package bpftrace has it")
    text = re.sub(r"^#!.*$|^#include.*$", "", Path(path).read_text(), flags=re.M)
    return text.replace("TASK_RUNNING", "0")


def cost(make: Callable[[], Tracer], load: Load) -> Cost:
    """Start it under a host that switches all the time, and measure a while of it."""
    tracer = make()
    try:
        programs = tracer.programs
        wait_until(programs.one_ran, f"{tracer.name} measures", seconds=60)
        first = time.perf_counter() - tracer.started
        wait_until(tracer.attached, f"{tracer.name} attaches", seconds=60)
        before, cpu = programs.ran(), tracer.cpu_ns()
        made, seconds = load.do(f"switches {SWITCHES_MS}")
        after, spent = programs.ran(), tracer.cpu_ns() - cpu
        peak = tracer.usage().peak
    finally:
        tracer.end()
    if not before or not after or after[1] == before[1]:
        return Cost(None, None, first, peak, spent / seconds)
    time_ns, runs = after[0] - before[0], after[1] - before[1]
    return Cost(time_ns / runs, time_ns / made, first, peak, spent / seconds)


def runqlat() -> Iterator[Result]:
    """The three in turns, on the same load."""
    with tempfile.TemporaryDirectory() as text:
        folder, found = Path(text), {}
        load = Load(folder)
        feature, script = release_feature("runqlat"), bpftrace_script()
        makers: dict[str, Callable[[Path], Tracer]] = {
            "ours": lambda place: Ours("ours", place, feature),
            "libbpf-tools runqlat": lambda place: Lines("runqlat", ("runqlat", "1"), place, "Tracing", b"->"),
            "bpftrace runqlat.bt": lambda place: Lines(
                "runqlat.bt", ("bpftrace", "-e", script), place, "Tracing", b"["
            ),
        }
        try:
            for number in range(ROUNDS):
                for name, make in makers.items():
                    place = folder / f"{name.replace(' ', '-')}-{number}"
                    found.setdefault(name, []).append(cost(lambda m=make, p=place: m(p), load))
        finally:
            load.end()
    for peer in (name for name in found if name != "ours"):
        yield from _results(found["ours"], peer, found[peer])


def _results(ours: list[Cost], peer: str, theirs: list[Cost]) -> Iterator[Result]:
    for what, unit, attribute, scale in (
        ("runqlat: BPF run time per program run", "ns", "ns_per_run", 1),
        ("runqlat: BPF run time per context switch of the load", "ns", "ns_per_switch", 1),
        ("runqlat: start until the first program ran", "s", "seconds_until_first_run", 1),
        ("runqlat: peak resident memory", "MiB", "peak_bytes", 1 / 1048576),
        ("runqlat: CPU of the process", "millicores", "cpu_ns_per_second", 1e-6),
    ):
        mine, other = (
            [each * scale for each in measured([getattr(one, attribute) for one in rounds])]
            for rounds in (ours, theirs)
        )
        yield result(what, unit, mine, peer, other)
