# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a bundle under the loader in a guest while its wall clock jumps, and print what was seen.

    python3 clock_jumps.py LOADER BUNDLE SIGNERS ROUNDS

Runs as root, beside driver.py, in a folder of its own that it removes; the clock is put right at the end. Python 3.8,
standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from driver import Run, perf_events_allowed

JUMPS_SECONDS = (3600, -7200, 3600, 86400, -86400, -1, 1)
EXECS = 25


def fresh(run: Run) -> dict[str, Any]:
    """A status that was written after this call, by the clock that does not jump."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return run.wait("a new status", lambda status: status["boottime_ns"] > now)


def turn(run: Run, jump: int) -> dict[str, Any]:
    """Jump, start programs, and see what the loader says; the statuses of before, between and after."""
    before = fresh(run)
    time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() + jump * 10**9)
    behind = fresh(run)
    for _ in range(EXECS):
        subprocess.run(["true"], check=True)
    return {"jump": jump, "statuses": [before, behind, fresh(run)], "wall_ns": time.time_ns()}


def observe(run: Run, rounds: int) -> dict[str, Any]:
    run.wait("the compatibility event", lambda status: bool(status["compatibility"]))
    started, wall = time.monotonic_ns(), time.time_ns()
    turns: list[dict[str, Any]] = []
    try:
        for jump in JUMPS_SECONDS * rounds:
            turns.append(turn(run, jump))
    finally:
        time.clock_settime_ns(time.CLOCK_REALTIME, wall + time.monotonic_ns() - started)
    (run.run / "kill.d" / "global").touch()
    off = run.wait("off", lambda status: status["state"] == "killed")
    return {"turns": turns, "off": off, "events": run.events(), "execs": EXECS}


def main(loader: str, bundle: str, signers: str, rounds: str) -> None:
    with perf_events_allowed(), tempfile.TemporaryDirectory(prefix="ef-clock-") as folder:
        run = Run(loader, bundle, signers, Path(folder))
        try:
            print(json.dumps(observe(run, int(rounds))))
        finally:
            if run.process.poll() is None:
                run.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
