# SPDX-License-Identifier: GPL-3.0-or-later
"""A feature of the BCC collector: what it counts while it is attached, keeps when it is detached, and tells.

Maps, rings and programs are tables of values here.
"""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import feature as feature_file
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import live as live_file
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError, Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.compile_job import Compiled
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.events import Tally
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import READ_LIMIT, Feature
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.live import COUNTERS, Counts, Live
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.records import Field

EVENTS = {"kind": "events", "name": "exec", "sample_every": 3}
HISTOGRAM = {"kind": "histogram", "name": "latency"}


def source(*signals: dict[str, Any]) -> Source:
    return Source("probe", {"signals": list(signals)}, {}, b"")


def counts(produced: int, delivered: int, dropped: int, sampled_out: int) -> Counts:
    made = Counts()
    made.values.update(zip(COUNTERS, (produced, delivered, dropped, sampled_out)))
    return made


class Slots:
    """A map by its slots: those of the numbers that were measured, and those of their weights."""

    def __init__(self, plain: list[int], weighted: list[int] | None = None) -> None:
        self.words = [plain, weighted or plain]

    def sum_slot(self, slot: int, word: int = 0) -> int:
        return self.words[word][slot]


class Attached:
    """Stands for Live: `unread` is how many records each further read takes."""

    def __init__(self, **fields: Any) -> None:
        self.done: list[str] = []
        self.tally, self.feed, self.ran = Tally(), None, True
        self.links, self.maps = [5], {}
        self.compiled = SimpleNamespace(programs={"ef_a": 11, "ef_b": 12})
        self.counted = counts(10, 6, 1, 1)
        self.hists = {False: [0] * 65, True: [0] * 65}
        self.__dict__.update(fields)

    def read_counts(self) -> Counts:
        return self.counted

    def read_hist(self, weighted: bool = False) -> list[int]:
        return self.hists[weighted]

    def cut(self) -> bool:
        self.done.append("cut")
        return True

    def close(self) -> None:
        self.done.append("close")


def hist(**slots: int) -> list[int]:
    made = [0] * 65
    for slot, value in slots.items():
        made[int(slot[1:])] = value
    return made


# ---- a feature that was not attached yet ----


def test_a_feature_begins_off_and_counts_nothing() -> None:
    begun = source(EVENTS)
    made = Feature(begun)
    assert made.source is begun
    assert (made.name, made.state, made.reason.code) == ("probe", "off", "EF_UNKNOWN")
    assert (made.wanted, made.tried, made.live, made.job) == (False, False, None, None)
    assert made.sample_every == 3 and made.profile == "disabled"
    assert made.past_hist == {False: [0] * 65, True: [0] * 65}
    assert made.counts().values == dict.fromkeys(COUNTERS, 0) and made.counts().in_flight == 0
    assert made.hist() == made.hist(weighted=True) == [0] * 65
    assert made.weighted() == 0


@pytest.mark.parametrize(
    ("state", "profile"),
    [("attached", "reduced"), ("off", "disabled"), ("killed", "disabled"), ("disabled", "disabled")],
)
def test_bcc_reaches_the_reduced_profile_and_no_more(state: str, profile: str) -> None:
    made = Feature(source(EVENTS))
    made.state = state
    assert made.profile == profile


@pytest.mark.parametrize(
    ("values", "in_flight"), [((10, 6, 1, 1), 2), ((10, 8, 1, 1), 0), ((10, 9, 1, 1), 0), ((0, 0, 0, 0), 0)]
)
def test_what_is_in_flight_has_no_outcome_and_is_never_below_zero(
    values: tuple[int, int, int, int], in_flight: int
) -> None:
    assert counts(*values).in_flight == in_flight


# ---- while it is attached ----


def test_what_was_before_and_what_is_now_are_added_up() -> None:
    made = Feature(source(EVENTS))
    made.past = counts(100, 50, 47, 3)
    made.past_hist = {False: hist(s0=1, s64=9), True: hist(s0=10, s63=7, s64=90)}
    made.past_weighted = 1000
    now = Attached(hists={False: hist(s0=2, s64=5), True: hist(s0=20, s64=50)})
    now.tally.weighted = 300
    made.live = now  # type: ignore[assignment]
    assert made.counts().values == counts(110, 56, 48, 4).values
    assert made.past.values == counts(100, 50, 47, 3).values, "asking changes nothing"
    assert made.hist() == hist(s0=3, s64=14)
    assert made.hist(weighted=True) == hist(s0=30, s63=7, s64=140)
    assert made.weighted() == 1300 + 30 + 7, "slots 0 to 63; the sum of what was measured is not a weight"


