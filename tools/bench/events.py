# SPDX-License-Identifier: GPL-3.0-or-later
"""The event path: the same events through ours and the peers, from a trickle to more than they can take."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from tools.bench.machine import Load, build_generator, say
from tools.bench.ours import Ours, calls_feature, release_feature
from tools.bench.report import Point, Result, curve, lossless, measured, result
from tools.bench.tracers import Lines, Tracer, bpftrace, start

# Events a second; 0: as fast as the calling core goes.
RATES = (10000, 100000, 200000, 400000, 1000000, 0)
LARGE = (200000, 400000, 1000000, 0)  # with LARGE_BYTES of buffer: what a stall of the consumer costs is not a loss
LARGE_BYTES = 4 << 20
CLIMB = (25000, 50000, 100000, 200000, 0)  # calls a second, of RECORDS each
STEP_MS = 1000
RECORDS = 8  # of one call, for rates that one core cannot call for
EXECS = 1000
ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_EVENT_ROUNDS", "3"))
CALLS = 'tracepoint:syscalls:sys_enter_getppid /pid == %d/ { printf("E %%llu %%d %%d %%s\\n", nsecs, pid, tid, comm); }'
EXEC = (
    'tracepoint:sched:sched_process_exec { printf("E %llu %d %d %d %s %s\\n", '
    "nsecs, pid, curtask->real_parent->tgid, uid, comm, str(args->filename)); }"
)


class Round(NamedTuple):
    """What one tracer did in one round."""

    points: list[Point]
    peak_bytes: int
    beyond_rings_bytes: int


def nothing() -> None:
    """What most tracers need to write out what they hold."""


def one_step(
    tracer: Tracer, load: Load, task: str, delivered: int, records: int = 1, push: Callable[[], None] = nothing
) -> Point:
    """Do one task under a tracer at rest, of which so many events arrived before, and account for it."""
    programs = tracer.programs
    cpu, before = tracer.cpu_ns(), programs.ran()
    made, seconds = load.do(task)
    push()
    arrived = tracer.settle() - delivered
    spent, after = tracer.cpu_ns() - cpu, programs.ran()
    bpf = after[0] - before[0] if after and before else None
    return Point(made * records, arrived, seconds, spent, bpf)


def one_round(
    make: Callable[[], Tracer],
    load: Load,
    tasks: list[str],
    records: int = 1,
    push: Callable[[], None] = nothing,
) -> Round:
    """A tracer's round: start it, climb, look at its memory, end it."""
    tracer = start(make)
    points: list[Point] = []
    try:
        base = delivered = tracer.settle()
        for task in tasks:
            points.append(one_step(tracer, load, task, delivered, records, push))
            delivered = base + sum(each.delivered for each in points)
        memory = tracer.usage()
    finally:
        tracer.end()
    return Round(points, memory.peak, memory.beyond_rings)


def rounds_of(
    makers: dict[str, Callable[[Path], Tracer]],
    folder: Path,
    load: Load,
    tasks: list[str],
    records: int = 1,
    push: Callable[[], None] = nothing,
) -> dict[str, list[Round]]:
    """All rounds; who begins changes, as the machine's pace does."""
    found: dict[str, list[Round]] = {name: [] for name in makers}
    for number in range(ROUNDS):
        names = list(makers)[number % len(makers) :] + list(makers)[: number % len(makers)]
        for name in names:
            say(f"round {number + 1} of {ROUNDS}: {name}")
            place = folder / f"{name.replace(' ', '-')}-{records}-{number}"
            found[name].append(one_round(lambda n=name, p=place: makers[n](p), load, tasks, records, push))
    return found


