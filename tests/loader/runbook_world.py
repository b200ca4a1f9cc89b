# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which everything has happened that the runbooks ask about, recorded by the real loader."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

from tests.loader.bundles import Trust
from tests.loader.features import workload
from tests.loader.prometheus_server import Prometheus, prometheus
from tests.loader.service import FEATURES, ROOMY_POLICY, Service, feature_of, make_service, wait_for
from tests.loader.standins import STANDINS, standin_of

NAMES = sorted(path.parent.name for path in FEATURES.glob("*/contract.yml"))
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
# One number is the beginning of the other: a search for the first may not find the second.
FEW, MANY = 6001, 60010
# What this user started is in a file that was rotated away.
EARLY = 6002
WORKLOAD = Path(__file__).parent / "features" / "workload.py"


class World:
    """What happened, and where it was recorded."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.metrics: Prometheus
        self.did: dict[str, Any] = {}
        self.started: dict[str, int] = {}
        self.oom: dict[str, Any] = {}

    def on_this_machine(self, text: str, **values: object) -> str:
        """A command of a page with its placeholders filled, on this test's folders."""
        for name, value in values.items():
            text = text.replace(name, str(value))
        text = text.replace("/var/log/ebpf-fleet", str(self.service.log))
        text = text.replace("/var/lib/prometheus/node-exporter", str(self.service.folder / "textfile"))
        return text.replace("/run/ebpf-fleet-loader", str(self.service.state))

    def run(self, text: str, **values: object) -> subprocess.CompletedProcess[str]:
        """Run a command of a page by sh, as a person would; bounded."""
        command = ["sh", "-c", self.on_this_machine(text, **values)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def lines(self, text: str, **values: object) -> list[str]:
        """What a command prints that has to succeed and to be quiet otherwise."""
        done = self.run(text, **values)
        assert (done.returncode, done.stderr) == (0, ""), f"{text}: exit {done.returncode}: {done.stderr}"
        return done.stdout.splitlines()

    def records(self, text: str, **values: object) -> list[dict[str, Any]]:
        """The records that a search finds."""
        return [json.loads(line) for line in self.lines(text, **values)]


def _start(program: Path, uid: int | None = None) -> int:
    """Start a program and wait for its end; its pid."""
    child = subprocess.Popen([str(program)], user=uid, cwd="/")
    assert child.wait(timeout=20) == 0, program
    return child.pid


def start_in_temporary_folders(world: World) -> None:
    """A program in each temporary folder, and wait until the last one is recorded."""
    for number, folder in enumerate(TEMPORARY):
        program = Path(folder) / f"ef_run_{os.getpid()}_{number}"
        shutil.copy("/bin/true", program)
        try:
            world.started[folder] = _start(program)
        finally:
            program.unlink()
    wait_until_recorded(world, world.started[TEMPORARY[-1]])


def wait_until_recorded(world: World, pid: int) -> None:
    wait_for(lambda: any(each.get("pid") == pid for each in world.service.events()), "the last execution is recorded")


def start_programs(world: World) -> None:
    """A program in each temporary folder, one elsewhere, and programs of two users."""
    start_in_temporary_folders(world)
    world.started["/bin/true"] = _start(Path("/bin/true"))
    for uid in (FEW, MANY):
        world.started[str(uid)] = _start(Path("/bin/true"), uid)


def run_out_of_memory(world: World) -> None:
    """An OOM kill in a control group that stays, so that it can be looked up."""
    found = workload.memory_root()
    if found is None:
        return
    version, root = found
    group = root / f"ef-runbook-{os.getpid()}"
    group.mkdir()
    world.oom = {"group": group, **workload._fill(group, *workload.GROUP_FILES[version])}


def fill_a_file(world: World) -> None:
    """What was recorded so far goes into a rotated file: a search has to read more than the last one."""
    rotated = world.service.log / "events.jsonl.1"
    wait_for(lambda: [_start(Path("/bin/true")) for _ in range(50)] and rotated.exists(), "the file is full", 60)


def wait_until_scraped(world: World) -> None:
    """Until Prometheus has figures of after this call."""
    query = f"ebpf_fleet_status_timestamp_seconds > {time.time() + 1}"
    wait_for(lambda: world.metrics.ask(query), "Prometheus has scraped what happened", 60)


def happen(world: World) -> None:
    """Everything, and wait until it is recorded."""
    world.started[str(EARLY)] = _start(Path("/bin/true"), EARLY)
    fill_a_file(world)
    # Twice, as a series that is new to Prometheus has no rate yet.
    for _ in range(2):
        done = subprocess.run([sys.executable, str(WORKLOAD)], check=True, capture_output=True, text=True, timeout=120)
        world.did = json.loads(done.stdout.splitlines()[-1])
        wait_until_scraped(world)
    run_out_of_memory(world)
    start_programs(world)
    wait_until_recorded(world, _start(Path("/bin/true")))


@contextlib.contextmanager
def made_world(loader: Path, objects: Path, folder: Path, key: Path) -> Iterator[World]:
    """The world: every feature attached (three at another hook), all of it happened and was scraped."""
    features = {
        name: standin_of(name, folder / "standins") if name in STANDINS else feature_of(objects, name) for name in NAMES
    }
    service = make_service(loader, folder, Trust(folder / "trust", key), features)
    cursor = folder / "cursor"
    cursor.write_text('{"schema": "ebpf.fleet/cursor/v1", "segment": 1, "offset": 10}')
    service.allow({**ROOMY_POLICY, "sink": {"kind": "jsonl", "file_bytes": 131072, "files": 16, "cursor": str(cursor)}})
    service.want(*NAMES)
    world = World(service)
    (folder / "textfile").mkdir()
    (folder / "textfile" / "ebpf_fleet.prom").symlink_to(service.state / "metrics.prom")
    try:
        service.start_settled()
        with prometheus(folder / "textfile") as server:
            world.metrics = server
            happen(world)
            yield world
    finally:
        if service.process is not None:
            service.stop(signal.SIGKILL)
        if world.oom:
            world.oom["group"].rmdir()


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """A port that answers no further SYN, and a connection that waits for it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@contextlib.contextmanager
def deaf_peer() -> Iterator[int]:
    """An established connection whose other side drops all that comes: what is sent is sent again."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sender = stack.enter_context(socket.create_connection(listener.getsockname()))
        peer = stack.enter_context(listener.accept()[0])
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF_RET | BPF_K, 0
        program = struct.pack("HP", 1, ctypes.addressof(drop_all))
        peer.setsockopt(socket.SOL_SOCKET, workload.SO_ATTACH_FILTER, program)
        sender.send(b"x")
        yield int(listener.getsockname()[1])
