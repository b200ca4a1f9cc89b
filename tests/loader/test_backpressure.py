# SPDX-License-Identifier: GPL-3.0-or-later
"""What an events signal does when its reader is behind: drop, sample or aggregate, each event with one outcome."""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.load import NAME, Generator, feature
from tests.loader.bundles import Trust
from tests.loader.service import ROOT, Service, dump_map, make_service, map_id, total, wait_for

DROPPED = 2  # EF_DROPPED: its place in ef_counters
SMALL_RING = "-DEF_RING_BYTES=65536"
LOOSE = {"cpu_millicores": 1000, "event_rate_per_second": 10_000_000, "drop_ratio_ppm": 1_000_000}
SAME, BEGUN, CHANGED, ENDED = range(4)
DROP, SAMPLE, AGGREGATE = range(3)


class Strain(ctypes.Structure):
    """struct ef_strain."""

    _fields_ = [("lag", ctypes.c_uint64), ("ring", ctypes.c_uint64), ("dropped", ctypes.c_uint64)]


class State(ctypes.Structure):
    """struct ef_backpressure."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("level", ctypes.c_uint),
        ("calm", ctypes.c_uint),
        ("patience", ctypes.c_uint),
        ("since", ctypes.c_uint),
        ("stepped_back", ctypes.c_bool),
        ("known", ctypes.c_bool),
        ("dropped_before", ctypes.c_uint64),
        ("at", Strain),
    ]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """backpressure.c by itself: it reads neither clock nor map, so all of its time can be tried."""
    library = tmp_path_factory.mktemp("rules") / "backpressure.so"
    source = ROOT / "bpf/loader/events/backpressure.c"
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-std=gnu11",
        "-iquote",
        str(ROOT / "bpf/loader"),
        "-D_GNU_SOURCE",
        "-Wall",
        "-Werror",
        "-o",
        str(library),
    ]
    subprocess.run([*command, str(source)], check=True)
    return ctypes.CDLL(str(library))


def check(rules: ctypes.CDLL, state: State, lag: int, dropped: int = 0) -> int:
    return int(rules.ef_backpressure_check(ctypes.byref(state), ctypes.byref(Strain(lag, 1000, dropped))))


def calm_checks_until_change(rules: ctypes.CDLL, state: State, lag: int = 0, dropped: int = 0) -> tuple[int, int]:
    """How many calm checks it takes, and what the change is."""
    for number in range(1, 10_000):
        change = check(rules, state, lag, dropped)
        if change != SAME:
            return number, change
    raise AssertionError("it never steps back")


def test_drop_does_nothing_whatever_is_seen(rules: ctypes.CDLL) -> None:
    state = State(kind=DROP)
    assert [check(rules, state, 1000, dropped) for dropped in (0, 5, 9)] == [SAME] * 3
    assert state.level == 0


def test_a_step_needs_half_a_ring_or_a_drop(rules: ctypes.CDLL) -> None:
    state = State(kind=SAMPLE)
    assert check(rules, state, 500, dropped=7) == SAME, "what was dropped before the first check is old"
    assert check(rules, state, 500, dropped=7) == SAME, "half full is what a busy reader may find"
    assert check(rules, state, 501, dropped=7) == BEGUN
    assert check(rules, state, 0, dropped=8) == CHANGED
    assert (state.at.lag, state.at.dropped) == (0, 1)
    assert rules.ef_backpressure_thinning(ctypes.byref(state)) == 4


def test_sampling_ends_at_its_thinnest(rules: ctypes.CDLL) -> None:
    state = State(kind=SAMPLE)
    changes = [check(rules, state, 1000) for _ in range(12)]
    assert changes == [BEGUN] + [CHANGED] * 9 + [SAME] * 2
    assert rules.ef_backpressure_thinning(ctypes.byref(state)) == 1024


def test_it_steps_back_slowly_and_later_after_each_relapse(rules: ctypes.CDLL) -> None:
    state = State(kind=AGGREGATE)
    waits = []
    for _ in range(6):
        assert check(rules, state, 900) == BEGUN
        number, change = calm_checks_until_change(rules, state)
        assert change == ENDED
        waits.append(number)
    assert waits == [30, 60, 120, 240, 240, 240]
    for _ in range(30):
        assert check(rules, state, 0) == SAME
    assert check(rules, state, 900) == BEGUN
    assert calm_checks_until_change(rules, state)[0] == 30, "what lasted is not a relapse"


def test_a_ring_between_calm_and_strained_holds_the_level(rules: ctypes.CDLL) -> None:
    state = State(kind=SAMPLE)
    check(rules, state, 900)
    assert all(check(rules, state, 400) == SAME for _ in range(200))
    assert state.level == 1
    assert calm_checks_until_change(rules, state, lag=375) == (30, ENDED)


@pytest.fixture
def generator() -> Iterator[Generator]:
    with Generator() as made:
        yield made


@pytest.fixture
def services() -> Iterator[list[Service]]:
    made: list[Service] = []
    yield made
    for each in made:
        if each.process is not None:
            each.stop(signal.SIGKILL)


def start(
    services: list[Service], loader: Path, folder: Path, trust: Trust, pid: int, sink: dict[str, Any], **changes: Any
) -> Service:
    """A service that records the calls of that process with this backpressure."""
    service = make_service(loader, folder, trust, {NAME: feature(folder / "feature", pid, SMALL_RING, **changes)})
    services.append(service)
    service.want(NAME)
    service.allow({"schema": "ebpf.fleet/policy/v1", "host": LOOSE, "sink": sink})
    service.start_settled()
    return service


def state_of(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.feature(NAME)["consumer"]["backpressure"]
    return found


def drain(reader: socket.socket) -> None:
    """Read all that waits now."""
    try:
        while reader.recv(65536):
            pass
    except BlockingIOError:
        pass


def at_rest(service: Service, offered: int, reader: socket.socket | None = None) -> dict[str, Any]:
    """The counters once every call that was offered has its outcome; what the sink kept back is read meanwhile."""

    def resting() -> dict[str, Any] | None:
        if reader is not None:
            drain(reader)
        counters: dict[str, Any] = service.feature(NAME)["counters"]
        return counters if counters["produced"] == offered and counters["in_flight"] == 0 else None

    found: dict[str, Any] = wait_for(resting, "all events have an outcome", 40)
    assert total(found) == found["produced"]
    return found


def audited(service: Service, event: str, code: str) -> list[dict[str, Any]]:
    lines = (service.log / "audit.jsonl").read_text().splitlines()
    return [each for each in map(json.loads, lines) if each["event"] == event and each["reason_code"] == code]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[socket.socket]:
    """A reader's end that takes a few datagrams and then nothing more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.setblocking(False)
        yield made


