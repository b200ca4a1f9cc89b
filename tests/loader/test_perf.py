# SPDX-License-Identifier: GPL-3.0-or-later
"""Events through perf buffers: the same records, and every one accounted for, also when they overflow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.foreign import Caller, compile_ours, fixture_contract
from tests.loader.service import Service, feature_of, make_service, total, wait_for

CPUS = sorted(os.sched_getaffinity(0))
CPU_BYTES = 65536
AS_THE_UNIT = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+bpf,+perfmon"),
    *("--ambient-caps=-all,+bpf,+perfmon", "--bounding-set=-all,+bpf,+perfmon"),
)


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller(cpu=CPUS[0])
    yield made
    made.end()


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, caller: Caller) -> Iterator[Service]:
    """A service with perf_events wanted, which records the caller's system calls; not started."""
    data = compile_ours("perf_events", "perf", tmp_path / "perf.bpf.o", f"-DEF_PERF_EVENTS_PID={caller.pid}")
    features = {"perf_events": (fixture_contract("perf_events"), {"perf": data})}
    made = make_service(loader, tmp_path, trust, features)
    made.want("perf_events")
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def at_rest(service: Service, least: int) -> dict[str, Any]:
    """The counters once at least so many were produced and none is on its way."""

    def resting() -> dict[str, Any] | None:
        counters: dict[str, Any] = service.feature("perf_events")["counters"]
        return counters if counters["produced"] >= least and counters["in_flight"] == 0 else None

    found: dict[str, Any] = wait_for(resting, "all records have an outcome")
    return found


def gaps(events: list[dict[str, Any]]) -> int:
    """Numbers that are missing between the first and the last record of each CPU."""
    missing = 0
    for cpu in {each["cpu"] for each in events}:
        numbers = [each["number"] for each in events if each["cpu"] == cpu]
        assert numbers == sorted(set(numbers)), "in order, none twice"
        missing += numbers[-1] + 1 - len(numbers)
    return missing


def test_records_arrive_whole_and_in_order(service: Service, caller: Caller) -> None:
    status = service.start_settled()
    feature = status["features"]["perf_events"]
    assert (feature["state"], feature["variant"], feature["profile"]) == ("attached", "perf", "reduced")
    online = len(CPUS)
    quiet: dict[str, Any] = {"lag_bytes": 0, "lag_ns": 0, "ring_bytes": online * CPU_BYTES, "lost": 0, "unwritten": 0}
    quiet["backpressure"] = {"policy": "drop", "active": False, "thinning": 1, "aggregated": 0}
    assert feature["consumer"] == quiet
    maps = {each["name"]: each for each in feature["maps"]}
    assert maps["ef_perf_events"]["memory_bytes"] >= online * CPU_BYTES, "the buffers are its memory"
    before = time.time_ns()
    caller.call(100)
    counters = at_rest(service, 100)
    events = service.events()
    assert counters["delivered"] == counters["produced"] == len(events) and counters["dropped"] == 0
    assert gaps(events) == 0
    for each in events:
        assert each["event"] == "call" and each["feature"] == "perf_events"
        assert each["pid"] == caller.pid and each["comm"] == "caller" and each["cpu"] == CPUS[0]
    stamps = [each["time"] for each in events]
    assert stamps == sorted(stamps)
    newest = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - events[-1]["ktime_ns"]
    assert 0 <= newest <= time.time_ns() - before + 5 * 10**9


def test_a_record_that_is_too_short_is_dropped_counted_and_said_once(
    loader: Path, tmp_path: Path, trust: Trust, caller: Caller
) -> None:
    """Without the last 16 of its 48 bytes; the kernel pads a record to 8."""
    options = (f"-DEF_PERF_EVENTS_PID={caller.pid}", "-DEF_PERF_EVENTS_SHORT=16")
    data = compile_ours("perf_events", "perf", tmp_path / "short.bpf.o", *options)
    made = make_service(loader, tmp_path, trust, {"perf_events": (fixture_contract("perf_events"), {"perf": data})})
    made.want("perf_events")
    try:
        made.start_settled()
        caller.call(100)
        counters = at_rest(made, 100)
        assert counters["dropped"] == counters["produced"] // 2 and counters["produced"] == total(counters)
        assert [each["number"] for each in made.events()] == list(range(0, counters["produced"], 2))
        assert made.journal().count("expected 48; it is dropped") == 1
        consumer = made.feature("perf_events")["consumer"]
        assert (consumer["lost"], consumer["unwritten"]) == (0, counters["dropped"])
    finally:
        made.stop(signal.SIGKILL)


def test_every_record_has_an_outcome_when_the_buffer_overflows(service: Service, caller: Caller) -> None:
    service.start_settled()
    caller.call(10)
    service.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    caller.call(20000)
    service.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
    at_rest(service, 20010)
    caller.call(10)  # the kernel tells what was lost with the next record that it can write
    counters = at_rest(service, 20020)
    assert counters["produced"] == total(counters)
    assert counters["dropped"] > 10000, "64 KiB hold some 1,000 records"
    events = service.events()
    assert counters["delivered"] == len(events) >= CPU_BYTES // 80
    assert gaps(events) == counters["dropped"], "what is missing is what was counted as dropped"
    assert service.feature("perf_events")["consumer"]["lost"] == counters["dropped"], "and what perf says it lost"


