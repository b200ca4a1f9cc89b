# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that others wrote: loaded, decoded, accounted for as far as they can be, found when they are left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.exposition import parse
from tests.loader.foreign import Caller, compile_theirs, fixture_contract
from tests.loader.service import Service, make_service, wait_for

EXEC = "third_party_exec"
PERF = "third_party_perf"
UNKNOWN = {"produced": None, "dropped": None, "sampled_out": None, "in_flight": None}


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The object of third_party_exec, against this kernel's types."""
    return compile_theirs(EXEC, "bootstrap", tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, bootstrap: bytes) -> Iterator[Service]:
    """A service with third_party_exec wanted; not started."""
    made = make_service(loader, tmp_path, trust, {EXEC: (fixture_contract(EXEC), {"bootstrap": bootstrap})})
    made.want(EXEC)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def events_of(service: Service, comm: str) -> list[dict[str, Any]]:
    return [each for each in service.events() if each["comm"] == comm]


def test_it_is_attached_as_its_contract_says(service: Service) -> None:
    feature = service.start_settled()["features"][EXEC]
    assert (feature["state"], feature["variant"], feature["profile"]) == ("attached", "bootstrap", "full")
    assert [each["name"] for each in feature["programs"]] == ["handle_exec", "handle_exit"]
    assert {each["name"] for each in feature["maps"]} == {"exec_start", "rb", ".rodata", ".bss"}
    assert feature["consumer"]["lost"] is None and feature["series"] is None


def test_its_records_are_told_and_dated(service: Service, tmp_path: Path) -> None:
    service.start_settled()
    before = time.time()
    odd = tmp_path / "odd'name"
    odd.write_text("#!/bin/sh\nexit 3\n")
    odd.chmod(0o755)
    done = subprocess.run([str(odd)], check=False)
    assert done.returncode == 3
    wait_for(lambda: len(events_of(service, "odd'name")) >= 2, "its start and its end are told")
    start, end = events_of(service, "odd'name")[:2]
    assert (start["exit_event"], end["exit_event"]) == (0, 1)
    assert end["exit_code"] == 3 and end["duration_ns"] > 0 and end["pid"] == start["pid"]
    assert start["filename"] == str(odd)[:126] and end["filename"] == ""
    assert start["feature"] == EXEC and start["event"] == "process", "the line's own keys"
    assert start["feature_"] == -7, "the record's field of the same name"
    stamp = datetime.strptime(start["time"][:26], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=timezone.utc)
    assert before - 1 <= stamp.timestamp() <= time.time() + 1, "the time at which it was read"


def test_what_it_does_not_count_is_unknown(service: Service) -> None:
    service.start_settled()
    subprocess.run(["true"], check=True)
    wait_for(lambda: events_of(service, "true"), "events")
    service.order(f"feature.{EXEC}")
    counters = service.wait_state(EXEC, "killed")["counters"]
    assert counters == {**UNKNOWN, "delivered": len(service.events())}
    text = (service.state / "metrics.prom").read_text()
    metrics = parse(text)
    labels = (("feature", EXEC),)
    assert metrics.samples["ebpf_fleet_events_delivered_total"] == {labels: float(counters["delivered"])}
    for name in ("produced", "dropped", "sampled_out"):
        assert f"ebpf_fleet_events_{name}_total" not in metrics.samples, "no sample rather than a 0"
    assert "ebpf_fleet_events_in_flight" not in metrics.samples


def test_sampling_that_it_does_not_know_is_said_and_not_claimed(service: Service) -> None:
    service.want(EXEC, **{EXEC: 5})
    feature = service.start_settled()["features"][EXEC]
    assert feature["sample_every"] == 1
    service.want(EXEC, **{EXEC: 7})
    wait_for(lambda: "knows no sampling" in service.journal(), "it says so")
    first = service.now()["time_unix_ns"]
    wait_for(lambda: service.now()["time_unix_ns"] > first + 2 * 10**9, "two intervals")
    assert service.journal().count("knows no sampling") == 1
    assert service.feature(EXEC)["sample_every"] == 1


# ---- perf ----


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller("theirs", cpu=min(os.sched_getaffinity(0)))  # each CPU has a buffer and tells its own losses
    yield made
    made.end()


