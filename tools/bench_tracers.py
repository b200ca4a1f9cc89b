"""Ours and its peers as the benchmarks see them: started, asked what arrived, and stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Sequence

import yaml

from tests.loader.bundles import Trust, make_key
from tests.loader.foreign import compile_bpf
from tests.loader.service import Service, feature_of, make_service
from tools.bench_machine import LOAD, TRACER_CPU, Programs, Usage, cpu_ns, on_cpu, usage, wait_until
from tools.play import ROOT

OBJECTS = ROOT / "build/features"
LOADER = next((ROOT / "build/loader").glob("*/ebpf-loader"), ROOT / "build/loader/ebpf-loader")
# Limits that no benchmark reaches: it measures the path, not the budget.
POLICY = {
    "schema": "ebpf.fleet/policy/v1",
    "host": {"cpu_millicores": 1000, "event_rate_per_second": 100000000, "drop_ratio_ppm": 1000000},
}


class Tracer:
    """A process that traces."""

    name = "?"
    process: subprocess.Popen[bytes]
    started: float

    def delivered(self) -> int:
        """Events that arrived so far, by what it wrote."""
        raise NotImplementedError

    def attached(self) -> bool:
        """Does it say that it traces?"""
        raise NotImplementedError

    @property
    def programs(self) -> Programs:
        return Programs(self.process.pid)

    def cpu_ns(self) -> int:
        return cpu_ns(self.process.pid)

    def usage(self) -> Usage:
        return usage(self.process.pid)

    def settle(self) -> int:
        """What arrived, once nothing more comes; the pause is longer than any of them buffers."""
        before, now = -1, self.delivered()
        while now != before:
            time.sleep(0.4)
            before, now = now, self.delivered()
        return now

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lines(Tracer):
    """A peer that writes a line an event into a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, ready: str, marker: bytes) -> None:
        self.name, self.ready, self.marker = name, ready, marker
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.at, self.count = folder / "out", 0, 0
        self.started = time.perf_counter()
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(on_cpu(TRACER_CPU, command), stdout=out, stderr=subprocess.STDOUT)

    def attached(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"bench: {self.name} ended: {self.out.read_text()[-500:]}")
        return self.ready in self.out.read_text(errors="replace")

    def delivered(self) -> int:
        with self.out.open("rb") as file:
            file.seek(self.at)
            while block := file.read(1 << 20):
                whole = block[: block.rfind(b"\n") + 1]
                if not whole:
                    break
                self.count += whole.count(self.marker)
                self.at += len(whole)
                file.seek(self.at)
        return self.count


class Ours(Tracer):
    """The loader with a signed bundle, as its unit starts it."""

    def __init__(self, name: str, folder: Path, features: dict[str, Any], sink: str = "jsonl") -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.feature = next(iter(features))
        trust = Trust(folder / "trust", make_key(folder / "key"))
        self.service: Service = make_service(LOADER, folder, trust, features)
        self.service.prefix = tuple(on_cpu(TRACER_CPU, ()))
        self.service.interval = 1
        policy = {**POLICY, "sink": {"kind": sink}}
        (self.service.etc / "policy.json").write_text(json.dumps(policy))
        self.service.want(*features)
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.started = time.perf_counter()
        self.service.start()
        assert self.service.process is not None
        self.process = self.service.process

    def attached(self) -> bool:
        if not self.service.alive():
            raise SystemExit(f"bench: the loader ended: {self.service.journal()[-500:]}")
        status = self.service.status()
        if not status or not status["compatibility"]:
            return False
        for name, each in status["features"].items():
            if each["state"] != "attached":
                raise SystemExit(f"bench: {name} is {each['state']}: {each['reason']}")
        return True

    def counters(self) -> dict[str, int]:
        """Its counters, once none is on its way."""
        wait_until(lambda: self.now()["in_flight"] == 0, "all records have an outcome", pause=0.05)
        return self.now()

    def now(self) -> dict[str, int]:
        found: dict[str, int] = self.service.fresh_status()["features"][self.feature]["counters"]
        return found

    def delivered(self) -> int:
        return self.now()["delivered"]

    def settle(self) -> int:
        return self.counters()["delivered"]


def start(make: Callable[[], Tracer]) -> Tracer:
    """A tracer that says it traces."""
    tracer = make()
    wait_until(tracer.attached, f"{tracer.name} attaches", seconds=60)
    return tracer


def calls_feature(folder: Path, pid: int, records: int = 1) -> dict[str, Any]:
    """The feature that records a process's calls, compiled for its pid."""
    folder.mkdir(parents=True, exist_ok=True)
    options = (f"-I{ROOT / 'bpf/include'}", "-DEF_VARIANT_FULL", f"-DBENCH_PID={pid}", f"-DBENCH_RECORDS={records}")
    data = compile_bpf(LOAD / "bench_calls.bpf.c", folder / f"calls{records}.bpf.o", *options)
    contract = yaml.safe_load((LOAD / "contract.yml").read_text())
    contract["expires"] = str(contract["expires"])
    return {"bench_calls": (contract, {"full": data})}


def release_feature(*names: str) -> dict[str, Any]:
    """Features as they are released, with the benchmarks' limits."""
    return {name: feature_of(OBJECTS, name) for name in names}


def bpftrace(script: str, folder: Path) -> Lines:
    """bpftrace with a script; a line of an event begins with E."""
    script = 'BEGIN { printf("READY\\n"); } ' + script
    return Lines("bpftrace", ("bpftrace", "-e", script), folder, "READY", b"E ")
