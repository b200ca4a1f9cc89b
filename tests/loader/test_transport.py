# SPDX-License-Identifier: GPL-3.0-or-later
"""Sinks and their faults, and the age of what waits: every event has one outcome, whoever reads or does not."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.load import NAME, Generator, feature
from tests.loader.bundles import Trust
from tests.loader.service import Service, make_service, total, wait_for

SCHEMA = "ebpf.fleet/policy/v1"
LOOSE = {"cpu_millicores": 1000, "event_rate_per_second": 10_000_000, "drop_ratio_ppm": 1_000_000}


@pytest.fixture
def generator() -> Iterator[Generator]:
    with Generator() as made:
        yield made


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, generator: Generator) -> Iterator[Service]:
    """A service that wants the generator's calls; not started."""
    made = make_service(loader, tmp_path, trust, {NAME: feature(tmp_path / "feature", generator.pid)})
    made.want(NAME)
    yield made
    if made.process is not None:
        made.send(signal.SIGCONT)
        made.stop(signal.SIGKILL)


def choose(service: Service, **sink: Any) -> None:
    """Write a policy with this sink, whose limits let every load here be."""
    document = {"schema": SCHEMA, "host": LOOSE, "sink": sink}
    (service.etc / "policy.json").write_text(json.dumps(document))


def at_rest(service: Service, offered: int) -> dict[str, Any]:
    """The counters once every call that was offered has its outcome."""

    def resting() -> dict[str, Any] | None:
        counters: dict[str, Any] = service.feature(NAME)["counters"]
        return counters if counters["produced"] == offered and counters["in_flight"] == 0 else None

    found: dict[str, Any] = wait_for(resting, "all events have an outcome")
    assert total(found) == found["produced"]
    return found


