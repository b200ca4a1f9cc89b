# SPDX-License-Identifier: GPL-3.0-or-later
"""What a soak does to the loader. Each fault begins, lasts, and ends; it names what it may bring about, and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Protocol

from tests.loader.bundles import canonical
from tests.loader.service import Service
from tests.soak.load import Load

FLOOD_NAMES = 400  # of a table with 64 entries
FLOOD_CALLS = 60_000
STORM = "i=0; while [ $i -lt 150 ]; do /bin/true; i=$((i+1)); done"
WANTED = ("exec_events", "runqlat", "syscall_errors", "soak_calls", "counter_kinds")
# What the loader may do about a fault: lose events (`drops`), fall silent (`silent`), detach (a state, by reason code).
DROPS, SILENT = "drops", "silent"
# The host's limits are out of the way, so that a feature's own (its contract's) decide: a soak is no idle host.
BASE_POLICY = {
    "schema": "ebpf.fleet/policy/v1",
    "host": {
        "cpu_millicores": 2000,
        "event_rate_per_second": 1_000_000,
        "drop_ratio_ppm": 1_000_000,
        "map_fill_ppm": 1_000_000,
    },
}
KILLED = frozenset({"EF_KILLED_GLOBAL", "EF_KILLED_FEATURE", "EF_KILLED_FAMILY"})


@dataclass
class Target:
    """The loader under test and what is around it."""

    service: Service
    load: Load
    disk: Path
    first_status: dict[str, Any]


class Fault(Protocol):
    """One kind of fault."""

    name: str
    may: frozenset[str]

    def begin(self, target: Target) -> None: ...

    def end(self, target: Target) -> None: ...


class SinkStall:
    """The file system of the events file stands still: a write to it hangs."""

    name, may = "sink stall", frozenset({DROPS, SILENT})

    def begin(self, target: Target) -> None:
        subprocess.run(["fsfreeze", "-f", str(target.disk)], check=True)

    def end(self, target: Target) -> None:
        subprocess.run(["fsfreeze", "-u", str(target.disk)], check=True)


class DiskFull:
    """No byte is free where the events go."""

    name, may = "disk full", frozenset({DROPS})

    def begin(self, target: Target) -> None:
        with (target.disk / "ballast").open("wb", buffering=0) as ballast:
            for size in (1 << 20, 4096):
                _fill(ballast.fileno(), size)

    def end(self, target: Target) -> None:
        (target.disk / "ballast").unlink()


def _fill(fd: int, size: int) -> None:
    """Write zeros until there is no space for so many."""
    try:
        while os.write(fd, bytes(size)) == size:
            pass
    except OSError as error:
        if error.errno not in (28, 122):
            raise


class FileMovedAway:
    """Somebody else's rotation renames the events file under the loader."""

    name = "events file moved away"
    may: frozenset[str] = frozenset()

    def begin(self, target: Target) -> None:
        path = target.service.events_path
        if path.exists():
            path.rename(target.disk / "elsewhere.jsonl")

    def end(self, target: Target) -> None:
        (target.disk / "elsewhere.jsonl").unlink(missing_ok=True)


class MapFlood:
    """More keys than a counter table has room for; then a kill order that comes and goes empties it."""

    name, may = "map flood", frozenset({DROPS, "EF_KILLED_FEATURE", "EF_BUDGET_MAP_FILL"})

    def begin(self, target: Target) -> None:
        target.load.caller.names(FLOOD_NAMES)

    def end(self, target: Target) -> None:
        _order_and_release(target, "feature.counter_kinds")


def _order_and_release(target: Target, name: str) -> None:
    """A kill order, until the loader has obeyed it."""
    path = target.service.order(name)
    target.service.wait_state(name.split(".", 1)[1], "killed", 30)
    path.unlink()


class EventFlood:
    """As many calls as one process can make at once."""

    name, may = "event flood", frozenset({DROPS})

    def begin(self, target: Target) -> None:
        target.load.caller.calls(FLOOD_CALLS)

    def end(self, target: Target) -> None:
        target.load.caller.calls(FLOOD_CALLS)


