# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a bundle's features under the loader, let the workload work, and print what they said.

    python3 driver.py LOADER BUNDLE SIGNERS WORKLOAD

Runs as root on any test host, in a folder of its own that it removes. While it runs, kernel.perf_event_paranoid
is at most 2, the kernel's own default: above it (Debian has 3) no kprobe and no perf buffer opens without
CAP_SYS_ADMIN, which the loader gives up. Python 3.8, standard library only.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator

SECONDS = 120.0  # an emulated host is slow
# What a workload under test costs on an emulated host is no budget's business.
LIMITS = {"cpu_millicores": 1000000, "rss_bytes": 1 << 40, "map_memory_bytes": 1 << 40, "drop_ratio_ppm": 1000000}
LIMITS.update(event_rate_per_second=1000000000, map_fill_ppm=1000000)
ROOMY_POLICY = {"schema": "ebpf.fleet/policy/v1", "host": LIMITS}
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


@contextlib.contextmanager
def perf_events_allowed() -> Iterator[None]:
    """Lower the setting to 2 where it is higher, and put it back."""
    before = PARANOID.read_text()
    if int(before) > 2:
        PARANOID.write_text("2")
    try:
        yield
    finally:
        if int(before) > 2:
            PARANOID.write_text(before)


class Run:
    """One loader with folders of its own."""

    def __init__(self, loader: str, bundle: str, signers: str, folder: Path) -> None:
        self.etc, self.run, self.state, self.log = (folder / name for name in ("etc", "run", "state", "log"))
        for each in (self.etc, self.run / "kill.d", self.state, self.log):
            each.mkdir(parents=True)
        self.journal = folder / "journal"
        self._want(bundle)
        command = [loader, "run", "--bundle", bundle, "--trust", signers, "--interval", "1"]
        for name in ("etc", "run", "state", "log"):
            command += ["--" + name, str(folder / name)]
        with self.journal.open("wb") as journal:
            self.process = subprocess.Popen(command, stderr=journal)

    def _want(self, bundle: str) -> None:
        names = json.loads((Path(bundle) / "manifest.json").read_bytes())["features"]
        wishes = {name: {"enabled": True, "sample_every": 1} for name in names}
        document = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": wishes}
        (self.etc / "desired.json").write_text(json.dumps(document))
        (self.etc / "policy.json").write_text(json.dumps(ROOMY_POLICY))

    def wait(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status for which the condition holds."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit and self.process.poll() is None:
            path = self.state / "status.json"
            status: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
            if status and condition(status):
                return status
            time.sleep(0.1)
        raise SystemExit(f"{what}: not within {SECONDS} s\n{self.journal.read_text(errors='replace')}")

    def fresh(self) -> dict[str, Any]:
        now = time.time_ns()
        return self.wait("a new status", lambda status: status["time_unix_ns"] > now)

    def events(self) -> list[dict[str, Any]]:
        path = self.log / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def metrics(self) -> list[str]:
        return [line for line in (self.state / "metrics.prom").read_text().splitlines() if not line.startswith("#")]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=SECONDS)


def observe(run: Run, workload: str) -> dict[str, Any]:
    """What was attached, what the workload did, what the features said of it, before and after they were detached."""
    attached = run.wait("the compatibility event", lambda status: bool(status["compatibility"]))
    done = subprocess.run([sys.executable, workload], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the workload failed:\n{done.stdout}{done.stderr}")
    running = run.fresh()
    (run.run / "kill.d" / "global").touch()
    run.wait("off", lambda status: status["state"] == "killed")
    off = run.fresh()
    return {
        "attached": attached,
        "workload": json.loads(done.stdout.splitlines()[-1]),
        "running": running,
        "off": off,
        "metrics": run.metrics(),
        "events": run.events(),
    }


def drive(loader: str, bundle: str, signers: str, workload: str, folder: Path) -> None:
    run = Run(loader, bundle, signers, folder)
    try:
        print(json.dumps(observe(run, workload)))
    finally:
        if run.process.poll() is None:
            run.stop()


def main(*arguments: str) -> None:
    with perf_events_allowed(), tempfile.TemporaryDirectory(prefix="ef-features-") as folder:
        drive(*arguments[:4], folder=Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
