# SPDX-License-Identifier: GPL-3.0-or-later
"""`counters` signals: a map's entries become series that only grow."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.exposition import Exposition, Labels, parse
from tests.loader.foreign import Caller, compile_ours, fixture_contract
from tests.loader.service import Service, feature_of, make_service, wait_for

METRIC = "ebpf_fleet_ck_calls_total"
GETPPID = {"x86_64": 110, "aarch64": 173}[platform.machine()]
KINDS = ("HASH", "LRU_HASH", "PERCPU_HASH", "ARRAY", "PERCPU_ARRAY")
ODD_NAME = 'a"b\\c\xff\nd'


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller(ODD_NAME)
    yield made
    made.end()


def kinds_contract(kind: str, entries: int) -> dict[str, Any]:
    contract = fixture_contract("counter_kinds")
    contract["maps"][-1].update(type=kind.lower(), max_entries=entries)
    if kind.endswith("ARRAY"):
        del contract["signals"][0]["key"]
    return contract


class Counting:
    """The service with counter_kinds over a map of this kind."""

    def __init__(self, loader: Path, folder: Path, trust: Trust, caller: Caller) -> None:
        self.loader, self.folder, self.trust, self.caller = loader, folder, trust, caller
        self.service: Service | None = None

    def start(self, kind: str, entries: int = 64, spread: int = 5, noise: int = 1) -> Service:
        options = [f"-DEF_CK_TYPE=BPF_MAP_TYPE_{kind}", f"-DEF_CK_ENTRIES={entries}", f"-DEF_CK_SPREAD={spread}"]
        options += [f"-DEF_CK_NOISE={noise}", f"-DEF_CK_PID={self.caller.pid}", f"-DEF_CK_NR={GETPPID}"]
        options += ["-DEF_CK_ARRAY"] if kind.endswith("ARRAY") else []
        data = compile_ours("counter_kinds", "full", self.folder / "full.bpf.o", *options)
        feature = (kinds_contract(kind, entries), {"full": data})
        self.service = make_service(self.loader, self.folder, self.trust, {"counter_kinds": feature})
        self.service.want("counter_kinds")
        return self.service

    def metrics(self) -> Exposition:
        assert self.service is not None
        return parse((self.service.state / "metrics.prom").read_text())

    def wait_total(self, expected: int) -> Exposition:
        wait_for(lambda: self.metrics().total(METRIC) == expected, f"the series add up to {expected}")
        return self.metrics()


@pytest.fixture
def counting(loader: Path, tmp_path: Path, trust: Trust, caller: Caller) -> Iterator[Counting]:
    made = Counting(loader, tmp_path, trust, caller)
    yield made
    if made.service is not None and made.service.process is not None:
        made.service.stop(signal.SIGKILL)


def labels_of(kind: str, slot: int) -> Labels:
    if kind.endswith("ARRAY"):
        return (("index", str(slot)),)
    return (("slot", str(-1 - slot)), ("comm", 'a"b\\c\ufffd\nd'), ("raw", "ab01"))


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_is_in_its_series_also_over_a_kill(counting: Counting, kind: str) -> None:
    service = counting.start(kind)
    status = service.start_settled()
    assert status["features"]["counter_kinds"]["state"] == "attached", service.journal()
    counting.caller.call(1003)
    metrics = counting.wait_total(1003)
    expected = {labels_of(kind, slot): (201.0 if slot < 3 else 200.0) for slot in range(5)}
    assert {labels: n for labels, n in metrics.samples[METRIC].items() if n} == expected
    assert metrics.types[METRIC] == "counter"
    assert metrics.helps[METRIC] == 'Calls of one process; a back\\slash,\na line feed and a "quote".'

    counting.caller.call(17)  # not read before the kill: read at the last moment
    order = service.order("global")
    service.wait_state("counter_kinds", "killed")
    counting.wait_total(1020)
    counting.caller.call(100)  # no one counts
    order.unlink()
    service.wait_state("counter_kinds", "attached")
    counting.wait_total(1020)
    counting.caller.call(30)
    counting.wait_total(1050)
    # The status is written behind the metrics.
    wait_for(lambda: service.feature("counter_kinds")["counters"]["produced"] == 1050, "the status to have every call")
    series = service.feature("counter_kinds")["series"]
    assert series == {"entries": 64 if kind.endswith("ARRAY") else 5, "max_entries": 64, "unkept": 0}
    counters = service.feature("counter_kinds")["counters"]
    assert counters["produced"] == counters["delivered"] == 1050


def test_an_array_shows_its_zeros(counting: Counting) -> None:
    service = counting.start("PERCPU_ARRAY", entries=8, spread=2)
    service.start_settled()
    counting.caller.call(4)
    found = counting.wait_total(4).samples[METRIC]
    assert found == {(("index", str(i)),): (2.0 if i < 2 else 0.0) for i in range(8)}


def test_what_makes_no_label_is_added_up(counting: Counting) -> None:
    service = counting.start("PERCPU_HASH", entries=512, spread=3, noise=100)
    service.start_settled()
    counting.caller.call(900)
    found = counting.wait_total(900).samples[METRIC]
    assert found == {labels_of("PERCPU_HASH", slot): 300.0 for slot in range(3)}

    def entries() -> object:
        return next(
            each["entries"] for each in service.feature("counter_kinds")["maps"] if each["name"] == "ef_ck_count"
        )

    # The status is written behind the metrics.
    wait_for(lambda: entries() == 300, "the map to have an entry for each key")


def test_more_entries_than_one_batch_holds(counting: Counting) -> None:
    service = counting.start("HASH", entries=60000, spread=50000)
    service.start_settled()
    counting.caller.call(60000)
    wait_for(lambda: service.feature("counter_kinds")["series"]["unkept"], "they do not all fit", 30)

    def counted() -> int:
        series = service.feature("counter_kinds")["series"]
        return int(counting.metrics().total(METRIC)) + int(series["unkept"])

    wait_for(lambda: counted() == 60000, "every call is in a series or among those not kept", 30)
    metrics = counting.metrics()
    assert len(metrics.samples[METRIC]) == 16384, "series are bounded"
    # A batch has room for 32768 of them.
    maps = {each["name"]: each for each in service.feature("counter_kinds")["maps"]}
    assert maps["ef_ck_count"]["entries"] == 50000, "the entries of every batch count"
    unkept = metrics.samples["ebpf_fleet_series_unkept_total"]
    assert unkept == {(("feature", "counter_kinds"),): float(60000 - metrics.total(METRIC))}
    assert service.journal().count("more than 16384 series") == 1


@pytest.mark.slow
def test_evictions_take_nothing_back(counting: Counting) -> None:
    service = counting.start("LRU_HASH", entries=64, spread=2000)
    service.start_settled()
    seen = 0.0
    for _ in range(4):
        counting.caller.call(1000)
        before = service.now()["time_unix_ns"]
        wait_for(lambda now=before: service.now()["time_unix_ns"] > now + 10**9, "another interval")
        now = counting.metrics().total(METRIC) + service.feature("counter_kinds")["series"]["unkept"]
        assert seen <= now <= 4000
        seen = now
    assert len(counting.metrics().samples[METRIC]) <= 64


# ---- a contract that does not fit its object ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "ef_config"}, "`key` is not as long as its map's key"),
        ({"key": "no_such_struct"}, "a map or struct that it names is not there"),
        ({"map": "no_such_map"}, "a map or struct that it names is not there"),
        ({"key": None}, "of a type or value that it cannot have"),
    ],
)
def test_a_signal_that_does_not_fit_is_refused(counting: Counting, changes: dict[str, Any], said: str) -> None:
    service = counting.start("HASH")
    contract = kinds_contract("HASH", 64)
    contract["signals"][0].update(changes)
    contract["signals"][0] = {key: value for key, value in contract["signals"][0].items() if value}
    objects = {"full": (service.bundle.root / "features/counter_kinds/full.bpf.o").read_bytes()}
    features = {"counter_kinds": (contract, objects)}
    other = make_service(counting.loader, counting.folder / "other", counting.trust, features)
    other.want("counter_kinds")
    counting.service = other
    feature = other.start_settled()["features"]["counter_kinds"]
    assert feature["state"] == "disabled" and feature["reason_code"] == "EF_LOAD_REJECTED"
    assert said in feature["reason"] and "build the release again" in feature["reason"]
    assert not feature["programs"]


# ---- ours ----


def test_syscall_errors_agree_with_what_was_done(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    service = make_service(loader, tmp_path, trust, {"syscall_errors": feature_of(feature_objects, "syscall_errors")})
    service.want("syscall_errors")
    name = "ebpf_fleet_syscall_errors_total"
    try:
        service.start_settled()
        for _ in range(137):
            with pytest.raises(FileExistsError):
                os.mkdir("/")
        number = {"x86_64": "83", "aarch64": "34"}[platform.machine()]

        def exist() -> float:
            metrics = parse((service.state / "metrics.prom").read_text())
            return sum(
                n
                for labels, n in metrics.samples.get(name, {}).items()
                if dict(labels) == {"syscall": number, "error": "17", "compat": "0"}
            )

        wait_for(lambda: exist() >= 137, "the failures are counted")
        before = exist()
        path = service.order("feature.syscall_errors")
        service.wait_state("syscall_errors", "killed")
        path.unlink()
        service.wait_state("syscall_errors", "attached")
        assert exist() >= before
    finally:
        service.stop(signal.SIGKILL)
