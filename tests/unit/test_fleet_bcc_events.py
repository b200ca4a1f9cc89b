# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's events and metrics: a ring in memory, the file that its records go to, and metrics.prom by value.

A file in memory stands for the ring buffer of the kernel: both map as pages.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import events, metrics, records
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.records import Field, Ring

# ---- the layout of records ----


@pytest.mark.parametrize(
    ("types", "size", "kind"),
    [
        (("char", "s8", "signed char"), 1, "int"),
        (("u8", "unsigned char", "bool", "_Bool"), 1, "uint"),
        (("short", "s16"), 2, "int"),
        (("u16", "unsigned short"), 2, "uint"),
        (("int", "s32"), 4, "int"),
        (("u32", "unsigned int"), 4, "uint"),
        (("long", "s64", "long long"), 8, "int"),
        (("u64", "unsigned long", "unsigned long long"), 8, "uint"),
    ],
)
def test_a_type_has_its_size_its_sign_and_its_place(types: tuple[str, ...], size: int, kind: str) -> None:
    for name in types:
        assert records.TYPE_SIZES[name] == (size, kind)
        assert records.lay_out(["a#u8", f"b#{name}", f"c#{name}"])[1:] == [
            Field("b", kind, size, size), Field("c", kind, 2 * size, size),
        ]  # fmt: skip
    assert len(records.TYPE_SIZES) == 21


@pytest.mark.parametrize(
    ("kind", "shown", "size"),
    [("char[16]", "chars", 16), ("char [1]", "chars", 1), ("u8[3]", "bytes", 3), ("s8 [2]", "bytes", 2),
     ("u32 [2]", "bytes", 8), ("unsigned int [2]", "bytes", 8)],
)  # fmt: skip
def test_an_array_is_text_or_bytes(kind: str, shown: str, size: int) -> None:
    found = records.lay_out([f"a#{kind}", "b#u8"])
    assert found == [Field("a", shown, 0, size), Field("b", "uint", size, 1)]


@pytest.mark.parametrize("kind", ["struct x", "u128", "", "u8[]", "u8[x]"])
def test_a_type_that_is_not_known_is_refused(kind: str) -> None:
    with pytest.raises(CannotRunError, match="field a of the event has a type that is not known") as failed:
        records.lay_out([f"a#{kind}"])
    assert failed.value.code == "EF_LOAD_REJECTED"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Field("a", "uint", 1, 2), int.from_bytes(b"\xfe\xff", sys.byteorder)),
        (Field("a", "int", 1, 2), int.from_bytes(b"\xfe\xff", sys.byteorder, signed=True)),
        (Field("a", "chars", 3, 4), "ab"),
        (Field("a", "chars", 3, 2), "ab"),
        (Field("a", "chars", 1, 1), "\ufffd"),
        (Field("a", "bytes", 1, 3), "feff61"),
    ],
)
def test_a_field_is_read_from_its_place(field: Field, value: Any) -> None:
    assert field.read(b"\x01\xfe\xffab\0c") == value


# ---- the ring ----