def detached(now: Any) -> tuple[Feature, bool, list[str]]:
    made = Feature(source(EVENTS))
    made.past = counts(100, 50, 47, 3)
    made.past_hist = {False: hist(s1=1), True: hist(s1=2)}
    made.past_weighted = 1000
    made.live = now
    flushed = SimpleNamespace(flush=lambda: now.done.append("flush"))
    was_attached = made.detach(threading.Lock(), flushed)  # type: ignore[arg-type]
    return made, was_attached, now.done if now else []


def test_to_detach_what_is_not_attached_is_nothing() -> None:
    made, was_attached, _done = detached(None)
    assert was_attached is False
    assert made.counts().values == counts(100, 50, 47, 3).values


def test_what_a_feature_has_counted_outlives_its_maps() -> None:
    now = Attached(hists={False: hist(s1=4), True: hist(s1=40)})
    now.tally.weighted = 300
    made, was_attached, done = detached(now)
    assert was_attached is True and made.live is None
    assert done == ["cut", "flush", "close"]
    assert made.counts().values == counts(110, 56, 50, 4).values, "two were in flight: they are dropped"
    assert (made.hist(), made.hist(weighted=True)) == (hist(s1=5), hist(s1=42))
    assert made.past_weighted == 1300 and made.weighted() == 1342
    assert made.counts().in_flight == 0


def test_what_never_ran_is_not_read() -> None:
    """Its maps are new, and nothing was ever written to them."""
    made, was_attached, done = detached(Attached(ran=False))
    assert was_attached is True and made.live is None
    assert done == ["cut", "close"]
    assert made.counts().values == counts(100, 50, 47, 3).values and made.past_weighted == 1000


def test_all_that_is_unread_is_read_before_the_counts_are_taken() -> None:
    now = Attached()
    more = [True, True, False, True]

    def read(limit: int) -> bool:
        now.done.append(f"read {limit}")
        return more.pop(0)

    now.feed = SimpleNamespace(read=read)
    _made, _was_attached, done = detached(now)
    assert done == ["cut", *[f"read {READ_LIMIT}"] * 3, "flush", "close"]
    assert READ_LIMIT == 4096


def test_it_is_cut_under_the_lock_and_read_without_it() -> None:
    """The thread that obeys kill orders needs the lock: it must not wait for a disk."""
    lock = threading.Lock()
    held: list[bool] = []
    made = Feature(source(EVENTS))
    now = Attached(cut=lambda: held.append(lock.locked()))
    made.live = now  # type: ignore[assignment]
    made.detach(lock, SimpleNamespace(flush=lambda: held.append(lock.locked())))  # type: ignore[arg-type]
    assert held == [True, False] and not lock.locked()


# ---- what it tells ----


def described(monkeypatch: pytest.MonkeyPatch, made: Feature, with_stats: bool = True) -> dict[str, Any]:
    monkeypatch.setattr(feature_file, "describe_program", lambda *of: list(of))
    monkeypatch.setattr(feature_file, "link_id", lambda fd: fd * 100)
    return made.describe(with_stats)


def test_a_feature_that_is_off_has_nothing_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Feature(source({**EVENTS, "sample_every": 8}))
    made.state, made.reason, made.wanted = "killed", Reason("EF_KILLED_GLOBAL", "kill order"), True
    assert described(monkeypatch, made) == {
        "wanted": True,
        "state": "killed",
        "profile": "disabled",
        "variant": None,
        "reason_code": "EF_KILLED_GLOBAL",
        "reason": "kill order",
        "sample_every": 8,
        "programs": [],
        "links": [],
        "maps": [],
        "counters": {"produced": 0, "delivered": 0, "dropped": 0, "sampled_out": 0, "in_flight": 0},
        "weighted": 0,
        "consumer": None,
    }