class ForkStorm:
    """Four shells start programs as fast as they can."""

    name, may = "fork storm", frozenset({DROPS})

    def __init__(self) -> None:
        self.shells: list[subprocess.Popen[bytes]] = []

    def begin(self, target: Target) -> None:
        self.shells = [subprocess.Popen(["sh", "-c", STORM]) for _ in range(4)]

    def end(self, target: Target) -> None:
        for each in self.shells:
            each.wait()


class Stopped:
    """The loader is stopped (SIGSTOP): its rings fill up."""

    name, may = "loader stopped", frozenset({DROPS, SILENT})

    def begin(self, target: Target) -> None:
        target.service.send(signal.SIGSTOP)

    def end(self, target: Target) -> None:
        target.service.send(signal.SIGCONT)


class Kill:
    """A kill order comes and goes. Which of global, family and feature goes round; each time in the other folder."""

    name, may = "kill order", KILLED

    def __init__(self) -> None:
        self.turn = 0
        self.path: Path | None = None

    def begin(self, target: Target) -> None:
        family = target.first_status["kernel"]["family"]
        names = ("global", "feature.soak_calls", f"family.{family}", "feature.runqlat", "mistyped")
        self.path = target.service.order(names[self.turn % len(names)], ("run", "etc")[self.turn % 2])
        self.turn += 1

    def end(self, target: Target) -> None:
        assert self.path is not None
        self.path.unlink()


class Desired:
    """desired.json is rewritten: fewer features and sampling, no JSON at all, gone; each in turn."""

    name, may = "desired rewritten", frozenset({"EF_NOT_WANTED", "EF_NO_DESIRED"})

    def __init__(self) -> None:
        self.turn = 0

    def begin(self, target: Target) -> None:
        kind = ("fewer", "torn", "gone")[self.turn % 3]
        self.turn += 1
        if kind == "fewer":
            target.service.want("exec_events", "soak_calls", soak_calls=7)
        elif kind == "torn":
            target.service.write_desired(b'{"schema": "ebpf.fle')
        else:
            (target.service.etc / "desired.json").unlink()

    def end(self, target: Target) -> None:
        target.service.want(*WANTED)


class Policy:
    """policy.json gets tight for two features, and wide again; for loaders that know budgets."""

    name, may = "policy rewritten", frozenset({DROPS})

    def begin(self, target: Target) -> None:
        limits = {"soak_calls": {"event_rate_per_second": 100}, "exec_events": {"cpu_millicores": 1}}
        replace(target.service.etc / "policy.json", {**BASE_POLICY, "features": limits})

    def end(self, target: Target) -> None:
        replace(target.service.etc / "policy.json", BASE_POLICY)


class Lease:
    """A lease that has run out; for loaders that know leases."""

    name, may = "lease expired", frozenset({"EF_LEASE_EXPIRED"})

    def begin(self, target: Target) -> None:
        status = target.first_status
        lease = {"schema": "ebpf.fleet/lease/v1", "bundle_digest": status["bundle"]["digest"], "holder": "soak"}
        lease.update(boot_id=status["boot_id"], expires_boottime_ns=1)
        replace(target.service.etc / "lease.json", lease)

    def end(self, target: Target) -> None:
        (target.service.etc / "lease.json").unlink()


def replace(path: Path, document: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(canonical(document))
    part.rename(path)


def faults_for(status: dict[str, Any]) -> Iterator[Fault]:
    """Every kind of fault that this loader can be asked about, by what its status tells."""
    yield from (SinkStall(), DiskFull(), FileMovedAway(), MapFlood(), EventFlood(), ForkStorm(), Stopped(), Kill())
    yield Desired()
    if "budget" in status:
        yield Policy()
    if "lease" in status:
        yield Lease()


def not_injected(status: dict[str, Any]) -> dict[str, str]:
    """Faults that this run does not try, and why; the report says it aloud."""
    left = {"clock jump": "the wall clock belongs to the whole machine: tests/lab/test_clock.py does it in a guest"}
    if "budget" not in status:
        left["policy rewritten"] = "this loader knows no policy.json"
    if "lease" not in status:
        left["lease expired"] = "this loader knows no lease.json"
    return left


def describe(target: Target) -> str:
    """The status as far as it tells why a feature does not run; for messages."""
    status = json.loads((target.service.state / "status.json").read_bytes())
    return "; ".join(f"{name}: {each['state']} {each['reason_code']}" for name, each in status["features"].items())