def flood(
    service: Service, generator: Generator, rate: int, seconds: float, then: Callable[[], object] | None = None
) -> int:
    """Offer so many calls, to a reader that stands still until its ring is full: behind is certain then."""
    generator.begin(rate, seconds)
    service.send(signal.SIGSTOP)
    time.sleep(0.3)
    service.send(signal.SIGCONT)
    wait_for(lambda: state_of(service)["active"], "its backpressure acts")
    if then is not None:
        then()
    return generator.wait()


@pytest.mark.slow
def test_sample_thins_at_the_source_while_the_sink_stands_still(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service], reader: socket.socket
) -> None:
    sink = {"kind": "datagram", "path": str(tmp_path / "socket")}
    service = start(services, loader, tmp_path, trust, generator.pid, sink, backpressure="sample")
    assert state_of(service) == {"policy": "sample", "active": False, "thinning": 1, "aggregated": 0}
    offered = generator.run(50_000, 3.0)
    strained = service.fresh_status()["features"][NAME]
    assert strained["consumer"]["backpressure"]["active"]
    assert strained["sample_every"] == strained["consumer"]["backpressure"]["thinning"] > 1
    counters = at_rest(service, offered, reader)
    assert counters["sampled_out"] > counters["dropped"] > 0, "most of it was never made a record"
    assert f"feature {NAME}: backpressure begins: its reader is behind:" in service.journal()
    record = audited(service, "degrade", "EF_BACKPRESSURE_SAMPLE")[0]
    assert record["who"]["source"] == "backpressure" and "its contract says sample" in record["reason"]
    thinnest = strained["consumer"]["backpressure"]["thinning"]
    wait_for(lambda: state_of(service)["thinning"] < thinnest, "it steps back when the reader reads again", 20)


@pytest.mark.slow
def test_drop_drops_and_passes_over_nothing(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service], reader: socket.socket
) -> None:
    sink = {"kind": "datagram", "path": str(tmp_path / "socket")}
    service = start(services, loader, tmp_path, trust, generator.pid, sink)
    offered = generator.run(50_000, 1.0)
    counters = at_rest(service, offered, reader)
    assert counters["dropped"] > 0 and counters["sampled_out"] == 0
    assert state_of(service) == {"policy": "drop", "active": False, "thinning": 1, "aggregated": 0}


