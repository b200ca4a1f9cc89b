# SPDX-License-Identifier: GPL-3.0-or-later
"""Ours as the benchmarks see it: the loader with a signed bundle, as its unit starts it, and its features."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import yaml

from tests.loader.bundles import Trust, make_key
from tests.loader.foreign import compile_bpf
from tests.loader.service import Service, feature_of, make_service
from tests.support.play import ROOT
from tools.bench.machine import LOAD, TRACER_CPU, on_cpu, wait_until
from tools.bench.tracers import POLICY, Tracer, says_attached

RING_BYTES = 256 * 1024  # as the released features have, and bpftrace for each CPU
OBJECTS = ROOT / "build/features"
LOADER = next((ROOT / "build/loader").glob("*/ebpf-loader"), ROOT / "build/loader/ebpf-loader")


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
        return says_attached(self.service.status())

    def counters(self) -> dict[str, int]:
        """Its counters, once none is on its way."""
        found: list[dict[str, int]] = []

        def settled() -> bool:
            found[:] = [self.now()]
            return found[0]["in_flight"] == 0

        wait_until(settled, "all records have an outcome", pause=0.05)
        return found[0]

    def now(self) -> dict[str, int]:
        found: dict[str, int] = self.service.fresh_status()["features"][self.feature]["counters"]
        return found

    def delivered(self) -> int:
        return self.now()["delivered"]

    def settle(self) -> int:
        return self.counters()["delivered"]


def calls_feature(folder: Path, pid: int, records: int = 1, ring: int = RING_BYTES) -> dict[str, Any]:
    """The feature that records a process's calls, compiled for its pid."""
    folder.mkdir(parents=True, exist_ok=True)
    options = (f"-I{ROOT / 'bpf/include'}", "-DEF_VARIANT_FULL", f"-DBENCH_PID={pid}", f"-DBENCH_RECORDS={records}")
    target = folder / f"calls-{records}-{ring}.bpf.o"
    data = compile_bpf(LOAD / "bench_calls.bpf.c", target, *options, f"-DEF_RING_BYTES={ring}")
    contract = yaml.safe_load((LOAD / "contract.yml").read_text())
    contract["expires"] = str(contract["expires"])
    next(each for each in contract["maps"] if each["name"] == "ef_events")["max_entries"] = ring
    return {"bench_calls": (contract, {"full": data})}


def release_feature(*names: str) -> dict[str, Any]:
    """Features as they are released, with the benchmarks' limits."""
    return {name: feature_of(OBJECTS, name) for name in names}
