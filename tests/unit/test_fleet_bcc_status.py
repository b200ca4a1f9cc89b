# SPDX-License-Identifier: GPL-3.0-or-later
"""What the BCC collector tells of itself: its state and why, its cost, its three files and the compatibility event."""

from __future__ import annotations

import calendar
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import status as status_file
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Bundle, Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Order, Orders
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.status import Present, Publisher, cost, document, overall

DIGEST = "a" * 64
ABOUT = {"name": "ebpf-fleet", "version": "1", "sequence": 7, "digest": DIGEST}
BUNDLE = Bundle(ABOUT, DIGEST, ["probe"], [])
KERNEL = {"release": "6.1.0", "family": "6.1", "distro_family": None, "machine": "x86_64", "btf": "missing"}
GLOBAL = Order("global", "/etc/kill.d/global")
FAMILY = Order("family.6.1", "/etc/kill.d/family.6.1")
OTHER = Order("feature.probe", "/etc/kill.d/feature.probe")
HISTOGRAM = {"kind": "histogram", "name": "wait_seconds", "scale": "nanoseconds", "help": "Waits."}


def source(name: str, *signals: dict[str, Any]) -> Source:
    return Source(name, {"signals": list(signals)}, {}, b"")


class Feature:
    """A feature as the service has it: in a state, for a reason, with what its entry in status.json holds."""

    def __init__(self, name: str = "probe", state: str = "off", **fields: Any) -> None:
        self.name, self.state = name, state
        self.reason = Reason("EF_NO_BTF", f"{name}: no BTF")
        self.wanted, self.job, self.live, self.profile = True, None, None, "reduced"
        self.source = source(name)
        self.maps: list[dict[str, Any]] = []
        self.programs: list[dict[str, Any]] = []
        self.__dict__.update(fields)

    def describe(self, with_stats: bool) -> dict[str, Any]:
        return {
            "wanted": self.wanted, "state": self.state, "profile": self.profile, "reason_code": self.reason.code,
            "sample_every": 1, "weighted": 0, "programs": self.programs, "maps": self.maps, "consumer": None,
            "counters": dict.fromkeys(("produced", "delivered", "dropped", "sampled_out", "in_flight"), 0),
            "with_stats": with_stats,
        }  # fmt: skip

    def hist(self, weighted: bool = False) -> list[int]:
        return [20 if weighted else 2] + [0] * 64


def present(*features: Any, **changes: Any) -> Present:
    now = Present(KERNEL, 123, BUNDLE, None, False, Orders([], []), Desired({}, False, None), False, features)
    return now._replace(**changes)


# ---- the state as a whole ----

REFUSED = Reason("EF_FILE_DIGEST", "not what was signed")
STOPPED = Reason("EF_OK", "the collector was stopped")
NO_BTF = Reason("EF_NO_BTF", "1: no BTF")
KILLED = Reason("EF_KILLED_GLOBAL", "kill order /etc/kill.d/global; remove it to release")
KILLED_FAMILY = Reason("EF_KILLED_FAMILY", "kill order /etc/kill.d/family.6.1; remove it to release")
RUNNING = Reason("EF_OK", "running")
NOTHING = Reason("EF_NOT_WANTED", "nothing is wanted of BCC")
BROKEN = Reason("EF_DESIRED_MALFORMED", "desired.json: is broken")
ODD = Desired({}, True, BROKEN)


@pytest.mark.parametrize(
    ("changes", "states", "state", "reason"),
    [
        ({"refusal": REFUSED, "stopping": True, "orders": Orders([GLOBAL], [])}, ["attached"], "refused", REFUSED),
        ({"stopping": True, "orders": Orders([GLOBAL], [])}, ["attached"], "idle", STOPPED),
        ({"orders": Orders([GLOBAL], [])}, ["attached"], "killed", KILLED),
        ({"orders": Orders([FAMILY], [])}, ["disabled"], "killed", KILLED_FAMILY),
        ({"orders": Orders([OTHER], [])}, ["attached"], "running", RUNNING),
        ({"desired": ODD}, ["attached"], "running", RUNNING),
        ({}, ["off", "killed", "disabled", "attached"], "running", RUNNING),
        ({"desired": ODD}, ["off", "disabled", "killed"], "killed", NO_BTF._replace(text="2: no BTF")),
        ({"desired": ODD}, ["off", "disabled"], "idle", NO_BTF),
        ({"desired": ODD}, ["off"], "idle", BROKEN),
        ({}, ["off"], "idle", NOTHING),
        ({}, [], "idle", NOTHING),
    ],
)  # fmt: skip
def test_one_state_for_each_way_and_which_goes_first(
    changes: dict[str, Any], states: list[str], state: str, reason: Reason
) -> None:
    features = [Feature(str(at), each) for at, each in enumerate(states)]
    assert overall(present(*features, **changes)) == (state, reason)


