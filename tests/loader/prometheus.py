# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' own tools of Debian: taken from the packages and never installed, so that no daemon starts."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Iterator

from tests.lab.apt import Root

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "prometheus"
PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus"}
PACKAGES["prometheus-node-exporter"] = "prometheus-node-exporter"
PACKAGES["prometheus-alertmanager"] = PACKAGES["amtool"] = "prometheus-alertmanager"


def _fetch(package: str) -> None:
    """Unpack a package of Debian 12 into the cache; one process at a time."""
    world = Root(("bookworm",))
    with world.alone():
        world.update()
        world.download([package], CACHE / "deb")
    for file in (CACHE / "deb").glob(f"{package}_*.deb"):
        subprocess.run(["dpkg", "-x", str(file), str(CACHE)], check=True)


def tool(name: str) -> Path:
    """A tool's path: the machine's own, or the cached one, which is fetched where it is not there."""
    own = shutil.which(name)
    if own:
        return Path(own)
    path = CACHE / "usr" / "bin" / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _fetch(PACKAGES[name])
    assert path.exists(), f"the package {PACKAGES[name]} has no {name}"
    return path


def check_metrics(text: str) -> str:
    """What promtool has against a text; empty when it has nothing."""
    command = [str(tool("promtool")), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stdout}{done.stderr}"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """A node_exporter with nothing but its textfile collector over `folder`; yields the URL to scrape."""
    address = free_address()
    command = [str(tool("prometheus-node-exporter")), f"--web.listen-address={address}"]
    command += ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
    with (folder.parent / "node_exporter.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{address}/metrics"
    finally:
        process.kill()
        process.wait(timeout=10)


def scrape(url: str) -> str:
    """One scrape as Prometheus does it; waits for the exporter's start."""
    limit = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode("utf-8"))
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)