PAGE = mmap.PAGESIZE
SIZE = 2 * PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Kernel:
    """The producer's side of a ring of SIZE bytes: a page of the reader's, one of ours, then the data twice."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.written = 0

    def put(self, record: bytes, flags: int = 0, length: int | None = None) -> None:
        """One record behind those that are there, the kernel's second view of the data kept equal."""
        data = struct.pack("=II", (len(record) if length is None else length) | flags, 0) + record
        data = data.ljust((len(data) + 7) // 8 * 8, b"\xee")
        at = self.written % SIZE
        for view in (at, at + SIZE):
            for index, byte in enumerate(data):
                place = (view + index) % (2 * SIZE)
                os.pwrite(self.fd, bytes([byte]), 2 * PAGE + place)
        self.written += len(data)
        os.pwrite(self.fd, struct.pack("=Q", self.written), PAGE)

    def move(self, position: int) -> None:
        """Both sides are there already."""
        self.written = position
        for place in (0, PAGE):
            os.pwrite(self.fd, struct.pack("=Q", position), place)

    @property
    def read(self) -> int:
        """What the reader has given back."""
        return int(struct.unpack("=Q", os.pread(self.fd, 8, 0))[0])


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    os.close(made.fd)


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    made = Ring(kernel.fd, SIZE)
    yield made
    made.close()


def test_records_come_in_order_and_are_given_back_one_by_one(kernel: Kernel, ring: Ring) -> None:
    assert list(ring.records(10)) == [] and ring.lag_bytes == 0
    for record in (b"12345678", b"a", b"", b"123456789"):
        kernel.put(record)
    assert (ring.lag_bytes, ring.size) == (16 + 16 + 8 + 24, SIZE)
    reader = ring.records(10)
    assert next(reader) == b"12345678" and kernel.read == 0, "it is still read"
    assert next(reader) == b"a" and kernel.read == 16
    assert next(reader) == b"" and kernel.read == 32
    assert next(reader) == b"123456789" and kernel.read == 40
    assert list(reader) == [] and kernel.read == 64 == kernel.written
    assert ring.lag_bytes == 0


def test_no_more_are_taken_than_asked(kernel: Kernel, ring: Ring) -> None:
    for record in (b"a", b"b", b"c"):
        kernel.put(record)
    assert list(ring.records(0)) == []
    assert list(ring.records(2)) == [b"a", b"b"] and ring.lag_bytes == 16
    assert list(ring.records(2)) == [b"c"]


def test_what_its_producer_threw_away_is_passed_over_and_counts_to_the_limit(kernel: Kernel, ring: Ring) -> None:
    kernel.put(b"thrown away", DISCARDED)
    kernel.put(b"a")
    kernel.put(b"b")
    assert list(ring.records(2)) == [b"a"]
    assert list(ring.records(2)) == [b"b"] and ring.lag_bytes == 0


def test_what_is_not_finished_and_all_behind_it_waits(kernel: Kernel, ring: Ring) -> None:
    kernel.put(b"a")
    kernel.put(b"b", BUSY)
    kernel.put(b"c")
    assert list(ring.records(10)) == [b"a"] and kernel.read == 16
    os.pwrite(kernel.fd, struct.pack("=I", 1), 2 * PAGE + 16)
    assert list(ring.records(10)) == [b"b", b"c"]


def test_a_record_over_the_end_of_the_ring_is_whole(kernel: Kernel, ring: Ring) -> None:
    kernel.move(3 * SIZE - 16)
    kernel.put(b"0123456789abcdef" * 2)
    kernel.put(b"next")
    assert list(ring.records(10)) == [b"0123456789abcdef" * 2, b"next"]
    assert kernel.read == 3 * SIZE - 16 + 40 + 16


def test_what_cannot_be_mapped_leaves_nothing_mapped(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    asked: list[Any] = []

    class Mapped:
        def __init__(self, *given: Any, **named: Any) -> None:
            asked.append((given, named))
            if named:
                raise OSError(errno.EPERM, "no")

        def close(self) -> None:
            closed.append("consumer")

    monkeypatch.setattr(records, "mmap", SimpleNamespace(mmap=Mapped, PAGESIZE=4096, PROT_READ=1))
    with pytest.raises(OSError, match="no"):
        Ring(9, 8192)
    assert closed == ["consumer"]
    assert asked == [((9, 4096), {}), ((9, 4096 + 16384), {"prot": 1, "offset": 4096})]


# ---- the events file ----


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(events, "say", lambda level, text: lines.append((level, text)))
    return lines


def test_the_file_has_its_name_and_its_limits(tmp_path: Path) -> None:
    sink = events.Sink(tmp_path)
    assert sink.path == tmp_path / "events-bcc.jsonl"
    assert (events.EVENTS_LIMIT_BYTES, sink.BUFFER_BYTES) == (16 << 20, 64 << 10)


def test_what_waits_is_written_when_a_buffer_is_full(tmp_path: Path) -> None:
    sink, tally = events.Sink(tmp_path), events.Tally()
    assert (tally.written, tally.weighted, tally.dropped) == (0, 0, 0)
    sink.add(b"x" * 65534 + b"\n", tally)
    assert not sink.path.exists() and sink.used == 65535
    sink.add(b"\n", tally, 5)
    assert sink.path.stat().st_size == 65536
    assert (sink.used, sink.pending, tally.written, tally.weighted) == (0, [], 2, 6)
    sink.flush()
    assert sink.path.stat().st_size == 65536 and stat.S_IMODE(sink.path.stat().st_mode) == 0o640


@pytest.mark.parametrize(("there", "rotated"), [(0, False), (990, False), (991, True), (1000, True)])
def test_a_file_that_would_be_too_long_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, rotated: bool
) -> None:
    monkeypatch.setattr(events, "EVENTS_LIMIT_BYTES", 1000)
    sink, tally = events.Sink(tmp_path), events.Tally()
    sink.path.write_bytes(b"\n" * there)
    Path(f"{sink.path}.1").write_bytes(b"older")
    sink.add(b"123456789\n", tally)
    sink.flush()
    assert sink.path.read_bytes() == (b"" if rotated else b"\n" * there) + b"123456789\n"
    assert Path(f"{sink.path}.1").read_bytes() == (b"\n" * there if rotated else b"older")
    assert stat.S_IMODE(sink.path.stat().st_mode) in (0o640, 0o644) and tally.written == 1


def test_an_empty_file_takes_a_portion_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_LIMIT_BYTES", 5)
    sink, tally = events.Sink(tmp_path), events.Tally()
    sink.add(b"123456789\n", tally)
    sink.flush()
    assert sink.path.read_bytes() == b"123456789\n" and not Path(f"{sink.path}.1").exists()


@pytest.mark.parametrize(
    ("there", "begins"), [(b"torn", b"torn\n"), (b"whole\n", b"whole\n"), (b"", b""), (b"t", b"t\n")]
)
def test_half_a_line_is_ended_first(tmp_path: Path, there: bytes, begins: bytes) -> None:
    sink, tally = events.Sink(tmp_path), events.Tally()
    sink.path.write_bytes(there)
    sink.add(b"new\n", tally)
    sink.flush()
    assert sink.path.read_bytes() == begins + b"new\n"


@pytest.mark.parametrize(
    ("written", "whole", "counted"),
    [(12, 12, (3, 7, 0)), (11, 8, (2, 3, 1)), (8, 8, (2, 3, 1)), (3, 0, (0, 0, 3)), (0, 0, (0, 0, 3))],
)
def test_a_full_disk_costs_whole_records_which_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[Any], written: int, whole: int, counted: Any
) -> None:
    sink, tally = events.Sink(tmp_path), events.Tally()
    write = os.write
    monkeypatch.setattr(events.os, "write", lambda fd, data: write(fd, data[:written]))
    for line, weight in ((b"one\n", 1), (b"two\n", 2), (b"six\n", 4)):
        sink.add(line, tally, weight)
    sink.flush()
    assert sink.path.read_bytes() == b"one\ntwo\nsix\n"[:whole]
    assert (tally.written, tally.weighted, tally.dropped) == counted
    assert sink.failing is (whole < 12)
    assert [level for level, _text in said] == [3] * (whole < 12)
    assert whole == 12 or "No space left on device; events are dropped and counted" in said[0][1]