@pytest.mark.parametrize("state", ["killed", "disabled"])
def test_what_is_not_wanted_is_not_why(state: str) -> None:
    assert overall(present(Feature(state=state, wanted=False))) == ("idle", NOTHING)
    first, second = Feature("a", state, wanted=False), Feature("b", state)
    assert overall(present(first, second))[1].text == "b: no BTF"


# ---- what it costs ----


def described(*memory: int | None) -> dict[str, Any]:
    return {str(at): {"maps": [{"memory_bytes": each}]} for at, each in enumerate(memory)}


@pytest.mark.parametrize(
    ("memory", "told"), [([], 0), ([4096], 4096), ([4096, 1], 4097), ([4096, None], None), ([0], 0)]
)
def test_memory_of_maps_is_known_where_each_is(memory: list[int | None], told: int | None) -> None:
    assert cost(present(), described(*memory))["map_memory_bytes"] == told


@pytest.mark.parametrize(
    ("own", "jobs", "told"),
    [(1000, [], 1000), (1000, [20, 3], 1023), (1000, [None, 3], 1003), (None, [20], None), (0, [None], 0)],
)
def test_memory_is_its_own_with_that_of_the_compilers(
    monkeypatch: pytest.MonkeyPatch, own: int | None, jobs: list[int | None], told: int | None
) -> None:
    of_processes = {os.getpid(): own, **{pid: each for pid, each in enumerate(jobs, -9)}}
    monkeypatch.setattr(status_file, "resident_bytes", of_processes.__getitem__)
    features = [Feature(job=SimpleNamespace(process=SimpleNamespace(pid=pid))) for pid in range(-9, -9 + len(jobs))]
    assert cost(present(Feature(), *features), {})["rss_bytes"] == told


def test_time_is_its_own_with_that_of_the_compilers_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"of children": SimpleNamespace(ru_utime=2.5, ru_stime=0.25)}
    monkeypatch.setattr(status_file.resource, "RUSAGE_CHILDREN", "of children")
    monkeypatch.setattr(status_file.resource, "getrusage", used.__getitem__)
    monkeypatch.setattr(time, "process_time_ns", lambda: 17)
    assert cost(present(), {})["cpu_ns"] == 2_750_000_017


# ---- status.json ----


def test_the_document_tells_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 11)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: {time.CLOCK_BOOTTIME: 12}[clock])
    monkeypatch.setattr(status_file, "boot_id", lambda: "the boot")
    monkeypatch.setattr(status_file, "cost", lambda _now, features: {"of": list(features)})
    feature = Feature(state="attached")
    now = present(
        feature, orders=Orders([OTHER], ["/etc/kill.d/typo"]), desired=Desired({}, True, BROKEN), with_stats=True
    )
    assert document(now, {"event": "compatibility"}) == {
        "schema": "ebpf.fleet/status/v1",
        "engine": "bcc",
        "time_unix_ns": 11,
        "boottime_ns": 12,
        "boot_id": "the boot",
        "pid": os.getpid(),
        "started_boottime_ns": 123,
        "loader_version": "0.1.0",
        "bundle": ABOUT,
        "kernel": KERNEL,
        "state": "running",
        "reason_code": "EF_OK",
        "reason": "running",
        "kills": [{"scope": "feature.probe", "path": "/etc/kill.d/feature.probe"}],
        "kill_unknown": ["/etc/kill.d/typo"],
        "desired_error": "desired.json: is broken",
        "stats_enabled": True,
        "loader": {"of": ["probe"]},
        "features": {"probe": feature.describe(True)},
        "compatibility": {"event": "compatibility"},
    }


def test_without_a_bundle_there_are_no_features() -> None:
    told = document(present(bundle=None, refusal=REFUSED), None)
    assert (told["bundle"], told["features"], told["desired_error"], told["compatibility"]) == (None, None, None, None)
    assert (told["state"], told["reason_code"], told["stats_enabled"]) == ("refused", "EF_FILE_DIGEST", False)
    assert document(present(), None)["features"] == {}


# ---- the files ----


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    lines: list[tuple[Any, ...]] = []
    monkeypatch.setattr(status_file, "say", lambda *words: lines.append(words))
    return lines


def test_programs_are_there_before_the_status_and_the_status_before_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[Any]
) -> None:
    written: list[tuple[Path, str]] = []
    monkeypatch.setattr(status_file, "write_atomic", lambda folder, name, _data: written.append((folder, name)))
    Publisher(tmp_path).publish(present())
    assert written == [(tmp_path, "programs"), (tmp_path, "status.json"), (tmp_path, "metrics.prom")]


