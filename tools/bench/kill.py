# SPDX-License-Identifier: GPL-3.0-or-later
"""Off: from a kill order to the last program gone, beside bpftrace's end by a signal, on a busy machine."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from tools.bench.machine import say, still_loaded, wait_until
from tools.bench.ours import Ours, release_feature
from tools.bench.report import Result, result
from tools.bench.runqlat import bpftrace_script
from tools.bench.tracers import Lines, Tracer, start

ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_KILLS", "10"))
BUSY = 3  # shells that start programs without a pause, on two cores: nobody gets one at once
PEER = "bpftrace runqlat.bt, SIGINT"


@contextmanager
def busy_machine() -> Iterator[None]:
    """Shells that start one program after the other, ended at the end."""
    shells = [subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for each in shells:
            each.kill()
            each.wait()


def milliseconds_to_off(tracer: Tracer, off: Callable[[], object]) -> float:
    """From the call of `off` until none of the tracer's programs is in the kernel."""
    ids = tracer.programs.ids()
    if not ids:
        raise SystemExit(f"bench: {tracer.name} holds no program to turn off")
    since = time.perf_counter()
    off()
    wait_until(lambda: not still_loaded(ids), f"{tracer.name} is off", pause=0.001)
    return (time.perf_counter() - since) * 1e3


def ours_off(folder: Path) -> tuple[list[float], list[float]]:
    """ms of each order from its file to the last program gone, and as the loader tells it: from seen to detached."""
    with tempfile.TemporaryDirectory(dir=folder) as text:
        tracer = Ours("ours", Path(text), release_feature("runqlat"))
        try:
            wait_until(tracer.attached, "ours attaches", seconds=60)
            took = []
            for _round in range(ROUNDS):
                tracer.service.wait_state("runqlat", "attached")
                took.append(milliseconds_to_off(tracer, lambda: tracer.service.order("global")))
                (tracer.service.run / "kill.d" / "global").unlink()
            wait_until(lambda: len(tracer.service.kill_times_us()) == ROUNDS, "each kill is in the journal")
            return took, [each / 1e3 for each in tracer.service.kill_times_us()]
        finally:
            tracer.end()


def peer_off(folder: Path) -> list[float]:
    """ms from the signal to the last program gone."""
    return [_one_peer(folder / f"peer-{number}") for number in range(ROUNDS)]


def _one_peer(place: Path) -> float:
    command = ("bpftrace", "-e", bpftrace_script())
    tracer = start(lambda: Lines("runqlat.bt", command, place, "Tracing", b"["))
    try:
        wait_until(lambda: bool(tracer.programs.ids()), "runqlat.bt holds its programs")
        return milliseconds_to_off(tracer, lambda: tracer.process.send_signal(signal.SIGINT))
    finally:
        tracer.end()


def kill() -> Iterator[Result]:
    """Ten orders to ours and ten signals to the peer, while the machine is busy."""
    with tempfile.TemporaryDirectory() as text, busy_machine():
        say(f"{ROUNDS} kill orders")
        ours, inside = ours_off(Path(text))
        say(f"{ROUNDS} signals to the peer")
        theirs = peer_off(Path(text))
    yield result("off under load: from the order to the last program gone", "ms", ours, PEER, theirs)
    yield result("off under load: the slowest of them", "ms", [max(ours)], PEER, [max(theirs)])
    yield result("off under load: within the loader, order seen to detached", "ms", inside, "", [])