def test_a_failure_is_said_once_and_its_end_once(tmp_path: Path, said: list[tuple[int, str]]) -> None:
    folder = tmp_path / "log"
    sink, tally = events.Sink(folder), events.Tally()
    for line in (b"one\n", b"\n"):
        sink.add(line, tally)
        sink.flush()
    path = folder / "events-bcc.jsonl"
    text = "No such file or directory; events are dropped and counted until it can be written"
    assert said == [(3, f"cannot write {path}: {text}")]
    folder.mkdir()
    for _ in range(2):
        sink.add(b"one\n", tally)
        sink.flush()
    assert said[1:] == [(5, f"{path} can be written again")]
    assert (tally.written, tally.dropped, sink.failing) == (2, 2, False)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null"), Path.mkdir])
def test_only_a_regular_file_is_written_to(tmp_path: Path, said: list[Any], make: Any) -> None:
    sink, tally = events.Sink(tmp_path), events.Tally()
    make(sink.path)
    before = os.listdir("/proc/self/fd")
    sink.add(b"one\n", tally)
    sink.flush()
    assert (tally.written, tally.dropped, len(said)) == (0, 1, 1)
    assert os.listdir("/proc/self/fd") == before


def test_the_file_is_opened_to_append_and_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    opened = os.open
    monkeypatch.setattr(events.os, "open", lambda *given: asked.append(given) or opened(*given))
    monkeypatch.setattr(events, "EVENTS_LIMIT_BYTES", 5)
    sink, tally = events.Sink(tmp_path), events.Tally()
    for _ in range(2):
        sink.add(b"1234\n", tally)
        sink.flush()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    assert asked == [(sink.path, flags, 0o640)] * 3


