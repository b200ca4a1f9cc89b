# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a host: snapshots of the kernel's and the loader's own counters.

What was not measured is None. Nothing here judges; that is the gate's work.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import (
    latency,
    latency_sources,
    status_schema,
    witness,
)

SCHEMA = status_schema.OBSERVATION_SCHEMA
STATUS_SCHEMA = status_schema.STATUS_SCHEMA
UNIT = "ebpf-fleet-loader.service"
COLLECTOR_UNIT = "ebpf-fleet-bcc.service"
INSTALLED_LOADER = "var/lib/ebpf-fleet/current/ebpf-loader"
COLLECTOR_EXE = "usr/bin/python3"

STATUS_LIMIT_BYTES = 4 << 20
SYSTEMCTL_TIMEOUT_SECONDS = 10
# A loader publishes each change; within these its word and the kernel's lists meet, or they disagree.
MEETINGS = 5
SECONDS_BETWEEN_MEETINGS = 0.4

_PSI_TOTAL = re.compile(r"^some .*total=([0-9]+)", re.MULTILINE)


class Places(NamedTuple):
    """Where a host keeps what is read; `root` stands before proc.

    `loader_cgroup` or `loader_pids` (the first is the main process) stand in the place of what systemd
    says of the loader's unit, for a loader that systemd did not start.
    """

    root: Path = Path("/")
    state_dir: Path = Path("/run/ebpf-fleet-loader")
    collector_dir: Path = Path("/run/ebpf-fleet-bcc")
    application_file: Path | None = None
    latency: latency.Source | None = None
    unit: str = UNIT
    collector_unit: str = COLLECTOR_UNIT
    loader_cgroup: Path | None = None
    loader_pids: tuple[int, ...] | None = None


def parse_cpu(text: str, ticks_per_second: int) -> dict[str, int | None]:
    """CPUs, busy and total time in ns over all CPUs since boot, of /proc/stat.

    Idle, I/O wait and steal are not busy: the last is time that another guest used.
    """
    lines = text.splitlines()
    fields = [int(word) for word in lines[0].split()[1:9]] if lines and lines[0].startswith("cpu ") else []
    if len(fields) < 8:
        return {"cpus": None, "cpu_busy_ns": None, "cpu_total_ns": None}
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    tick = 1_000_000_000 // ticks_per_second
    return {
        "cpus": sum(1 for line in lines if re.match(r"cpu[0-9]", line)),
        "cpu_busy_ns": (user + nice + system + irq + softirq) * tick,
        "cpu_total_ns": sum(fields) * tick,
    }


def parse_memory(text: str) -> dict[str, int | None]:
    """Total and available memory in bytes, of /proc/meminfo."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+([0-9]+) kB$", text, re.MULTILINE))
    kib = {name: int(value) * 1024 for name, value in found.items()}
    return {
        "memory_total_bytes": kib.get("MemTotal"),
        "memory_available_bytes": kib.get("MemAvailable"),
    }


def parse_pressure(text: str) -> int | None:
    """The `some` total in microseconds, of a file in /proc/pressure."""
    found = _PSI_TOTAL.search(text)
    return None if found is None else int(found.group(1))


def parse_load(text: str) -> int | None:
    """The one-minute load average in thousandths, of /proc/loadavg."""
    found = re.match(r"([0-9]+)\.([0-9]{2}) ", text)
    return None if found is None else int(found.group(1)) * 1000 + int(found.group(2)) * 10


def parse_unit(text: str) -> dict[str, Any] | None:
    """What `systemctl show` said of the loader's unit; None if it is not installed."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return None
    return {
        "active_state": found.get("ActiveState"),
        "n_restarts": _number(found.get("NRestarts")),
        "main_pid": _number(found.get("MainPID")),
        "exit_status": _number(found.get("ExecMainStatus")),
        "control_group": found.get("ControlGroup") or None,
    }


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def read_host(root: Path) -> dict[str, int | None]:
    """The host's own counters."""
    proc = root / "proc"
    host = parse_cpu(read_text(proc / "stat") or "", os.sysconf("SC_CLK_TCK"))
    host.update(parse_memory(read_text(proc / "meminfo") or ""))
    for kind in ("cpu", "memory", "io"):
        host[f"psi_{kind}_some_us"] = parse_pressure(read_text(proc / "pressure" / kind) or "")
    host["load1_milli"] = parse_load(read_text(proc / "loadavg") or "")
    return host


def read_units(*units: str) -> list[dict[str, Any] | None]:
    """Ask systemd for units, at once; None for each without systemd or unit."""
    properties = "LoadState,ActiveState,NRestarts,MainPID,ExecMainStatus,ControlGroup"
    command = ["systemctl", "show", "--property=" + properties, "--", *units]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SYSTEMCTL_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return [None] * len(units)
    # One block of lines for each unit, in the order of the names, with an empty line between them.
    blocks = done.stdout.decode("utf-8", "replace").strip().split("\n\n")
    if done.returncode != 0 or len(blocks) != len(units):
        return [None] * len(units)
    return [parse_unit(block) for block in blocks]


