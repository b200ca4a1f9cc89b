# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tracer of context switches costs. Runs in a guest too: Python's standard library and carried files only."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple

from tools.bench.machine import Load, wait_until
from tools.bench.tracers import Tracer

SWITCHES_MS = 1500


class Cost(NamedTuple):
    """One round of one tracer."""

    ns_per_run: float | None
    ns_per_switch: float | None
    seconds_until_first_run: float
    peak_bytes: int
    cpu_ns_per_second: float


def cost(make: Callable[[], Tracer], load: Load, patience: float = 60, pause: float = 0.002) -> Cost:
    """Start it under a host that switches all the time, and measure a while of it.

    `patience` is what a start may take; every `pause` it is looked at, which costs a slow host some of its start.
    """
    tracer = make()
    try:
        programs = tracer.programs
        wait_until(programs.one_ran, f"{tracer.name} measures", patience, pause)
        first = time.perf_counter() - tracer.started
        wait_until(tracer.attached, f"{tracer.name} attaches", patience, pause)
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