def test_the_list_of_programs_has_a_line_for_each(tmp_path: Path, told: list[Any]) -> None:
    programs = [
        {"id": 7, "tag": "0123", "name": "ef_a", "run_cnt": None, "run_time_ns": None},
        {"id": 8, "tag": "4567", "name": "ef_b", "run_cnt": None, "run_time_ns": None},
    ]
    Publisher(tmp_path).publish(present(Feature(programs=programs), Feature("other")))
    assert (tmp_path / "programs").read_text() == "7 0123 probe ef_a\n8 4567 probe ef_b\n"
    Publisher(tmp_path).publish(present(bundle=None, refusal=REFUSED))
    assert (tmp_path / "programs").read_text() == ""


def test_the_status_is_one_line_of_ascii_with_its_keys_in_order(tmp_path: Path, told: list[Any]) -> None:
    reason = Reason("EF_NO_BTF", "grün")
    publisher = Publisher(tmp_path)
    publisher.publish(present(Feature(state="disabled", reason=reason)))
    text = (tmp_path / "status.json").read_bytes()
    assert text.endswith(b"}\n") and text.count(b"\n") == 1 and text.isascii() and rb"gr\u00fcn" in text
    found = json.loads(text)
    assert text == json.dumps(found, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    assert (found["reason"], found["state"]) == ("grün", "idle")
    assert found["compatibility"] == publisher.compatibility
    assert {path.name for path in tmp_path.iterdir()} == {"programs", "status.json", "metrics.prom"}


def test_the_metrics_have_each_histogram_and_its_weights(tmp_path: Path, told: list[Any]) -> None:
    with_hist = Feature(source=source("probe", {"kind": "events", "name": "x"}, HISTOGRAM))
    Publisher(tmp_path).publish(present(with_hist, Feature("other")))
    text = (tmp_path / "metrics.prom").read_text(encoding="utf-8")
    counts = dict(re.findall(r"^(ebpf_fleet_wait_seconds\w*_count)\{[^}]*\} (\d+)$", text, re.M))
    assert counts == {"ebpf_fleet_wait_seconds_count": "2", "ebpf_fleet_wait_seconds_weighted_count": "20"}
    assert 'ebpf_fleet_feature_state{engine="bcc",feature="other",state="off"} 1' in text


def test_metrics_are_written_in_utf_8(tmp_path: Path, told: list[Any]) -> None:
    kernel = {**KERNEL, "release": "6.1-grün"}
    Publisher(tmp_path).publish(present(kernel=kernel))
    assert 'release="6.1-grün"'.encode() in (tmp_path / "metrics.prom").read_bytes()


# ---- the compatibility event ----


def test_without_a_bundle_there_is_no_event(tmp_path: Path, told: list[Any]) -> None:
    publisher = Publisher(tmp_path)
    publisher.publish(present(bundle=None, refusal=REFUSED))
    assert publisher.compatibility is None and told == []


def test_the_event_tells_what_each_feature_reached(tmp_path: Path, told: list[Any]) -> None:
    publisher = Publisher(tmp_path)
    publisher.publish(present(Feature(live="it"), Feature("other", profile="disabled")))
    event = publisher.compatibility
    assert event is not None
    when = calendar.timegm(time.strptime(event.pop("time"), "%Y-%m-%dT%H:%M:%SZ"))
    assert abs(when - time.time()) < 60
    assert event == {
        "schema": "ebpf.fleet/compatibility/v1",
        "event": "compatibility",
        "engine": "bcc",
        "kernel": KERNEL,
        "bundle": ABOUT,
        "features": {
            "probe": {
                "profile": "reduced", "variant": "bcc", "reason_code": "EF_NO_BTF", "reason": "probe: no BTF",
            },
            "other": {
                "profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": "other: no BTF",
            },
        },
    }  # fmt: skip


def test_the_event_goes_to_the_journal_as_it_is_and_once(tmp_path: Path, told: list[tuple[Any, ...]]) -> None:
    publisher = Publisher(tmp_path)
    feature = Feature()
    publisher.publish(present(feature))
    first = publisher.compatibility
    (line,) = told
    assert line == (6, json.dumps(first, sort_keys=True, separators=(",", ":")), "")
    publisher.publish(present(feature, with_stats=True))
    assert publisher.compatibility is first and len(told) == 1
    for changes in ({"profile": "disabled"}, {"live": "it"}, {"reason": Reason("EF_OK", "probe: no BTF")}):
        feature.__dict__.update(changes)
        publisher.publish(present(feature))
        publisher.publish(present(feature))
    assert len(told) == 4 and publisher.compatibility is not first


def test_the_journal_is_not_told_of_what_a_compiler_may_change(tmp_path: Path, told: list[Any]) -> None:
    publisher = Publisher(tmp_path)
    job = SimpleNamespace(process=SimpleNamespace(pid=os.getpid()))
    publisher.publish(present(Feature("other"), Feature(job=job)))
    assert told == [] and publisher.compatibility is not None
