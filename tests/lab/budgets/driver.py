# SPDX-License-Identifier: GPL-3.0-or-later
"""Exceed every budget in turn on this host while a workload measures its own latency; print what came of it.

    python3 driver.py FOLDER

FOLDER holds ebpf-loader, signers and cases.json, and for each case a bundle. Runs as root. The storm that exceeds
the budgets runs before as while, so that the difference is what the loader and its programs cost.
Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from ctypes import CDLL
from pathlib import Path
from typing import Any

FIRST_UNKNOWN_CALL = 600  # system calls that no kernel has; each fails with ENOSYS
UNKNOWN_CALLS = 40
CALLS_A_BURST = 200
BEFORE_S = 4.0  # of the workload before each case: a burst of the neighbours' must not fall into one side only
QUOTA = ("-p", "CPUQuota=20%", "-p", "CPUQuotaPeriodSec=5ms")  # the second wall, as the unit has it
ANSWERED_IN_S = 180.0
ENOUGH = 400  # requests of which a p99 is taken; in a guest that hardly runs the last step may come before


def storm() -> None:
    """Calls in bursts, at the lowest priority: a load that events come of, not one that starves the host."""
    os.nice(19)
    libc = CDLL(None)
    while True:
        for _ in range(CALLS_A_BURST):
            os.getppid()
        for number in range(UNKNOWN_CALLS):
            libc.syscall(FIRST_UNKNOWN_CALL + number)
        time.sleep(0.005)


def request(pipe: tuple[int, int]) -> int:
    """One request of the workload: some system calls, some work; how long it took, in ns."""
    begun = time.perf_counter_ns()
    for _ in range(20):
        os.write(pipe[1], b"x" * 64)
        sum(os.read(pipe[0], 64) * 4)
    return time.perf_counter_ns() - begun


def status_of(folder: Path) -> dict[str, Any]:
    path = folder / "state" / "status.json"
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def start(base: Path, folder: Path, case: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The loader, in folders of its own."""
    for name in ("etc", "run", "state", "log"):
        (folder / name).mkdir()
    wishes = {case["feature"]: {"enabled": True, "sample_every": 1}}
    desired = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": wishes}
    (folder / "etc" / "desired.json").write_text(json.dumps(desired))
    (folder / "etc" / "policy.json").write_text(json.dumps(case["policy"]))
    command = [
        "systemd-run",
        "--scope",
        "--quiet",
        *QUOTA,
        str(base / "ebpf-loader"),
        "run",
        "--bundle",
        str(base / case["name"]),
        "--interval",
        "1",
    ]
    command += ["--trust", str(base / "signers")]
    for name in ("etc", "run", "state", "log"):
        command += ["--" + name, str(folder / name)]
    with (folder / "journal").open("wb") as journal:
        return subprocess.Popen(command, stderr=journal)


def exceed(base: Path, folder: Path, case: dict[str, Any], pipe: tuple[int, int]) -> dict[str, Any]:
    """Let the workload work until the feature has come to the case's last step."""
    loader = start(base, folder, case)
    starting: list[int] = []
    latencies: list[int] = []
    found: dict[str, Any] = {}
    limit = time.monotonic() + ANSWERED_IN_S
    while time.monotonic() < limit and loader.poll() is None:
        status = status_of(folder)
        (latencies if status.get("compatibility") else starting).extend(request(pipe) for _ in range(20))
        found = status.get("features", {}).get(case["feature"], {})
        if (found.get("degraded") or {}).get("step") == case["last"] and len(latencies) >= ENOUGH:
            break
    loader.send_signal(signal.SIGTERM)
    return {
        "feature": found,
        "exit": loader.wait(timeout=ANSWERED_IN_S),
        "journal": (folder / "journal").read_text(errors="replace"),
        "starting_ns": starting,
        "latencies_ns": latencies,
    }


def work_for(seconds: float, pipe: tuple[int, int]) -> list[int]:
    """The workload's latencies beside the storm alone."""
    limit = time.monotonic() + seconds
    latencies = []
    while time.monotonic() < limit:
        latencies.append(request(pipe))
    return latencies


def main(base: Path) -> None:
    pipe = os.pipe()
    load = multiprocessing.Process(target=storm, daemon=True)
    load.start()
    results = {}
    try:
        for case in json.loads((base / "cases.json").read_text()):
            before = work_for(BEFORE_S, pipe)
            with tempfile.TemporaryDirectory(prefix="ef-budgets-") as folder:
                results[case["name"]] = {"before_ns": before, **exceed(base, Path(folder), case, pipe)}
    finally:
        load.terminate()
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
