# SPDX-License-Identifier: GPL-3.0-or-later
"""What the features do at their limits: full tables and buffers drop, and every drop is counted."""

from __future__ import annotations

import ctypes
import errno
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.features import checks
from tests.loader.service import Service, compile_feature, contract_of, make_service, total, wait_for

LIBC = ctypes.CDLL(None, use_errno=True)
NO_PID = 2**22 + 1


def tight(folder: Path, name: str, variant: str, table: str, define: str, entries: int) -> dict[str, Any]:
    """A feature with one variant, one of whose tables holds no more than `entries`."""
    contract = contract_of(name)
    contract["variants"] = [each for each in contract["variants"] if each["name"] == variant]
    contract["maps"] = [each for each in contract["maps"] if variant in each.get("variants", [variant])]
    for each in contract["maps"]:
        each.pop("variants", None)
        if each["name"] == table:
            each["max_entries"] = entries
    return {name: (contract, {variant: compile_feature(name, variant, folder / "tight.o", f"-D{define}={entries}")})}


@pytest.fixture
def start(loader: Path, tmp_path: Path, trust: Trust) -> Iterator[Any]:
    """Start a service with these features; stops it at the end."""
    started: list[Service] = []

    def make(features: dict[str, Any], **sampling: int) -> Service:
        service = make_service(loader, tmp_path, trust, features)
        service.want(*features, **sampling)
        started.append(service)
        service.start_settled()
        return service

    yield make
    for service in started:
        service.stop(signal.SIGKILL)


def final(service: Service, name: str) -> dict[str, int]:
    """The feature's counters once it is off; they add up."""
    service.order(f"feature.{name}")
    counters: dict[str, int] = service.wait_state(name, "killed")["counters"]
    assert counters["produced"] == total(counters) and counters["in_flight"] == 0
    return counters


def told(service: Service, metric: str) -> dict[tuple[str, ...], float]:
    """A metric's values by label values, written after this call."""
    service.fresh_status()
    lines = [line for line in (service.state / "metrics.prom").read_text().splitlines() if not line.startswith("#")]
    return checks.samples({"metrics": lines}, metric)


def fail_with(errors: range) -> None:
    """System calls of which each fails with another number: fcntl, read ... of no descriptor."""
    for number in errors:
        assert LIBC.syscall(number, -1, 0, 0, 0, 0, 0) == -1


def test_a_full_table_of_counters_drops_new_keys_and_keeps_the_old(start: Any, tmp_path: Path) -> None:
    service = start(tight(tmp_path, "syscall_errors", "reduced", "ef_sce_count", "EF_SCE_KEYS", 4))
    for _ in range(100):
        fail_with(range(0, 9, 8))  # read and lseek
        fail_with(range(16, 18))  # ioctl and pread64
        fail_with(range(72, 75))  # fcntl, flock and fsync
    counted = told(service, "syscall_errors_total")
    counters = final(service, "syscall_errors")
    assert len(counted) == 4
    assert counters["dropped"] >= 300, "seven keys at the least, of which four have a place"
    assert sum(told(service, "syscall_errors_total").values()) == counters["delivered"]


def test_sampling_is_counted_per_failure_and_success_is_free(start: Any, tmp_path: Path) -> None:
    features = tight(tmp_path, "syscall_errors", "full", "ef_sce_count", "EF_SCE_KEYS", 2048)
    service = start(features, syscall_errors=10)
    for _ in range(20000):
        LIBC.syscall(39)  # getpid never fails
    for _ in range(5000):
        LIBC.syscall(121, NO_PID)
    counters = final(service, "syscall_errors")
    assert counters["sampled_out"] > 4000 and counters["delivered"] > 200
    assert counters["produced"] < 20000, "what succeeds is not produced"
    assert 300 < told(service, "syscall_errors_total")[("121", str(errno.ESRCH), "0")] < 800


def test_attempts_beyond_the_table_are_dropped_and_none_stays_behind(start: Any, tmp_path: Path) -> None:
    service = start(tight(tmp_path, "tcp_connect_latency", "tracepoint", "ef_tcl_start", "EF_TCL_ATTEMPTS", 2))
    listener, filler = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0), []
    address = listener.getsockname()[:2]
    filler.append(socket.create_connection(address))
    for _ in range(20):
        waiting = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        waiting.setblocking(False)
        assert waiting.connect_ex(address) == errno.EINPROGRESS
        filler.append(waiting)
    counters = service.fresh_status()["features"]["tcp_connect_latency"]["counters"]
    assert counters["dropped"] >= 18 and counters["in_flight"] <= 2
    for each in [*filler, listener]:
        each.close()
    entries = service.fresh_status()["features"]["tcp_connect_latency"]["maps"]
    assert next(each["entries"] for each in entries if each["name"] == "ef_tcl_start") == 0
    final(service, "tcp_connect_latency")


def test_attempts_that_go_on_at_the_end_are_dropped_then(start: Any, tmp_path: Path) -> None:
    service = start(tight(tmp_path, "tcp_connect_latency", "tracepoint", "ef_tcl_start", "EF_TCL_ATTEMPTS", 64))
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0)
    address = listener.getsockname()[:2]
    with listener, socket.create_connection(address), socket.socket(socket.AF_INET6) as waiting:
        waiting.setblocking(False)
        assert waiting.connect_ex(address) == errno.EINPROGRESS
        counters = service.fresh_status()["features"]["tcp_connect_latency"]["counters"]
        assert counters["in_flight"] >= 1 and counters["produced"] == total(counters)
        assert final(service, "tcp_connect_latency")["dropped"] >= 1


def test_a_full_perf_buffer_drops_and_counts_each_drop(start: Any, tmp_path: Path) -> None:
    service = start(tight(tmp_path, "exec_events", "perf", "none", "EF_UNUSED", 1))
    service.send(signal.SIGSTOP)  # no one reads the buffers
    subprocess.run(
        ["taskset", "-c", "0", "sh", "-c", "i=0; while [ $i -lt 2500 ]; do /bin/true; i=$((i+1)); done"], check=True
    )
    service.send(signal.SIGCONT)
    wait_for(lambda: len(service.events()) > 500, "what had room is written")
    counters = final(service, "exec_events")
    assert counters["dropped"] > 500, "64 KiB hold some 1,100 records"
    assert counters["delivered"] == len(service.events())