def read_status(state_dir: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(status.json or None, why not or None).

    The loader's user owns the folder: the file is read bounded and without blocking, and nothing of
    it is used unless every field is what the schema says. The reason names the field.
    """
    path = state_dir / "status.json"
    try:
        document = bounded.read_json(path, STATUS_LIMIT_BYTES)
    except bounded.BoundedReadError as error:
        return None, printable(error)
    if document is None:
        return None, None
    wrong = status_schema.status_fault(document)
    return (document, None) if wrong is None else (None, f"{path}: {printable(wrong)}")


COLLECTOR_KEYS = ("engine", "pid", "started_boottime_ns", "state", "boot_id", "boottime_ns")


def merge_collector(status: dict[str, Any] | None, collector: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The loader's status with what the BCC collector runs in the place of disabled features. Pure.

    A collector of another boot or bundle has no say. Its CPU time and memory are added to the
    loader's, so that the same limits hold for both together; where one of the two was not
    measured the sum was not either. `collector` tells which process was added, `loader` and `cost` in it
    what each of the two told of itself, `features` whose account is the collector's.
    """
    if status is None or collector is None or not _belongs(status, collector):
        return status
    merged = dict(status)
    merged["features"] = _merged_features(status["features"], collector["features"])
    merged["loader"] = _added_cost(status.get("loader") or {}, collector.get("loader") or {})
    merged["collector"] = {key: collector.get(key) for key in COLLECTOR_KEYS}
    merged["collector"]["loader"] = status.get("loader")
    merged["collector"]["cost"] = collector.get("loader")
    merged["collector"]["features"] = sorted(
        name for name, one in merged["features"].items() if one is not status["features"][name]
    )
    return merged


def _belongs(status: Mapping[str, Any], collector: Mapping[str, Any]) -> bool:
    if not isinstance(status.get("features"), dict) or not isinstance(collector.get("features"), dict):
        return False
    same_boot = status.get("boot_id") == collector.get("boot_id")
    digests = [(doc.get("bundle") or {}).get("digest") for doc in (status, collector)]
    return same_boot and digests[0] is not None and digests[0] == digests[1]


def _merged_features(loader: Mapping[str, Any], collector: Mapping[str, Any]) -> dict[str, Any]:
    """A feature that the collector was asked to run, whether it could or not, is told by the collector."""
    return {
        name: collector[name]
        if feature.get("state") == "disabled" and (collector.get(name) or {}).get("state") in ("attached", "disabled")
        else feature
        for name, feature in loader.items()
    }


def _added_cost(loader: Mapping[str, Any], collector: Mapping[str, Any]) -> dict[str, int | None]:
    added: dict[str, int | None] = {}
    for key in ("cpu_ns", "rss_bytes", "map_memory_bytes"):
        pair = [_whole(loader.get(key)), _whole(collector.get(key))]
        added[key] = None if None in pair else sum(value for value in pair if value is not None)
    return added


def is_fresh(status: Mapping[str, Any] | None, root: Path) -> bool:
    """Whether the process that wrote a status is there still."""
    pid = _whole((status or {}).get("pid"))
    return pid is not None and (root / "proc" / str(pid)).is_dir()


def read_collector(places: Places) -> dict[str, Any] | None:
    """The BCC collector's status while it lives; None where there is none."""
    collector, _wrong = read_status(places.collector_dir)
    return collector if is_fresh(collector, places.root) else None


def read_application(path: Path | None) -> tuple[dict[str, int] | None, str | None]:
    """({"p95_ns", "p99_ns"} of the application's own measurement or None, why it cannot be used or None).

    A file that is not there is an application that has not measured yet, and no fault.
    """
    if path is None:
        return None, None
    try:
        found = latency_sources.read_file(path, latency.DEFAULT_MAX_AGE_SECONDS)
        return (None if found is None else dict(found)), None
    except bounded.BoundedReadError as error:
        return None, printable(error)
    except ValueError as error:
        return None, printable(f"{path}: {error}")


def application_of(places: Places, last: bool) -> tuple[dict[str, int] | None, str | None]:
    """The application's latency by what the places say; a source is asked once, at the end of a window."""
    if places.latency is None:
        return read_application(places.application_file)
    return latency_sources.ask(places.latency) if last else (None, None)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def status_age(status: Mapping[str, Any] | None, boot_id: str | None, boottime_ns: int) -> int | None:
    """Age of a status in ns; None if there is none or it is from another boot."""
    if status is None or boot_id is None or status.get("boot_id") != boot_id:
        return None
    written = _whole(status.get("boottime_ns"))
    return None if written is None else max(0, boottime_ns - written)


def boottime_ns() -> int:
    """Time since boot, suspend included, in ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def read_boot_id(root: Path) -> str | None:
    """The kernel's random id of this boot."""
    text = read_text(root / "proc/sys/kernel/random/boot_id")
    return None if text is None else text.strip()


def loader_unit(places: Places, told: Mapping[str, Any] | None) -> witness.Unit | None:
    """The loader's unit for the witness; None where systemd knows none and no place stands for it."""
    exe = places.root / INSTALLED_LOADER
    if places.loader_pids is not None:
        return witness.Unit(places.unit, places.loader_pids[0], None, exe, pids=places.loader_pids)
    if places.loader_cgroup is not None:
        first = (read_text(places.loader_cgroup / "cgroup.procs") or "").split()[:1]
        return witness.Unit(places.unit, int(first[0]) if first else None, None, exe, places.loader_cgroup)
    return _unit_of(places.unit, told, exe)


def collector_unit(places: Places, told: Mapping[str, Any] | None) -> witness.Unit | None:
    """The BCC collector's unit where it runs; None elsewhere."""
    if told is None or not told.get("main_pid"):
        return None
    return _unit_of(places.collector_unit, told, places.root / COLLECTOR_EXE)


def _unit_of(name: str, told: Mapping[str, Any] | None, exe: Path) -> witness.Unit | None:
    return None if told is None else witness.Unit(name, told["main_pid"], told["control_group"], exe)


class Told(NamedTuple):
    """What loader and collector say: the merged status, what is wrong with it, and their program ids."""

    status: dict[str, Any] | None
    wrong: str | None
    programs: set[int]
    read_at: int


def read_told(places: Places) -> Told:
    """Read both status files."""
    status, wrong = read_status(places.state_dir)
    collector = read_collector(places)
    ids = told_ids(status) | told_ids(collector)
    return Told(merge_collector(status, collector), wrong, ids, boottime_ns())


def told_ids(status: Mapping[str, Any] | None) -> set[int]:
    """Ids of all programs that a status names."""
    features = ((status or {}).get("features") or {}).values()
    return {one["id"] for feature in features for one in feature["programs"] if one["id"] is not None}


class Meeting(NamedTuple):
    """One reading of what is told and of what root sees."""

    told: Told
    unit: dict[str, Any] | None
    seen: dict[str, Any]

    @property
    def agrees(self) -> bool:
        """Whether what is told is what is seen, or there is nothing to compare."""
        if self.told.status is None or self.seen["loader"] is None:
            return True
        same_pid = self.told.status["pid"] == self.seen["loader"]["main_pid"]
        held = held_ids(self.seen)
        return same_pid and held == self.told.programs


def held_ids(seen: Mapping[str, Any]) -> set[int] | None:
    """Ids of all programs that the units hold by the kernel's account; None where it is not known."""
    units = [seen[name] for name in ("loader", "collector") if seen[name] is not None]
    if any(one["programs"] is None for one in units):
        return None
    return {program["id"] for one in units for program in one["programs"]}


def meet_once(places: Places) -> Meeting:
    """Read systemd, both status files and the kernel, one right after the other."""
    unit, collector = read_units(places.unit, places.collector_unit)
    told = read_told(places)
    units = loader_unit(places, unit), collector_unit(places, collector)
    return Meeting(told, unit, witness.read_witness(places.root, units[0], units[1], boottime_ns()))


def meet(places: Places) -> Meeting:
    """A reading at which what is told and what is seen agree, or the last of MEETINGS.

    A feature that is attached, or a loader that is restarted, between two readings would look like a lie.
    """
    for _attempt in range(MEETINGS - 1):
        found = meet_once(places)
        if found.agrees:
            return found
        time.sleep(SECONDS_BETWEEN_MEETINGS)
    return meet_once(places)


def snapshot(places: Places, last: bool = True) -> dict[str, Any]:
    """One SNAPSHOT of docs/formats/observation.md; `last` is whether it is that of the window's end."""
    at, wall = boottime_ns(), time.time_ns()
    host = read_host(places.root)
    found = meet(places)
    application, wrong = application_of(places, last)
    return {
        "time_unix_ns": wall,
        "boottime_ns": at,
        "host": host,
        "unit": found.unit,
        "status": found.told.status,
        "status_error": found.told.wrong,
        "status_age_ns": status_age(found.told.status, read_boot_id(places.root), found.told.read_at),
        "application": application,
        "application_error": wrong,
        "witness": found.seen,
    }


def observe(places: Places, host: str, window_seconds: float, sleep: Callable[[float], None]) -> dict[str, Any]:
    """Two snapshots `window_seconds` apart; with 0 one, that stands for both ends."""
    start = snapshot(places, last=window_seconds <= 0)
    end = start
    if window_seconds > 0:
        sleep(window_seconds)
        end = snapshot(places)
    return {
        "schema": SCHEMA,
        "host": host,
        "boot_id": read_boot_id(places.root),
        "window_ns": end["boottime_ns"] - start["boottime_ns"],
        "start": start,
        "end": end,
    }