@pytest.mark.parametrize("with_stats", [True, False])
def test_a_feature_that_is_attached_tells_of_all_that_it_holds(
    monkeypatch: pytest.MonkeyPatch, with_stats: bool
) -> None:
    made = Feature(source(EVENTS))
    made.state = "attached"
    maps = {"ef_counters": SimpleNamespace(describe=lambda: "the counters")}
    now = Attached(links=[5, 6], maps=maps)
    now.feed = SimpleNamespace(ring=SimpleNamespace(lag_bytes=24, size=4096))
    now.tally.weighted = 9
    made.live = now  # type: ignore[assignment]
    told = described(monkeypatch, made, with_stats)
    assert (told["state"], told["profile"], told["variant"]) == ("attached", "reduced", "bcc")
    assert told["programs"] == [["ef_a", 11, with_stats], ["ef_b", 12, with_stats]]
    assert (told["links"], told["maps"]) == ([500, 600], ["the counters"])
    assert told["counters"] == {"produced": 10, "delivered": 6, "dropped": 1, "sampled_out": 1, "in_flight": 2}
    assert (told["weighted"], told["wanted"], told["sample_every"]) == (9, False, 3)
    assert told["consumer"] == {"lag_bytes": 24, "ring_bytes": 4096}
    now.feed = None
    assert described(monkeypatch, made)["consumer"] is None, "a histogram has no reader"


def test_a_variant_runs_only_in_the_state_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Feature(source(EVENTS))
    made.state = "attached"
    assert described(monkeypatch, made)["variant"] is None
    made.live, made.state = Attached(), "off"  # type: ignore[assignment]
    assert described(monkeypatch, made)["variant"] is None


# ---- Live ----