@pytest.fixture
def tracing(loader: Path, tmp_path: Path, trust: Trust, caller: Caller) -> Iterator[Service]:
    """A service with third_party_perf wanted; not started."""
    data = compile_theirs(PERF, "trace", tmp_path / "theirs", f"-DTHIRD_PARTY_PID={caller.pid}")
    made = make_service(loader, tmp_path, trust, {PERF: (fixture_contract(PERF), {"trace": data})})
    made.want(PERF)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def test_records_shorter_than_their_struct_are_filled_up(tracing: Service, caller: Caller) -> None:
    assert tracing.start_settled()["features"][PERF]["profile"] == "reduced"
    caller.call(20)
    wait_for(lambda: len(tracing.events()) >= 20, "events")
    for each in tracing.events():
        assert each["args"] == "shorted" and each["comm"] == "theirs" and each["args_size"] == 8
    tracing.order("global")
    counters = tracing.wait_state(PERF, "killed")["counters"]
    assert counters == {**UNKNOWN, "dropped": 0, "delivered": len(tracing.events())}


def test_what_perf_lost_counts_as_dropped(tracing: Service, caller: Caller) -> None:
    tracing.start_settled()
    tracing.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    caller.call(20000)
    tracing.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
    wait_for(tracing.events, "events")

    def told() -> int:
        caller.call(10)  # the loss is told with the next record of the CPU that lost
        return tracing.feature(PERF)["counters"]["dropped"]

    wait_for(told, "the loss is told")
    feature = tracing.feature(PERF)
    assert feature["counters"]["dropped"] == feature["consumer"]["lost"] > 5000
    path = tracing.order("global")
    lost = tracing.wait_state(PERF, "killed")["counters"]["dropped"]
    assert lost >= feature["consumer"]["lost"]
    path.unlink()
    tracing.wait_state(PERF, "attached")
    assert tracing.feature(PERF)["counters"]["dropped"] >= lost, "never backwards"


# ---- what is left ----


def left(loader: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, names of the programs that are left, messages."""
    done = subprocess.run([str(loader), "left", *arguments], check=False, capture_output=True, text=True)
    names = [each["name"] for each in json.loads(done.stdout)["programs"]] if done.stdout else []
    return done.returncode, names, done.stderr


def test_left_finds_programs_of_others_by_the_programs_file(service: Service, loader: Path, tmp_path: Path) -> None:
    service.start_settled()
    copy = tmp_path / "programs.copy"
    copy.write_bytes((service.state / "programs").read_bytes())
    assert copy.read_text().count("\n") == 2
    assert not {"handle_exec", "handle_exit"} & set(left(loader)[1]), "their names do not tell"
    code, names, _ = left(loader, "--also", str(copy))
    assert code == 4 and {"handle_exec", "handle_exit"} <= set(names)

    service.stop(signal.SIGKILL)
    wait_for(lambda: not {"handle_exec", "handle_exit"} & set(left(loader, "--also", str(copy))[1]), "they go", 5)


def test_left_knows_them_by_tag_and_name_not_by_number(service: Service, loader: Path, tmp_path: Path) -> None:
    service.start_settled()
    lines = [line.split() for line in (service.state / "programs").read_text().splitlines()]
    other = tmp_path / "other.programs"
    other.write_text("".join(f"1 {tag} {feature} {name}\n" for _, tag, feature, name in lines))
    assert {"handle_exec", "handle_exit"} <= set(left(loader, "--also", str(other))[1])
    other.write_text("".join(f"{number} {'0' * 16} {feature} {name}\n" for number, _, feature, name in lines))
    assert not {"handle_exec", "handle_exit"} & set(left(loader, "--also", str(other))[1])


@pytest.mark.parametrize(
    "text",
    ["12 0123456789abcdef feature\n", "12 0123456789ABCDEF f n\n", "x 0123456789abcdef f n\n", "1 ab f n\n", "1 0123"],
)
def test_left_refuses_a_file_that_it_does_not_understand(loader: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "programs"
    path.write_text("1 0123456789abcdef feature name\n" + text)
    code, names, said = left(loader, "--also", str(path))
    assert code == 1 and not names
    assert f"{path}:2:" in said and "give a copy" in said


def test_left_refuses_a_file_that_is_not_there(loader: Path, tmp_path: Path) -> None:
    code, names, said = left(loader, "--also", str(tmp_path / "nowhere"))
    assert code == 1 and not names and "cannot open" in said
    assert left(loader, "--also")[0] == 2
    (tmp_path / "empty").touch()
    assert left(loader, "--also", str(tmp_path / "empty"))[0] in (0, 4)