# ---- a feed ----

FIELDS = [Field("ktime_ns", "uint", 0, 8), Field("weight", "uint", 8, 8), Field("comm", "chars", 16, 8)]


class Lines:
    def __init__(self) -> None:
        self.added: list[Any] = []

    def add(self, *given: Any) -> None:
        self.added.append(given)


@pytest.fixture
def feed(kernel: Kernel) -> Iterator[events.Feed]:
    of = SimpleNamespace(fd=kernel.fd, max_entries=SIZE)
    made = events.Feed(of, FIELDS, "probe", "exec", Lines(), events.Tally())  # type: ignore[arg-type]
    yield made
    made.close()


def record(when: int, weight: int = 1, comm: bytes = b"sh") -> bytes:
    return struct.pack("=QQ8s", when, weight, comm)


def lines(feed: events.Feed) -> list[dict[str, Any]]:
    return [json.loads(line) for line, *_others in feed.sink.added]  # type: ignore[attr-defined]


def test_a_record_becomes_a_line_with_its_weight(feed: events.Feed) -> None:
    assert feed.size == 24
    feed.take(record(5, 3, "grün".encode()), 1_700_000_000_000_000_000)
    ((line, tally, weight),) = feed.sink.added  # type: ignore[attr-defined]
    assert (tally, weight) == (feed.tally, 3) and line.endswith(b"}\n") and "grün".encode() in line
    assert lines(feed) == [
        {"time": "2023-11-14T22:13:20.000000005Z", "feature": "probe", "event": "exec", "ktime_ns": 5, "weight": 3,
         "comm": "grün"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "stamp"),
    [(0, "1970-01-01T00:00:00.000000000Z"), (999_999_999, "1970-01-01T00:00:00.999999999Z"),
     (1_000_000_000, "1970-01-01T00:00:01.000000000Z"), (86_400_123_456_789, "1970-01-02T00:00:00.123456789Z")],
)  # fmt: skip
def test_a_time_has_nine_digits(feed: events.Feed, when: int, stamp: str) -> None:
    feed.take(record(when), 0)
    assert lines(feed)[0]["time"] == stamp


def test_a_record_without_time_and_weight_is_of_the_clock_and_one(feed: events.Feed) -> None:
    feed.fields, feed.size = FIELDS[2:], 24
    feed.take(record(5, 9), 1_000_000_000)
    ((_line, _tally, weight),) = feed.sink.added  # type: ignore[attr-defined]
    assert weight == 1
    assert lines(feed)[0] == {
        "time": "1970-01-01T00:00:01.000000000Z", "feature": "probe", "event": "exec", "comm": "sh",
    }  # fmt: skip


def test_a_record_that_is_too_short_is_dropped_and_said_once(feed: events.Feed, said: list[tuple[int, str]]) -> None:
    for size in (23, 24, 30, 0):
        feed.take(record(1).ljust(30, b"\0")[:size], 0)
    assert (feed.tally.dropped, feed.odd, len(lines(feed))) == (2, 2, 2)
    assert said == [(3, "feature probe: a record of 23 bytes, expected 24; it is dropped")]