def saturation() -> Iterator[Result]:
    """Rate offered against delivered, and what it costs; the curves go to the report."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        load = Load(build_generator(folder))
        try:
            tasks = [f"calls {rate} {STEP_MS}" for rate in RATES]
            one, many = calls_feature(folder, load.pid), calls_feature(folder, load.pid, RECORDS)
            makers: dict[str, Callable[[Path], Tracer]] = {
                "ours jsonl": lambda place: Ours("ours jsonl", place, one),
                "ours count": lambda place: Ours("ours count", place, one, "count"),
                "bpftrace": lambda place: bpftrace(CALLS % load.pid, place),
            }
            found = rounds_of(makers, folder, load, tasks)
            climb: dict[str, Callable[[Path], Tracer]] = {
                f"ours {kind} x{RECORDS}": lambda place, kind=kind: Ours(kind, place, many, kind)
                for kind in ("jsonl", "count")
            }
            found.update(rounds_of(climb, folder, load, [f"calls {rate} {STEP_MS}" for rate in CLIMB], RECORDS))
            roomy = calls_feature(folder, load.pid, ring=LARGE_BYTES)
            large: dict[str, Callable[[Path], Tracer]] = {
                "ours count 4 MiB": lambda place: Ours("ours count 4 MiB", place, roomy, "count"),
                "bpftrace 4 MiB": lambda place: bpftrace(CALLS % load.pid, place, buffer=LARGE_BYTES),
            }
            found.update(rounds_of(large, folder, load, [f"calls {rate} {STEP_MS}" for rate in LARGE]))
        finally:
            load.end()
    CURVES.update({name: curve([each.points for each in rounds]) for name, rounds in found.items()})
    yield from _saturation_results(found)


CURVES: dict[str, list[dict[str, float | None]]] = {}


def _saturation_results(found: dict[str, list[Round]]) -> Iterator[Result]:
    points = {name: [each.points for each in rounds] for name, rounds in found.items()}
    theirs = points["bpftrace"]
    for name in (each for each in found if not each.startswith("bpftrace")):
        peer = "bpftrace 4 MiB" if name.endswith("4 MiB") else "bpftrace"
        label = f"greatest rate without loss, {name}"
        yield result(label, "events/s", lossless(points[name]), peer, lossless(points[peer]))
    for name in ("ours jsonl", "ours count"):
        for rate in (10000, 100000):
            yield from _at_rate(f"{name} at {rate} offered/s", points[name], theirs, RATES.index(rate))
        yield _memory(f"peak resident memory, {name}", found[name], found["bpftrace"], "peak_bytes")
        yield _memory(f"resident memory beyond rings, {name}", found[name], found["bpftrace"], "beyond_rings_bytes")


def _at_rate(label: str, ours: list[list[Point]], theirs: list[list[Point]], step: int) -> Iterator[Result]:
    def of(rounds: list[list[Point]], attribute: str) -> list[float]:
        return measured([getattr(points[step], attribute) for points in rounds])

    for what, attribute in (("consumer CPU", "cpu_per_event"), ("BPF run time", "bpf_per_event")):
        yield result(f"{what} per event, {label}", "ns", of(ours, attribute), "bpftrace", of(theirs, attribute))
    delivered = ([100 * p[step].delivered / p[step].offered for p in rounds] for rounds in (ours, theirs))
    mine, other = delivered
    yield result(f"delivered, {label}", "%", mine, "bpftrace", other)


def _memory(label: str, ours: list[Round], theirs: list[Round], attribute: str) -> Result:
    mine, other = ([getattr(each, attribute) / 1048576 for each in rounds] for rounds in (ours, theirs))
    return result(label, "MiB", mine, "bpftrace", other)


class Execs(Ours):
    """Ours, asked for the records of one program in its file: other programs are started here too."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.marker = str(program).encode()
        super().__init__("ours", folder, release_feature("exec_events"))

    def settle(self) -> int:
        self.counters()
        return self.service.events_path.read_bytes().count(self.marker) if self.service.events_path.exists() else 0


NUDGES = 200  # lines of execsnoop: more than its output's buffer holds


def nudge() -> None:
    """Start programs that are not counted: execsnoop writes its lines out when its buffer is full, and not before."""
    for _ in range(NUDGES):
        subprocess.run(["/bin/true"], check=True)


class Snoop(Lines):
    """libbpf-tools' execsnoop, whose header is the first thing that a full buffer writes out."""

    def attached(self) -> bool:
        if self.programs.ids():
            nudge()
        return super().attached()


def execs() -> Iterator[Result]:
    """Programs that are started, told by ours, by bpftrace and by libbpf-tools' execsnoop."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        program = Path(shutil.copy("/bin/true", folder / "true"))
        marker = str(program).encode()
        snoop = ("execsnoop", "-T", "-U")
        makers: dict[str, Callable[[Path], Tracer]] = {
            "ours": lambda place: Execs(place, program),
            "bpftrace": lambda place: bpftrace(EXEC, place, marker),
            "execsnoop": lambda place: Snoop("execsnoop", snoop, place, "PCOMM", marker),
        }
        load = Load(build_generator(folder))
        try:
            found = rounds_of(makers, folder, load, [f"execs {EXECS} {program}"], push=nudge)
        finally:
            load.end()
    for peer in ("bpftrace", "execsnoop"):
        yield from _exec_results(found["ours"], peer, found[peer])


def _exec_results(ours: list[Round], peer: str, theirs: list[Round]) -> Iterator[Result]:
    label = peer if peer == "bpftrace" else "libbpf-tools execsnoop"

    def of(rounds: list[Round], value: Callable[[Point], Any]) -> list[float]:
        return measured([value(point) for each in rounds for point in each.points])

    for what, unit, value in (
        ("exec: delivered", "%", lambda point: 100 * point.delivered / point.offered),
        ("exec: consumer CPU per event", "ns", lambda point: point.cpu_per_event),
        ("exec: BPF run time per exec", "ns", lambda point: point.bpf_per_event),
    ):
        yield result(what, unit, of(ours, value), label, of(theirs, value))
    points = [[each.points for each in rounds] for rounds in (ours, theirs)]
    yield result("exec: rate without loss, of one caller", "events/s", lossless(points[0]), label, lossless(points[1]))
    for what, attribute in (
        ("peak resident memory", "peak_bytes"),
        ("resident memory beyond rings", "beyond_rings_bytes"),
    ):
        mine, other = ([getattr(each, attribute) / 1048576 for each in rounds] for rounds in (ours, theirs))
        yield result(f"exec: {what}", "MiB", mine, label, other)
