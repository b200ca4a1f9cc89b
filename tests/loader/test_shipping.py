# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand-over of records to a log shipper: its cursor survives rotation, and what it loses is counted."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.load import NAME, Generator, feature
from tests.loader.bundles import Trust
from tests.loader.service import ROOMY_POLICY, ROOT, Service, make_service, total, until_end, wait_for

SHIPPER = ROOT / "tests" / "load" / "shipper.py"
FILE_BYTES = 262144
FILES = 8


def policy(**sink: Any) -> dict[str, Any]:
    return {**ROOMY_POLICY, "sink": {"kind": "jsonl", "file_bytes": FILE_BYTES, "files": FILES, **sink}}


@pytest.fixture
def generator() -> Iterator[Generator]:
    with Generator() as made:
        yield made


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, generator: Generator) -> Iterator[Service]:
    """A service that records the generator's calls in small files, and reads a cursor."""
    made = make_service(loader, tmp_path, trust, {NAME: feature(tmp_path / "feature", generator.pid)})
    made.want(NAME)
    made.allow(policy(cursor=str(tmp_path / "cursor")))
    yield from until_end(made)


def begin_shipper(service: Service) -> subprocess.Popen[bytes]:
    words = [service.log, service.folder / "cursor", service.folder / "store"]
    return subprocess.Popen([sys.executable, str(SHIPPER), *map(str, words)])


def stored(service: Service) -> list[int]:
    """The numbers of the calls that reached the shipper's store, in order."""
    with sqlite3.connect(service.folder / "store") as store:
        return [json.loads(line)["number"] for (line,) in store.execute("select line from lines order by rowid")]


def at_rest(service: Service, offered: int) -> dict[str, Any]:
    def resting() -> dict[str, Any] | None:
        counters: dict[str, Any] = service.feature(NAME)["counters"]
        return counters if counters["produced"] == offered and counters["in_flight"] == 0 else None

    found: dict[str, Any] = wait_for(resting, "all events have an outcome", 40)
    assert total(found) == found["produced"]
    return found


def shipping(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.fresh_status()["shipping"]
    return found


@pytest.mark.slow
def test_a_shipper_that_is_killed_in_a_flood_takes_every_record_once(service: Service, generator: Generator) -> None:
    """Over more rotations than files are kept, killed four times, and then over a restart of the loader."""
    service.start_settled()
    shipper = begin_shipper(service)
    offered = 0
    for _ in range(4):
        generator.begin(5000, 2.0)
        time.sleep(0.7)
        shipper.kill()
        shipper.wait()
        shipper = begin_shipper(service)
        offered += generator.wait()
    counters = at_rest(service, offered)
    assert counters["delivered"] == offered and counters["dropped"] == 0
    assert service.stop() == 0
    shipper.send_signal(signal.SIGTERM)
    assert shipper.wait(60) == 0
    assert stored(service) == list(range(offered)), "none is missing, none is there twice, all are in order"
    cursor = json.loads((service.folder / "cursor").read_text())
    assert cursor["segment"] > FILES, "more segments than are kept"
    service.start_settled()
    found = shipping(service)
    assert (found["segment"], found["cursor_segment"]) == (cursor["segment"], cursor["segment"])
    assert found["unshipped_bytes"] == found["unshipped_deleted_bytes"] == 0
    assert "EF_RECORDS_UNSHIPPED" not in service.journal()


def test_what_no_shipper_took_is_counted_and_said(service: Service, generator: Generator) -> None:
    """A cursor that stands still while files are removed: bytes in status and metrics, a reason, an audit record."""
    (service.folder / "cursor").write_text('{"schema": "ebpf.fleet/cursor/v1", "segment": 1, "offset": 1000}')
    service.start_settled()
    assert shipping(service)["unshipped_deleted_bytes"] == 0
    offered = generator.run(10_000, 2.0)
    at_rest(service, offered)
    found = shipping(service)
    there = {int(path.suffix[1:]): path.stat().st_size for path in service.log.glob("events.jsonl.*")}
    assert min(there) > 2 and len(there) == FILES - 1
    assert found["cursor_segment"] == 1 and found["segment"] == max(there) + 1
    assert found["unshipped_bytes"] == sum(there.values()) + service.events_path.stat().st_size
    lines = service.events()
    gone = lines[0]["number"]
    bytes_a_line = [len(json.dumps(each)) + 1 for each in (lines[0], lines[-1])]
    removed = found["unshipped_deleted_bytes"]
    assert gone * min(bytes_a_line) * 0.9 - 1000 < removed < gone * max(bytes_a_line) * 1.1
    text = (service.state / "metrics.prom").read_text()
    assert f"ebpf_fleet_events_unshipped_deleted_bytes_total {removed}\n" in text
    records = [json.loads(line) for line in (service.log / "audit.jsonl").read_text().splitlines()]
    said = [each for each in records if each["reason_code"] == "EF_RECORDS_UNSHIPPED"]
    assert len(said) == 1 and said[0]["event"] == "degrade" and said[0]["who"]["source"] == "sink"
    assert "start it, or allow more with sink.files" in service.journal()


def test_how_far_the_shipper_is_behind_is_told_to_the_byte(service: Service, generator: Generator) -> None:
    """Of the segment that it reads only what is behind the offset; nothing of those before."""
    service.start_settled()
    at_rest(service, generator.run(5_000, 2.0))
    sizes = {int(path.suffix[1:]): path.stat().st_size for path in service.log.glob("events.jsonl.*")}
    reads = sorted(sizes)[len(sizes) // 2]
    assert len(sizes) > 2 and min(sizes) < reads < max(sizes)
    cursor = {"schema": "ebpf.fleet/cursor/v1", "segment": reads, "offset": 1000}
    (service.folder / "cursor").write_text(json.dumps(cursor))
    behind = sum(size for number, size in sizes.items() if number >= reads) + service.events_path.stat().st_size - 1000
    found = shipping(service)
    assert (found["cursor_segment"], found["cursor_offset"]) == (reads, 1000)
    assert found["unshipped_bytes"] == behind
    assert f"ebpf_fleet_events_unshipped_bytes {behind}\n" in (service.state / "metrics.prom").read_text()


@pytest.mark.slow
def test_a_cursor_that_is_no_cursor_holds_up_nothing(service: Service, generator: Generator) -> None:
    """A FIFO, a link to an endless file, a large file, other JSON, absurd numbers: no one waits, and files stay few."""
    path = service.folder / "cursor"
    huge = '{"schema": "ebpf.fleet/cursor/v1", "segment": 999999999999999999, "offset": 0}'
    odd: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.write_text("x" * 5000),
        lambda: path.write_text("[1]"),
        lambda: path.write_text(huge),
    ]
    offered = 0
    for number, make in enumerate(odd):
        make()
        if not number:
            service.start_settled()
        offered += generator.run(10_000, 0.5)
        assert at_rest(service, offered)["delivered"] == offered
        found = shipping(service)
        path.unlink()
        assert found["cursor_segment"] == (999999999999999999 if make is odd[-1] else None)
        assert found["segment"] < 100
    assert len(list(service.log.glob("events.jsonl*"))) <= FILES


def test_without_a_cursor_nothing_is_known_of_shipping(service: Service, generator: Generator) -> None:
    service.allow(policy(files=2))
    service.start_settled()
    at_rest(service, generator.run(10_000, 1.0))
    assert shipping(service) is None
    assert "ebpf_fleet_events_unshipped_deleted_bytes_total " not in [
        line[: line.rfind(" ") + 1] for line in (service.state / "metrics.prom").read_text().splitlines()
    ]