def test_reading_says_whether_there_may_be_more(feed: events.Feed, kernel: Kernel) -> None:
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert feed.read(2) is False
    for _ in range(3):
        kernel.put(record(now))
    assert feed.read(2) is True and feed.read(2) is False
    assert feed.read(0) is True
    assert len(lines(feed)) == 3
    told = time.strptime(lines(feed)[0]["time"][:19], "%Y-%m-%dT%H:%M:%S")
    assert abs(time.mktime(told) - time.mktime(time.gmtime())) < 60, "by the wall clock"


def test_to_close_a_feed_lets_its_ring_go(kernel: Kernel) -> None:
    of = SimpleNamespace(fd=kernel.fd, max_entries=SIZE)
    made = events.Feed(of, FIELDS, "probe", "exec", Lines(), events.Tally())  # type: ignore[arg-type]
    made.close()
    assert made.ring.consumer.closed and made.ring.producer.closed


# ---- metrics.prom ----


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(0, 9, "0"), (5, 0, "5"), (1, 9, "0.000000001"), (1_500_000_000, 9, "1.5"), (10**9, 9, "1"), (12345, 2, "123.45"),
     (10050, 3, "10.05"), (100, 1, "10")],
)  # fmt: skip
def test_a_decimal_is_exact(number: int, digits: int, text: str) -> None:
    assert metrics.decimal(number, digits) == text


def test_a_label_is_escaped() -> None:
    assert metrics.label('a"b\\c\nd') == r'"a\"b\\c\nd"' and metrics.label(7) == '"7"'
    assert metrics.SCALE_DIGITS == {"nanoseconds": 9, "microseconds": 6, "bytes": 0, "count": 0}
    out = metrics.Metrics()
    out.head("x", "gauge", "a\\b\nc")
    assert out.lines == [r"# HELP ebpf_fleet_x a\\b\nc", "# TYPE ebpf_fleet_x gauge"]


def entry(**changes: Any) -> dict[str, Any]:
    counters = {"produced": 10, "delivered": 6, "dropped": 1, "sampled_out": 1, "in_flight": 2}
    programs = [{"name": "ef_a", "run_cnt": 4, "run_time_ns": 1_500_000_000},
                {"name": "ef_b", "run_cnt": None, "run_time_ns": None}]  # fmt: skip
    maps = [{"name": "ef_open", "entries": 3, "max_entries": 100, "memory_bytes": 4096},
            {"name": "ef_counters", "entries": None, "max_entries": 4, "memory_bytes": None}]  # fmt: skip
    return {
        "wanted": True, "state": "attached", "profile": "reduced", "sample_every": 3, "programs": programs,
        "maps": maps, "counters": counters, "weighted": 30, "consumer": {"lag_bytes": 24},
        **changes,
    }  # fmt: skip


NOTHING: dict[str, Any] = {"consumer": None, "programs": [], "maps": []}
STATUS = {
    "bundle": {"version": "1.2", "digest": "d"}, "kernel": {"release": "6.1.0", "family": "6.1"},
    "loader_version": "0.1.0", "kill_unknown": ["/a", "/b"], "desired_error": None, "stats_enabled": True,
    "kills": [{"scope": "global"}, {"scope": "feature.x"}, {"scope": "global"}],
    "loader": {"cpu_ns": 2_500_000_000, "rss_bytes": 1000}, "time_unix_ns": 1_700_000_000_250_000_000,
    "features": {
        "one": entry(),
        "two": entry(wanted=False, state="killed", profile="disabled", weighted=None, **NOTHING),
    },
}  # fmt: skip


def samples(text: str) -> dict[str, str]:
    """{name and labels but the engine's: value}; each sample has that label and a head before it."""
    found, heads = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            heads.add(line.split()[2].removeprefix("ebpf_fleet_"))
        elif not line.startswith("# "):
            name, _brace, more = line.removeprefix("ebpf_fleet_").partition("{")
            labels, value = more.rsplit("} ", 1)
            assert name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") in heads or name in heads
            assert labels.startswith('engine="bcc"')
            found[name + labels.removeprefix('engine="bcc"')] = value
    return found


