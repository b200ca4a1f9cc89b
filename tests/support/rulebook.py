# SPDX-License-Identifier: GPL-3.0-or-later
"""A real ansible-rulebook, in a virtual environment of its own in the cache, with the Java of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.play import ROOT, environment

PACKAGE = "ansible-rulebook==1.3.2"
PLACE = ROOT / ".cache" / "rulebook"
JAVA = Path("/usr/lib/jvm")


def java() -> Path | None:
    """The home of Java 17, which its rule engine needs; None where it is not installed."""
    return next((one for one in sorted(JAVA.glob("java-*17*openjdk*")) if (one / "bin/java").exists()), None)


def tool(name: str) -> Path:
    """A program of its environment, which is made where it is not there; one process at a time."""
    stamp = PLACE / "made-of"
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != PACKAGE:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE / "venv")], check=True)
            pip = [str(PLACE / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check", PACKAGE]
            subprocess.run(pip, check=True, timeout=600)
            stamp.write_text(PACKAGE)
    return PLACE / "venv" / "bin" / name


def wait_until(holds: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """What `holds` returns, as soon as it is true; fails with what was waited for."""
    limit = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(0.2)


class Rulebook:
    """A run of the collection's rulebook; `folder` holds its senders, variables, log and output."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts"

    def lines(self) -> list[dict[str, Any]]:
        """Lines of the log of events, so far."""
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def alerts(self, decision: str) -> list[dict[str, Any]]:
        """Alerts of the log with that decision."""
        return [one for line in self.lines() for one in line.get("alerts", []) if one["decision"] == decision]

    def output(self) -> str:
        """What ansible-rulebook and its playbooks printed, so far."""
        return (self.folder / "output").read_text(errors="replace")


@contextlib.contextmanager
def rulebook(folder: Path, port: int, inventory: Path, senders: str, **variables: Any) -> Iterator[Rulebook]:
    """ansible-rulebook with our rulebook, listening; it ends with the context, with all that it started."""
    (folder / "senders").touch(0o600)
    (folder / "senders").write_text(senders)
    given = {"port": port, "secrets": str(folder / "senders"), "log": str(folder / "events.jsonl"), **variables}
    (folder / "vars.yml").write_text(yaml.safe_dump({f"ebpf_fleet_events_{name}": one for name, one in given.items()}))
    command = [str(tool("ansible-rulebook")), "--rulebook", "ebpf.fleet.alerts", "-i", str(inventory)]
    own = {"JAVA_HOME": str(java()), "PYTHONUNBUFFERED": "1", "PWD": str(folder)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [*command, "--vars", str(folder / "vars.yml")], cwd=folder, env={**environment(), **own}, stdout=output,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    found = Rulebook(folder, port)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), "ansible-rulebook listens")
        assert process.poll() is None, found.output()
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def listens(port: int) -> bool:
    """By the kernel's table, as a connection would be a request of the log."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()