def lag_after_a_pause(service: Service, caller: Caller) -> int:
    """The lag in the status that is written first when the loader was held up; 0 when it had read before it wrote."""
    assert service.process is not None
    service.process.send_signal(signal.SIGSTOP)
    caller.call(2000)
    time.sleep(1.1)  # so that a status is due
    stamp = service.now()["time_unix_ns"]
    service.process.send_signal(signal.SIGCONT)
    wait_for(lambda: service.now()["time_unix_ns"] > stamp, "a status")
    return int(service.feature("perf_events")["consumer"]["lag_bytes"])


@pytest.mark.slow
def test_the_lag_is_what_nobody_read_yet(service: Service, caller: Caller) -> None:
    service.start_settled()
    lags = (lag_after_a_pause(service, caller) for _ in range(60))
    lag = next((each for each in lags if each), 0)
    assert CPU_BYTES * 3 // 4 < lag <= len(CPUS) * CPU_BYTES, "2,000 records fill the buffer"
    wait_for(lambda: service.feature("perf_events")["consumer"]["lag_bytes"] == 0, "it catches up")


def test_a_kill_is_obeyed_in_a_storm_and_the_sum_holds(service: Service, caller: Caller) -> None:
    service.start_settled()
    caller.begin(3000000)
    wait_for(lambda: service.feature("perf_events")["counters"]["dropped"], "it overflows")
    service.order("feature.perf_events")
    counters = service.wait_state("perf_events", "killed")["counters"]
    assert len(service.kill_times_us()) == 1
    assert counters["produced"] == total(counters) and counters["in_flight"] == 0
    events = service.events()
    segments = sorted(int(path.suffix[1:]) for path in service.log.glob("events.jsonl.*"))
    if segments[:1] in ([], [1]):  # none was removed for want of room
        assert counters["delivered"] == len(events)
    caller.process.send_signal(signal.SIGKILL)


def test_counters_go_on_after_a_kill_is_released(service: Service, caller: Caller) -> None:
    service.start_settled()
    caller.call(500)
    before = at_rest(service, 500)
    path = service.order("feature.perf_events")
    service.wait_state("perf_events", "killed")
    caller.call(500)
    path.unlink()
    service.wait_state("perf_events", "attached")
    caller.call(500)
    after = at_rest(service, before["produced"] + 500)
    assert after["produced"] < before["produced"] + 600, "what happened while it was off is not counted"
    assert after["produced"] == total(after) and after["delivered"] == len(service.events())


def test_it_runs_with_the_capabilities_of_the_unit(service: Service, caller: Caller) -> None:
    service.state.mkdir()
    for each in (service.state, service.log):
        shutil.chown(each, 65534, 65534)
    for parent in service.folder.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    service.folder.chmod(0o755)
    service.prefix = AS_THE_UNIT
    status = service.start_settled()
    assert status["features"]["perf_events"]["state"] == "attached", status["features"]["perf_events"]["reason"]
    caller.call(50)
    assert at_rest(service, 50)["delivered"] == len(service.events())


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_a_cpu_that_comes_gets_a_buffer(service: Service, caller: Caller, tmp_path: Path) -> None:
    """Which CPUs are online is what a file says that we bind over the kernel's: no CPU of this machine is harmed."""
    online = tmp_path / "online"
    online.write_text(f"{CPUS[0]}\n")
    script = 'mount --make-rprivate / && mount --bind "$1" /sys/devices/system/cpu/online && shift && exec "$@"'
    service.prefix = ("unshare", "-m", "sh", "-c", script, "sh", str(online))
    feature = service.start_settled()["features"]["perf_events"]
    assert feature["consumer"]["ring_bytes"] == CPU_BYTES
    caller.call(100)
    first = at_rest(service, 100)
    caller.pin(CPUS[1])
    caller.call(100)
    second = at_rest(service, first["produced"] + 100)
    assert second["dropped"] >= 100, "a CPU without a buffer: the program counts what it cannot output"
    assert second["produced"] == total(second)

    online.write_text(f"{CPUS[0]}-{CPUS[1]}\n")
    wait_for(lambda: "a CPU came or went" in service.journal(), "it sees the CPU")

    def buffers() -> int:
        return int((service.feature("perf_events")["consumer"] or {"ring_bytes": 0})["ring_bytes"])

    wait_for(lambda: buffers() == 2 * CPU_BYTES, "it has a buffer")
    before = at_rest(service, 0)
    caller.call(100)
    after = at_rest(service, before["produced"] + 100)
    assert after["dropped"] == before["dropped"] and after["delivered"] >= before["delivered"] + 100
    assert service.feature("perf_events")["state"] == "attached"


def test_exec_events_without_a_ring_buffer(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> None:
    feature = feature_of(feature_objects, "exec_events", ("perf",))
    service = make_service(loader, tmp_path, trust, {"exec_events": feature})
    service.want("exec_events")
    try:
        service.start_settled()
        subprocess.run(["true"], check=True)
        found = wait_for(lambda: [each for each in service.events() if each["comm"] == "true"], "the exec is told")
        assert found[0]["event"] == "exec" and found[0]["uid"] == os.getuid()
        assert service.stop() == 0
        counters = service.feature("exec_events")["counters"]
        assert counters["produced"] == total(counters) and counters["delivered"] == len(service.events())
    finally:
        service.stop(signal.SIGKILL)