def test_the_page_has_a_sample_of_all_that_is_known() -> None:
    text = metrics.render(STATUS, [])
    assert text.endswith("\n")
    expected = {
        'build_info,loader_version="0.1.0",bundle_version="1.2",bundle_digest="d"': "1",
        'kernel_info,release="6.1.0",family="6.1"': "1",
        'feature_profile,feature="one",profile="full"': "0",
        'feature_profile,feature="one",profile="reduced"': "1",
        'feature_profile,feature="one",profile="disabled"': "0",
        'feature_profile,feature="two",profile="full"': "0",
        'feature_profile,feature="two",profile="reduced"': "0",
        'feature_profile,feature="two",profile="disabled"': "1",
        'feature_wanted,feature="one"': "1",
        'feature_wanted,feature="two"': "0",
        'feature_sample_every,feature="one"': "3",
        'feature_sample_every,feature="two"': "3",
        'events_weighted_total,feature="one"': "30",
        'program_run_seconds_total,feature="one",program="ef_a"': "1.5",
        'program_runs_total,feature="one",program="ef_a"': "4",
        'map_entries,feature="one",map="ef_open"': "3",
        'map_max_entries,feature="one",map="ef_open"': "100",
        'map_max_entries,feature="one",map="ef_counters"': "4",
        'map_memory_bytes,feature="one",map="ef_open"': "4096",
        'consumer_lag_bytes,feature="one"': "24",
        "kill_orders_unknown": "2",
        "desired_error": "0",
        "stats_enabled": "1",
        'kill_engaged,scope="global"': "1",
        'kill_engaged,scope="feature.x"': "1",
        "loader_cpu_seconds_total": "2.5",
        "loader_resident_memory_bytes": "1000",
        "status_timestamp_seconds": "1700000000.25",
    }
    for feature, attached in (("one", "attached"), ("two", "killed")):
        for state in ("off", "attached", "killed", "disabled", "shed"):
            expected[f'feature_state,feature="{feature}",state="{state}"'] = str(int(state == attached))
        for name, value in (("produced_total", 10), ("delivered_total", 6), ("dropped_total", 1), ("in_flight", 2)):
            expected[f'events_{name},feature="{feature}"'] = str(value)
        expected[f'events_sampled_out_total,feature="{feature}"'] = "1"
    assert samples(text) == expected


def test_what_is_not_known_has_no_sample() -> None:
    loader = {"cpu_ns": 0, "rss_bytes": None}
    text = metrics.render({**STATUS, "bundle": None, "features": None, "loader": loader, "desired_error": "x"}, [])
    found = samples(text)
    assert found['build_info,loader_version="0.1.0",bundle_version="",bundle_digest=""'] == "1"
    assert "loader_resident_memory_bytes" not in found
    assert (found["loader_cpu_seconds_total"], found["desired_error"]) == ("0", "1")
    assert not any("feature=" in name for name in found)


def test_a_histogram_has_forty_buckets_and_one_for_all() -> None:
    signal = {"name": "size_bytes", "scale": "bytes", "help": "Sizes."}
    hist, weighted = [1] * 64 + [12345], [2] * 64 + [99]
    text = metrics.render(STATUS, [(signal, hist, weighted)])
    found = samples(text)
    for suffix, each, total in (("", 1, 12345), ("_weighted", 2, 99)):
        buckets = {name: value for name, value in found.items() if name.startswith(f"size_bytes{suffix}_bucket")}
        edges = [str((2 << slot) - 1) for slot in range(40)]
        assert list(buckets) == [f'size_bytes{suffix}_bucket,le="{edge}"' for edge in [*edges, "+Inf"]]
        assert list(buckets.values()) == [str(each * (slot + 1)) for slot in range(40)] + [str(each * 64)]
        assert found[f"size_bytes{suffix}_sum"] == str(total)
        assert found[f"size_bytes{suffix}_count"] == str(each * 64)
    assert metrics.BUCKETS == 40
    assert "# HELP ebpf_fleet_size_bytes Sizes.\n# TYPE ebpf_fleet_size_bytes histogram\n" in text