def reader_at(path: Path) -> socket.socket:
    """A reader's end that may be read without waiting."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.setblocking(False)
    return made


def take_all(reader: socket.socket) -> list[dict[str, Any]]:
    """What waits at the reader."""
    found = []
    while True:
        try:
            found.append(json.loads(reader.recv(65536)))
        except BlockingIOError:
            return found


def test_count_delivers_without_writing(service: Service, generator: Generator) -> None:
    choose(service, kind="count")
    service.start_settled()
    offered = generator.run(50_000, 1.0)
    counters = at_rest(service, offered)
    assert counters["delivered"] == offered > 0
    assert not service.events_path.exists()


def test_datagrams_are_the_events(service: Service, generator: Generator, tmp_path: Path) -> None:
    with reader_at(tmp_path / "socket") as reader:
        choose(service, kind="datagram", path=str(tmp_path / "socket"))
        service.start_settled()
        offered = generator.run(100, 0.5)
        events: list[dict[str, Any]] = []

        def arrived() -> bool:
            events.extend(take_all(reader))
            return len(events) >= offered

        wait_for(arrived, "all datagrams arrive")
    assert [each["number"] for each in events] == list(range(offered))
    assert {(each["feature"], each["pid"]) for each in events} == {(NAME, generator.pid)}
    assert at_rest(service, offered)["delivered"] == offered


def test_an_absent_reader_costs_events_and_nothing_else(service: Service, generator: Generator, tmp_path: Path) -> None:
    choose(service, kind="datagram", path=str(tmp_path / "socket"))
    service.start_settled()
    offered = generator.run(1000, 0.5)
    counters = at_rest(service, offered)
    assert counters["dropped"] == offered and counters["delivered"] == 0
    assert service.feature(NAME)["consumer"]["unwritten"] == offered
    assert service.journal().count("no reader takes events at") == 1
    with reader_at(tmp_path / "socket") as reader:

        def reached() -> bool:
            nonlocal offered
            offered += generator.run(100, 0.1)
            return bool(take_all(reader))

        wait_for(reached, "the reader that came is reached")
        counters = at_rest(service, offered)
    assert counters["delivered"] > 0
    assert "events are taken again" in service.journal()


def test_a_reader_that_stands_still_holds_nobody_up(service: Service, generator: Generator, tmp_path: Path) -> None:
    with reader_at(tmp_path / "socket") as reader:
        choose(service, kind="datagram", path=str(tmp_path / "socket"))
        before = service.start_settled()["loader"]["rss_bytes"]
        offered = generator.run(20_000, 2.0)
        status = service.fresh_status()
        counters = status["features"][NAME]["counters"]
        assert total(counters) == counters["produced"]
        assert counters["dropped"] > 0 and status["loader"]["rss_bytes"] < before + (16 << 20), "8 MiB are the ring's"
        service.order("global")
        service.wait_state(NAME, "killed")
        counters = at_rest(service, offered)
        assert counters["delivered"] == len(take_all(reader)), "what was taken is what counts as delivered"


def test_the_journal_gets_fields(service: Service, generator: Generator) -> None:
    if (
        subprocess.run(["journalctl", "-n", "0"], capture_output=True).returncode
        or not Path("/run/systemd/journal/socket").is_socket()
    ):
        pytest.skip("no journald runs here")
    choose(service, kind="journal")
    service.start_settled()
    offered = generator.run(50, 0.5)
    assert at_rest(service, offered)["delivered"] == offered
    command = ["journalctl", "-o", "json", f"EF_FEATURE={NAME}", f"_PID={service.pid}"]

    def lines() -> list[str]:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        return found if len(found) >= offered else []

    found = wait_for(lines, "the journal has the events")
    assert {json.loads(json.loads(each)["MESSAGE"])["pid"] for each in found} == {generator.pid}


@pytest.mark.sample(1)
@pytest.mark.parametrize("files", [1, 2, 4])
def test_rotation_is_bounded(service: Service, generator: Generator, files: int) -> None:
    (service.log / "events.jsonl.9").write_text("of an earlier policy\n")
    choose(service, kind="jsonl", file_bytes=65536, files=files)
    service.start_settled()
    offered = generator.run(20_000, 1.0)
    assert at_rest(service, offered)["delivered"] == offered
    sizes = {each.name: each.stat().st_size for each in service.log.glob("events.jsonl*")}
    segments = sorted(int(name.rpartition(".")[2]) for name in sizes if name != "events.jsonl")
    assert len(sizes) == files and max(sizes.values()) <= 65536, sizes
    assert not segments or segments == list(range(segments[0], segments[0] + files - 1)), "the youngest, in a row"
    assert files == 1 or segments[0] > 9, "numbers go on from those that are there"
    numbers = [json.loads(each)["number"] for each in service.events_path.read_text().splitlines()]
    assert numbers[-1] == offered - 1 and numbers == list(range(numbers[0], offered))


def test_a_full_disk_drops_and_counts(service: Service, generator: Generator) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(service.log)], check=True)
    try:
        choose(service, kind="jsonl")
        service.start_settled()
        offered = generator.run(5000, 1.0)
        counters = at_rest(service, offered)
        assert counters["dropped"] > 0 and counters["delivered"] == len(service.events())
    finally:
        service.stop(signal.SIGKILL)
        subprocess.run(["umount", str(service.log)], check=True)


def test_the_age_of_what_waited_is_told(service: Service, generator: Generator) -> None:
    service.start_settled()
    generator.run(100, 0.2)
    service.send(signal.SIGSTOP)
    offered_while_stopped = generator.run(100, 0.2)
    time.sleep(1.5)
    service.send(signal.SIGCONT)
    assert offered_while_stopped
    oldest = wait_for(lambda: service.feature(NAME)["consumer"]["lag_ns"] > 1_000_000_000, "the age shows")
    assert oldest
    wait_for(lambda: service.feature(NAME)["consumer"]["lag_ns"] == 0, "it is over")
    counters = service.fresh_status()["features"][NAME]["counters"]
    assert total(counters) == counters["produced"] == counters["delivered"]


@pytest.mark.parametrize(
    ("sink", "field"),
    [
        ({"kind": "syslog"}, "kind"),
        ({"kind": "datagram"}, "path"),
        ({"kind": "datagram", "path": "relative"}, "path"),
        ({"kind": "datagram", "path": "/run/../etc/s"}, "path"),
        ({"kind": "datagram", "path": "/" + "a" * 107}, "path"),
        ({"kind": "datagram", "path": "/run/a b"}, "path"),
        ({"kind": "count", "path": "/run/s"}, "path"),
        ({"kind": "journal", "files": 2}, "files"),
        ({"kind": "journal", "cursor": "/run/c"}, "cursor"),
        ({"kind": "jsonl", "files": 1, "cursor": "/run/c"}, "cursor"),
        ({"kind": "jsonl", "cursor": "c"}, "cursor"),
        ({"kind": "jsonl", "files": 0}, "files"),
        ({"kind": "jsonl", "file_bytes": 1}, "file_bytes"),
        ({"kind": "jsonl", "size": 1}, "size"),
    ],
)
def test_an_odd_sink_is_refused(service: Service, sink: dict[str, Any], field: str) -> None:
    choose(service, **sink)
    status = service.start_settled()
    assert status["features"][NAME]["reason_code"] == "EF_HOST_POLICY_MALFORMED"
    assert f"sink.{field}" in status["policy_error"] and "policy.json" in status["policy_error"]