@pytest.mark.slow
def test_aggregate_tells_a_flood_as_a_line_a_group(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service]
) -> None:
    service = start(
        services, loader, tmp_path, trust, generator.pid, {"kind": "jsonl", "file_bytes": 1 << 28},
        backpressure="aggregate", aggregate_by=["comm", "pid"],
    )  # fmt: skip
    offered = flood(service, generator, 50_000, 3.0)
    counters = at_rest(service, offered)
    wait_for(lambda: not state_of(service)["active"], "single records again when the flood is over")
    offered += generator.run(1000, 0.2)
    counters = at_rest(service, offered)
    lines = [json.loads(line) for line in service.events_path.read_text().splitlines()]
    together = [each for each in lines if "aggregated" in each]
    assert together and {(each["comm"], each["pid"], each["event"]) for each in together} == {
        ("generator", generator.pid, "call")
    }
    assert all("number" not in each for each in together), "only the fields that it is told by"
    told = sum(each["aggregated"] for each in together)
    assert told == counters["sampled_out"] == state_of(service)["aggregated"] > 10_000
    assert counters["delivered"] == len(lines) - len(together) and len(together) < 30
    assert audited(service, "degrade", "EF_BACKPRESSURE_AGGREGATE")
    assert [each for each in audited(service, "recover", "EF_OK") if each["who"]["source"] == "backpressure"]
    text = (service.state / "metrics.prom").read_text()
    assert f'ebpf_fleet_events_aggregated_total{{feature="{NAME}"}} {told}\n' in text
    assert f'ebpf_fleet_backpressure_active{{feature="{NAME}",policy="aggregate"}} 0\n' in text


def test_what_was_counted_together_is_told_when_the_feature_goes(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service]
) -> None:
    service = start(
        services, loader, tmp_path, trust, generator.pid, {"kind": "jsonl", "file_bytes": 1 << 28},
        backpressure="aggregate", aggregate_by=["comm"],
    )  # fmt: skip
    flood(service, generator, 50_000, 1.5, lambda: service.order("global"))
    service.wait_state(NAME, "killed")
    feature_now = service.feature(NAME)
    counters = feature_now["counters"]
    assert counters["in_flight"] == 0 and total(counters) == counters["produced"]
    lines = [json.loads(line) for line in service.events_path.read_text().splitlines()]
    assert sum(each.get("aggregated", 0) for each in lines) == counters["sampled_out"] > 0


def test_aggregated_records_that_nobody_takes_are_dropped(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service]
) -> None:
    service = start(
        services, loader, tmp_path, trust, generator.pid, {"kind": "datagram", "path": str(tmp_path / "nobody")},
        backpressure="aggregate", aggregate_by=["comm"],
    )  # fmt: skip
    offered = generator.run(20_000, 2.0)
    counters = at_rest(service, offered)
    assert counters["dropped"] == offered and counters["sampled_out"] == counters["delivered"] == 0
    # On a busy machine the ring may be full for a moment: what was dropped there never came to the loader.
    in_kernel = dump_map(map_id(service.feature(NAME), "ef_counters"))[DROPPED]
    assert service.feature(NAME)["consumer"]["unwritten"] == offered - in_kernel > 0
    assert state_of(service)["aggregated"] == 0


def test_more_groups_than_there_is_room_for_are_told_together(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service]
) -> None:
    service = start(
        services, loader, tmp_path, trust, generator.pid, {"kind": "jsonl", "file_bytes": 1 << 28},
        backpressure="aggregate", aggregate_by=["number"],
    )  # fmt: skip
    counters = at_rest(service, flood(service, generator, 50_000, 2.0))
    lines = [json.loads(line) for line in service.events_path.read_text().splitlines()]
    together = [each for each in lines if "aggregated" in each]
    others = [each for each in together if "number" not in each]
    assert others and max(each["aggregated"] for each in others) > 256
    assert sum(each["aggregated"] for each in together) == counters["sampled_out"]
    assert len(together) <= 257 * 8, "a table of 256 and the rest, each second"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backpressure": "wait"}, ["signals.backpressure", "must be drop, sample or aggregate"]),
        ({"backpressure": "aggregate"}, ["signals.aggregate_by", "belongs to 'backpressure: aggregate'"]),
        ({"aggregate_by": ["comm"]}, ["signals.aggregate_by", "belongs to 'backpressure: aggregate'"]),
        ({"backpressure": "aggregate", "aggregate_by": []}, ["aggregate_by", "must be a list that is not empty"]),
        ({"backpressure": "aggregate", "aggregate_by": [1]}, ["aggregate_by", "must hold strings only"]),
    ],
)
def test_an_odd_backpressure_is_refused(
    loader: Path, tmp_path: Path, trust: Trust, services: list[Service], changes: dict[str, Any], words: list[str]
) -> None:
    service = make_service(loader, tmp_path, trust, {NAME: feature(tmp_path / "feature", 1, **changes)})
    services.append(service)
    service.start()
    status = wait_for(service.status, "the refusal is published")
    assert status["state"] == "refused" and status["reason_code"] == "EF_CONTRACT_MALFORMED"
    assert all(word in status["reason"] for word in words), status["reason"]


def test_a_field_that_the_record_lacks_disables_the_feature(
    loader: Path, tmp_path: Path, trust: Trust, generator: Generator, services: list[Service]
) -> None:
    service = start(
        services, loader, tmp_path, trust, generator.pid, {"kind": "jsonl"},
        backpressure="aggregate", aggregate_by=["comn"],
    )  # fmt: skip
    found = service.feature(NAME)
    assert found["state"] == "disabled" and found["reason_code"] == "EF_LOAD_REJECTED"
    assert "no such field as `aggregate_by` names" in found["reason"]