@pytest.fixture
def kernel_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map is told by its descriptor alone: 27 is a ring buffer."""

    class Made:
        def __init__(self, fd: int) -> None:
            self.fd, self.type, self.put_bytes = fd, "ringbuf" if fd == 27 else "array", b""

        def put(self, slot: int, data: bytes) -> None:
            self.put_bytes = bytes([slot]) + data

    monkeypatch.setattr(live_file, "Map", Made)
    monkeypatch.setattr(live_file, "Feed", lambda *given: given)


FIELDS = [Field("ktime_ns", "uint", 0, 8)]
ALL_MAPS = {"ef_counters": 1, "ef_config": 2, "ef_hist": 3, "ef_events": 27}


def live(signals: list[dict[str, Any]], maps: dict[str, int], fields: list[Field] = FIELDS) -> Live:
    return Live(source(*signals), Compiled({"ef_a": 9}, maps, fields), "the sink")  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["ef_counters", "ef_config"])
@pytest.mark.usefixtures("kernel_maps")
def test_each_object_has_counters_and_a_configuration(missing: str) -> None:
    with pytest.raises(CannotRunError, match=f"bcc.c has no map {missing}; fix it") as refused:
        live([], {name: fd for name, fd in ALL_MAPS.items() if name != missing})
    assert refused.value.code == "EF_LOAD_REJECTED"


@pytest.mark.usefixtures("kernel_maps")
def test_what_is_made_holds_its_maps_and_nothing_is_attached() -> None:
    made = live([EVENTS], ALL_MAPS)
    assert {name: each.fd for name, each in made.maps.items()} == ALL_MAPS
    assert (made.links, made.feed, made.ran) == ([], None, False)
    assert (made.tally.written, made.tally.weighted, made.tally.dropped) == (0, 0, 0)


@pytest.mark.usefixtures("kernel_maps")
def test_what_a_signal_needs_is_there_before_the_first_program_runs() -> None:
    made = live([EVENTS, HISTOGRAM], ALL_MAPS)
    made.prepare(5)
    assert made.maps["ef_config"].put_bytes == b"\0" + b"\x05\0\0\0" + bytes(4)  # type: ignore[attr-defined]
    assert made.feed == (made.maps["ef_events"], FIELDS, "probe", "exec", "the sink", made.tally)
    made = live([HISTOGRAM], ALL_MAPS)
    made.prepare(1)
    assert made.feed is None, "only events have a ring"


@pytest.mark.parametrize(
    ("signals", "maps", "fields", "text"),
    [
        ([HISTOGRAM], {"ef_hist": None}, FIELDS, "bcc.c has no map ef_hist; fix it"),
        ([EVENTS, HISTOGRAM], {"ef_hist": None}, FIELDS, "bcc.c has no map ef_hist; fix it"),
        ([EVENTS], {"ef_events": None}, FIELDS, "bcc.c has no BPF_RINGBUF_OUTPUT"),
        ([EVENTS], {"ef_events": 26}, FIELDS, "bcc.c has no BPF_RINGBUF_OUTPUT"),
        ([EVENTS], {}, [], "bcc.c has no BPF_RINGBUF_OUTPUT"),
    ],
)
@pytest.mark.usefixtures("kernel_maps")
def test_an_object_without_its_signals_map_is_refused(
    signals: list[dict[str, Any]], maps: dict[str, int | None], fields: list[Field], text: str
) -> None:
    here = {name: fd for name, fd in {**ALL_MAPS, **maps}.items() if fd is not None}
    with pytest.raises(CannotRunError, match=text) as refused:
        live(signals, here, fields).prepare(1)
    assert refused.value.code == "EF_LOAD_REJECTED"


@pytest.mark.usefixtures("kernel_maps")
def test_a_histogram_does_without_a_ring_and_events_without_a_histogram() -> None:
    live([HISTOGRAM], {name: fd for name, fd in ALL_MAPS.items() if name != "ef_events"}, []).prepare(1)
    live([EVENTS], {name: fd for name, fd in ALL_MAPS.items() if name != "ef_hist"}).prepare(1)


def test_programs_are_attached_in_their_order_each_with_its_descriptor() -> None:
    asked: list[tuple[str, int]] = []

    class Hook:
        kind, target = "kprobe", "do_exit"

        def __init__(self, name: str) -> None:
            self.name = name

        def attach(self, fd: int) -> int:
            asked.append((self.name, fd))
            return os.open("/dev/null", os.O_RDONLY)

    made = Live.__new__(Live)
    made.links, made.ran = [], False
    made.source = SimpleNamespace(programs={name: Hook(name) for name in ("ef_b", "ef_a")})  # type: ignore[assignment]
    made.compiled = SimpleNamespace(programs={"ef_a": 1, "ef_b": 2})  # type: ignore[assignment]
    made.attach()
    assert asked == [("ef_b", 2), ("ef_a", 1)]
    assert made.ran and len(made.links) == 2
    links = list(made.links)
    assert made.cut() is True and made.links == []
    for fd in links:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert made.cut() is False, "what is cut once is not there to be cut"


def test_an_error_of_another_kind_is_a_failure_to_attach_too() -> None:
    """A text in a file of the kernel that is not a number."""

    class Hook:
        kind, target = "kprobe", "do_exit"

        def attach(self, _fd: int) -> int:
            raise ValueError("not a number")

    made = Live.__new__(Live)
    made.links, made.ran = [], False
    made.source = SimpleNamespace(programs={"ef_a": Hook()})  # type: ignore[assignment]
    made.compiled = SimpleNamespace(programs={"ef_a": 1})  # type: ignore[assignment]
    with pytest.raises(CannotRunError, match="program ef_a: cannot be attached to kprobe do_exit: not a num") as failed:
        made.attach()
    assert failed.value.code == "EF_ATTACH_FAILED" and not made.ran


def test_the_counters_are_read_with_produced_last() -> None:
    slots: list[int] = []

    class Read:
        def sum_slot(self, slot: int) -> int:
            slots.append(slot)
            return 10**slot

    made = Live.__new__(Live)
    made.feed, made.maps = None, {"ef_counters": Read()}  # type: ignore[dict-item]
    found = made.read_counts()
    assert slots[-1] == 0 and sorted(slots) == [0, 1, 2, 3]
    assert found.values == {"produced": 1, "delivered": 10, "dropped": 100, "sampled_out": 1000}


def test_a_histogram_has_its_slots_and_then_its_sum() -> None:
    assert (live_file.HIST_SLOTS, live_file.HIST_SUM) == (64, 64)
    made = Live.__new__(Live)
    made.maps = {"ef_hist": Slots(list(range(65)), list(range(100, 165)))}  # type: ignore[dict-item]
    assert made.read_hist() == list(range(65))
    assert made.read_hist(weighted=True) == list(range(100, 165))
    made.maps = {}
    assert made.read_hist() == made.read_hist(weighted=True) == [0] * 65


@pytest.mark.parametrize("with_feed", [True, False])
def test_to_close_it_lets_go_of_the_ring_and_of_what_was_compiled(with_feed: bool) -> None:
    done: list[str] = []
    made = Live.__new__(Live)
    made.feed = SimpleNamespace(close=lambda: done.append("feed")) if with_feed else None  # type: ignore[assignment]
    made.compiled = SimpleNamespace(close=lambda: done.append("compiled"))  # type: ignore[assignment]
    made.close()
    assert done == (["feed"] if with_feed else []) + ["compiled"]
