# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of events on their way out, by value: backpressure, groups, fairness, cursor and every kind of sink."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.drivers import ask, build, run

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "events/aggregate.c", "events/backpressure.c", "events/cursor.c", "events/fairness.c",
          "events/sink*.c", "kernel/format.c", "kernel/kernel.c")  # fmt: skip
JSONL, JOURNAL, DATAGRAM, COUNT = "0123"
# Of the buffers: bytes and lines.
FILE_BUFFER, FILE_LINES, SOCKET_BUFFER, SOCKET_LINES = 65536, 2048, 131072, 1024


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("events"), "events", NEEDED)


# Backpressure; tests/loader/test_backpressure.py has the rest of its rules.


def looks(driver: Path, kind: int, *steps: str) -> list[str]:
    return ask(driver, "looks", str(kind), *steps).splitlines()


def test_each_policy_thins_as_far_as_it_may(driver: Path) -> None:
    strained = ["1000/1000/0"] * 12
    assert looks(driver, 0, *strained) == ["same 0 1 0"] * 12
    assert looks(driver, 2, *strained[:3]) == ["begun 1 1 0", "same 1 1 0", "same 1 1 0"]
    assert looks(driver, 1, *strained)[-3:] == ["changed 10 1024 0", "same 10 1024 0", "same 10 1024 0"]


def test_a_drop_is_a_strain_of_its_own(driver: Path) -> None:
    assert looks(driver, 1, "0/1000/5", "0/1000/5", "0/1000/8", "0/1000/8") == [
        "same 0 1 0", "same 0 1 0", "begun 1 2 3", "same 1 2 3"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lag", "strained", "calm"),
    [(375, False, True), (376, False, False), (500, False, False), (501, True, False)],
)
def test_what_is_calm_and_what_is_strained(driver: Path, lag: int, strained: bool, calm: bool) -> None:
    found = looks(driver, 2, "900/1000/0", *[f"{lag}/1000/0"] * 30)
    assert (found[-1].startswith("ended"), found[1].startswith("same")) == (calm, True)
    assert looks(driver, 1, f"{lag}/1000/0")[0].startswith("begun" if strained else "same")


def test_a_level_of_many_is_left_one_at_a_time_and_forgotten_at_once(driver: Path) -> None:
    found = looks(driver, 1, *["900/1000/0"] * 3, *["0/1000/0"] * 60, "forget", "0/1000/9", "900/1000/9")
    assert [line.split()[:2] for line in (found[32], found[62])] == [["changed", "2"], ["changed", "1"]]
    assert found[-2:] == ["same 0 1 0", "begun 1 2 0"]


def test_a_look_that_is_not_calm_begins_the_wait_anew(driver: Path) -> None:
    found = looks(driver, 2, "900/1000/0", *["0/1000/0"] * 29, "400/1000/0", *["0/1000/0"] * 30)
    assert [at for at, line in enumerate(found) if line.startswith("ended")] == [60]


def test_each_relapse_doubles_the_wait_and_what_lasts_ends_that(driver: Path) -> None:
    """A step back after 30, 60, 120 and then always 240 calm looks; 30 looks later a strain is no relapse."""
    steps, ends = [], []
    for calm in (30, 60, 120, 240, 240):
        steps += ["900/1000/0", *["0/1000/0"] * calm]
        ends.append(len(steps) - 1)
    steps += [*["0/1000/0"] * 30, "900/1000/0", *["0/1000/0"] * 30]
    ends.append(len(steps) - 1)
    found = looks(driver, 2, *steps)
    assert [at for at, line in enumerate(found) if line.startswith("ended")] == ends


# Groups.


def groups(driver: Path, by: list[str], *records: str) -> list[str]:
    return ask(driver, "aggregate", json.dumps(by), *records).splitlines()


def test_records_are_counted_by_the_fields_that_are_named(driver: Path) -> None:
    records = ["1:a", "2:a", "1:a", "1:b", "1:a"]
    assert groups(driver, ["pid"], *records, "tell", "1:c", "tell", "tell") == [
        '4 {"pid": 1}', '1 {"pid": 2}', '1 {"pid": 1}'
    ]  # fmt: skip
    assert groups(driver, ["comm", "pid"], *records, "tell") == [
        '3 {"comm": "a", "pid": 1}', '1 {"comm": "a", "pid": 2}', '1 {"comm": "b", "pid": 1}'
    ]  # fmt: skip
    assert groups(driver, ["comm"], *records, "tell") == ['4 {"comm": "a"}', '1 {"comm": "b"}']
    assert groups(driver, ["comm"], "1:exactly8", "2:exactly8", "3:exactly", "tell") == [
        '2 {"comm": "exactly8"}', '1 {"comm": "exactly"}'
    ]  # fmt: skip


def test_256_groups_have_a_count_of_their_own(driver: Path) -> None:
    records = [f"{number}:x" for number in range(258)]
    found = groups(driver, ["pid"], *records, *records, "tell", "5:x", "tell")
    assert found[:256] == [f'2 {{"pid": {number}}}' for number in range(256)]
    assert found[256:] == ["4 {}", '1 {"pid": 5}']


def test_fields_that_cannot_be_grouped_by(driver: Path) -> None:
    assert groups(driver, ["none"]) == ["ENOKEY"]
    assert groups(driver, ["pid", "none"]) == ["ENOKEY"]
    assert groups(driver, ["bytes", *["ktime_ns"] * 7]) == []
    assert groups(driver, ["bytes", "bytes"]) == ["E2BIG"]
    assert groups(driver, ["bytes", *["ktime_ns"] * 7, "pid"]) == ["E2BIG"]


# Fairness.


@pytest.mark.parametrize(
    ("rate", "quota"),
    [
        (0, 1),
        (1, 1),
        (3, 1),
        (7, 1),
        (8, 2),
        (1000, 268),
        (10**9, 2**28),
        (16 * 10**9 - 4, 2**32 - 2),
        (2**62, 2**32 - 1),
    ],
)
def test_what_may_pass_in_a_window(driver: Path, rate: int, quota: int) -> None:
    """A window is 2^28 ns."""
    assert ask(driver, "quota", str(rate)) == str(quota)


def test_thinning_is_over_a_minute_after_the_last_event_that_was_thinned(driver: Path) -> None:
    second = 10**9
    steps = ["0:0", f"{second}:5", f"{2 * second}:9", f"{62 * second - 1}:9", f"{62 * second}:9", f"{70 * second}:9",
             f"{71 * second}:10", "forget", f"{72 * second}:0", f"{73 * second}:1"]  # fmt: skip
    assert ask(driver, "notice", *steps).splitlines() == [
        "same 0", "begun 1", "same 1", "same 1", "ended 0", "same 0", "begun 1", "same 1", "same 1"
    ]  # fmt: skip


def sources(driver: Path, *rows: str, error: int = 0) -> tuple[dict[str, Any], str]:
    first, forgotten, sentence, then = ask(driver, "sources", str(error), *rows).splitlines()
    thinned = json.loads(first)["thinned"]
    assert json.loads(forgotten) == {
        "by": ["uid", "cgroup"], "rate_per_second": None, "active": False, "thinned": thinned, "sources": 0, "top": [],
        "others_thinned": 0,
    }  # fmt: skip
    assert then == "its sources are not known"
    return json.loads(first), sentence


def test_the_most_thinned_are_named_first_and_the_others_added_up(driver: Path) -> None:
    rows = [f"{100 + at}:{at}:{1000 + at}:{thinned}" for at, thinned in enumerate([3, 0, 9, 5, 7, 8, 1, 6])]
    found, sentence = sources(driver, *rows, "1:4294967295:77:88")
    assert found["rate_per_second"] == 7 and found["sources"] == 8 and found["others_thinned"] == 3 + 1
    assert [(one["uid"], one["cgroup_id"], one["produced"], one["thinned"]) for one in found["top"]] == [
        (2, 102, 1002, 9), (5, 105, 1005, 8), (4, 104, 1004, 7), (7, 107, 1007, 6), (3, 103, 1003, 5)
    ]  # fmt: skip
    assert sentence == "the loudest is uid 2 in control group 102: 9 of its 1002 events were thinned"


def test_of_sources_that_are_equal_the_first_are_named(driver: Path) -> None:
    found, _ = sources(driver, *(f"{uid}:{uid}:9:5" for uid in range(1, 8)))
    assert [one["uid"] for one in found["top"]] == [1, 2, 3, 4, 5] and found["others_thinned"] == 10


def test_a_table_that_cannot_be_read_names_nobody(driver: Path) -> None:
    found, sentence = sources(driver, "1:1:9:5", error=22)
    assert (found["thinned"], found["sources"], found["top"]) == (5, 0, [])
    assert sentence == "its sources are not known"


# Cursor.


def cursor(driver: Path, path: Path | str) -> str:
    return ask(driver, "cursor", str(path))


def put_cursor(path: Path, **changes: Any) -> Path:
    document = {"schema": "ebpf.fleet/cursor/v1", "segment": 3, "offset": 5, **changes}
    path.write_text(json.dumps({key: value for key, value in document.items() if value != "absent"}), encoding="utf-8")
    return path


def test_a_cursor_is_two_numbers_and_nothing_else_is_believed(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    assert cursor(driver, put_cursor(path, more="x")) == "0 3 5"
    assert cursor(driver, put_cursor(path, segment=1, offset=0)) == "0 1 0"
    most = 999_999_999_999_999_999
    assert cursor(driver, put_cursor(path, segment=most, offset=2**63 - 1)) == f"0 {most} {2**63 - 1}"
    for changes in ({"segment": 0}, {"segment": most + 1}, {"segment": "3"}, {"segment": 1.5}, {"segment": "absent"},
                    {"offset": -1}, {"offset": "5"}, {"offset": "absent"}, {"schema": "x"}, {"schema": "absent"},
                    {"schema": 7}):  # fmt: skip
        assert cursor(driver, put_cursor(path, **changes)) == "EINVAL 0 0", changes
    path.write_text('{"schema": "ebpf.fleet/cursor/v1", "segment": 3, "segment": 3, "offset": 5}', encoding="utf-8")
    assert cursor(driver, path) == "EINVAL 0 0"


@pytest.mark.parametrize(("size", "told"), [(4096, "0 3 5"), (4097, "EINVAL 0 0")])
def test_a_cursor_of_4096_bytes_is_read(driver: Path, tmp_path: Path, size: int, told: str) -> None:
    path = put_cursor(tmp_path / "cursor")
    path.write_bytes(path.read_bytes().ljust(size))
    assert cursor(driver, path) == told


def test_what_is_no_plain_file_is_no_cursor_and_not_waited_for(driver: Path, tmp_path: Path) -> None:
    assert cursor(driver, "") == cursor(driver, tmp_path / "none") == "ENOENT 0 0"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(put_cursor(tmp_path / "real"))
    for name in ("fifo", "link", "."):
        assert cursor(driver, tmp_path / name) == "EINVAL 0 0"


# Sinks.


def sink(
    driver: Path, kind: str, path: Path | str, *steps: str, at: Path | str = "", size: int = 65536, files: int = 8
) -> list[str]:
    return ask(driver, "sink", kind, str(path), str(at), str(size), str(files), *steps).splitlines()


def said(driver: Path, kind: str, path: Path | str, *steps: str) -> list[str]:
    done = run(driver, "sink", kind, str(path), "", "65536", "8", *steps)
    return done.stderr.decode().splitlines()


def test_who_only_counts_counts(driver: Path, tmp_path: Path) -> None:
    found = sink(driver, COUNT, tmp_path, "add:2:x", "flush", "add:1:y", "tell")
    assert found == ["2/0", "2/0", "3/0", "-1 -1 -1 -1 -1", "3/0"]
    assert list(tmp_path.iterdir()) == []


def test_lines_are_written_when_they_are_flushed_or_the_sink_ends(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    look = f"!cp {path} {tmp_path}/seen"
    assert sink(driver, JSONL, tmp_path, "add:2:one", "add:5:two", "flush", look, "add:1:three") == [
        "0/0", "0/0", "7/0", "7/0", "7/0", "8/0"
    ]  # fmt: skip
    assert (tmp_path / "seen").read_text(encoding="utf-8") == "one\ntwo\n"
    assert path.read_text(encoding="utf-8") == "one\ntwo\nthree\n"
    assert path.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize(
    ("lines", "bytes_each", "written"),
    [(FILE_LINES, 10, 0), (FILE_LINES + 1, 10, FILE_LINES), (2, FILE_BUFFER // 2, 0), (3, FILE_BUFFER // 2, 2),
     (1, FILE_BUFFER, 0)],
)  # fmt: skip
def test_a_full_buffer_is_written_by_itself(
    driver: Path, tmp_path: Path, lines: int, bytes_each: int, written: int
) -> None:
    found = sink(driver, JSONL, tmp_path, f"fill:{lines}:{bytes_each}", size=1 << 30)
    assert found == [f"{written}/0", f"{lines}/0"]
    assert (tmp_path / "events.jsonl").stat().st_size == lines * bytes_each


def test_a_line_that_no_buffer_holds_is_dropped(driver: Path, tmp_path: Path) -> None:
    found = sink(driver, JSONL, tmp_path, "add:1:a", f"fill:1:{FILE_BUFFER + 1}", "add:1:b")
    assert found == ["0/0", "1/1", "1/1", "2/1"]
    assert (tmp_path / "events.jsonl").read_text(encoding="utf-8") == "a\nb\n"


def test_a_file_gets_its_number_just_before_it_would_pass_its_limit(driver: Path, tmp_path: Path) -> None:
    steps = ["fill:1:60", "flush", "fill:1:40", "flush", "fill:1:1", "flush"]
    sink(driver, JSONL, tmp_path, *steps, size=100)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {"events.jsonl": 1, "events.jsonl.1": 100}
    # A file that is empty takes any line.
    sink(driver, JSONL, tmp_path, f"!: >{tmp_path}/events.jsonl", "fill:1:500", "flush", size=100)
    assert (tmp_path / "events.jsonl").stat().st_size == 500


def names(folder: Path) -> list[str]:
    return sorted(path.name.removeprefix("events.jsonl") for path in folder.iterdir())


def test_the_oldest_give_way_and_numbers_are_never_used_again(driver: Path, tmp_path: Path) -> None:
    sink(driver, JSONL, tmp_path, *["fill:1:60", "flush"] * 6, size=100, files=3)
    assert names(tmp_path) == ["", ".4", ".5"]
    # Fewer are allowed at the next start: what is too much goes at once.
    sink(driver, JSONL, tmp_path, size=100, files=2)
    assert names(tmp_path) == ["", ".5"]
    for name in (".01", ".x", ".7x", ".1234567890123456789", ".", ".0"):
        (tmp_path / f"events.jsonl{name}").touch()
    sink(driver, JSONL, tmp_path, "fill:1:60", "flush", size=100, files=3)
    assert names(tmp_path) == sorted(["", ".5", ".6", ".01", ".x", ".7x", ".1234567890123456789", ".", ".0"])
    (tmp_path / "events.jsonl.123456789012345678").touch()
    sink(driver, JSONL, tmp_path, "fill:1:60", "flush", size=100, files=3)
    assert ".123456789012345679" in names(tmp_path) and ".5" not in names(tmp_path)


def test_half_a_line_is_ended_and_a_whole_one_is_not(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for before, after in (("half", "half\nx\n"), ("whole\n", "whole\nx\n"), ("", "x\n")):
        path.write_text(before, encoding="utf-8")
        sink(driver, JSONL, tmp_path, "add:1:x")
        assert path.read_text(encoding="utf-8") == after


@pytest.mark.parametrize("change", ["rm {}", "mv {} {}.moved; touch {}", "cp {} {}.copy; mv {}.copy {}"])
def test_a_file_that_was_taken_away_is_made_anew(driver: Path, tmp_path: Path, change: str) -> None:
    path = tmp_path / "events.jsonl"
    steps = ["add:1:a", "flush", "!" + change.replace("{}", str(path)), "add:1:b"]
    assert sink(driver, JSONL, tmp_path, *steps)[-1] == "2/0"
    assert path.read_text(encoding="utf-8").endswith("b\n")


def test_a_file_that_is_still_there_is_not_opened_anew(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink(driver, JSONL, tmp_path, "add:1:a", "flush", f"!printf x >>{path}", "add:1:b")
    assert path.read_text(encoding="utf-8") == "a\nxb\n"


@pytest.mark.parametrize("kind", ["fifo", "folder", "symlink"])
def test_what_is_no_plain_file_is_not_written_to(driver: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "events.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    assert sink(driver, JSONL, tmp_path, "add:2:x", "flush", "add:1:y") == ["0/0", "0/2", "0/2", "0/3"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_failure_is_said_once_and_its_end_once(driver: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    line = ["add:1:x", "flush"]
    steps = [*line, *line, f"!mkdir {folder}", *line, *line, f"!rm -r {folder}", *line]
    failed = (
        f"ebpf-loader: cannot write {folder}/events.jsonl: No such file or directory; events are dropped and counted "
        "until the folder can be written"
    )
    assert said(driver, JSONL, folder, *steps) == [
        failed, f"ebpf-loader: {folder}/events.jsonl can be written again", failed
    ]  # fmt: skip
    assert sink(driver, JSONL, folder, *steps)[-1] == "2/3"


def test_what_the_disk_does_not_take_is_taken_back_to_whole_lines(driver: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8192", "tmpfs", str(disk)], check=True)
    try:
        assert sink(driver, JSONL, disk, "fill:100:100", "flush", "fill:1:100", "flush", size=1 << 20)[-1] == "81/20"
        assert (disk / "events.jsonl").stat().st_size == 8100
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# How far a log shipper is behind.


def test_without_a_cursor_nothing_is_known_of_shipping(driver: Path, tmp_path: Path) -> None:
    assert sink(driver, JSONL, tmp_path, "add:1:x", "flush", "tell")[-2] == "-1 -1 -1 -1 -1"
    at = tmp_path / "cursor"
    assert sink(driver, JSONL, tmp_path, "add:1:x", "flush", "tell", at=at)[-2] == "1 -1 -1 -1 0"


def test_how_far_a_shipper_is_behind_is_told_to_the_byte(driver: Path, tmp_path: Path) -> None:
    at, log = tmp_path / "cursor", tmp_path / "log"
    log.mkdir()
    steps = ["fill:1:60", "flush"] * 3 + ["tell"]

    def told(segment: int, offset: int) -> str:
        for path in log.iterdir():
            path.unlink()
        put_cursor(at, segment=segment, offset=offset)
        (log / "events.jsonl.1").write_text("x" * 60, encoding="utf-8")
        return sink(driver, JSONL, log, *steps, at=at, size=100)[-2]

    # Segments 1 to 3 of 60 bytes each, and the file that is written, which will be the 4th.
    assert told(1, 0) == "4 1 0 240 0"
    assert told(1, 25) == "4 1 25 215 0"
    assert told(1, 61) == "4 1 61 180 0"
    assert told(3, 60) == "4 3 60 60 0"
    assert told(4, 59) == "4 4 59 1 0"
    assert told(4, 60) == "4 4 60 0 0"
    assert told(5, 0) == "4 5 0 0 0"


def test_what_was_removed_before_it_was_taken_is_counted(driver: Path, tmp_path: Path) -> None:
    at, log = tmp_path / "cursor", tmp_path / "log"
    log.mkdir()
    put_cursor(at, segment=2, offset=10)
    (log / "events.jsonl.1").write_text("x" * 60, encoding="utf-8")
    found = sink(driver, JSONL, log, *["fill:1:60", "flush"] * 4, "tell", at=at, size=100, files=2)
    # Of 1 to 4 only the last is there: 1 was taken, of 2 all but 50 bytes, 3 not.
    assert names(log) == ["", ".4"] and found[-2] == "5 2 10 120 110"


def test_numbers_go_on_where_the_cursor_is_when_all_segments_are_gone(driver: Path, tmp_path: Path) -> None:
    at, log = tmp_path / "cursor", tmp_path / "log"
    log.mkdir()
    for segment, told in ((7, 7), (10**15 - 1, 10**15 - 1), (10**15, 1)):
        put_cursor(at, segment=segment, offset=0)
        assert sink(driver, JSONL, log, "tell", at=at)[0].split()[0] == str(told)
    (log / "events.jsonl.3").touch()
    put_cursor(at, segment=7, offset=0)
    assert sink(driver, JSONL, log, "tell", at=at)[0].split()[0] == "4"


def test_at_most_sixteen_segments_are_added_up(driver: Path, tmp_path: Path) -> None:
    at, log = tmp_path / "cursor", tmp_path / "log"
    log.mkdir()
    for number in range(4, 21):
        (log / f"events.jsonl.{number}").write_text("x", encoding="utf-8")
    put_cursor(at, segment=1, offset=0)
    assert sink(driver, JSONL, log, "tell", at=at, files=18)[0] == "21 1 0 16 0"


# Sockets.


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.setblocking(False)
        yield made


def waiting(reader: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(reader.recv(1 << 18))
        except BlockingIOError:
            return found


def queue() -> int:
    """Datagrams that a socket's queue holds."""
    return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text(encoding="utf-8")) + 1


def test_a_datagram_is_a_line_without_its_end(driver: Path, tmp_path: Path, reader: socket.socket) -> None:
    path = tmp_path / "socket"
    found = sink(driver, DATAGRAM, path, "add:2:one", "add:3:two", "flush", "add:1:three")
    assert found == ["0/0", "0/0", "5/0", "5/0", "6/0"]
    assert waiting(reader) == [b"one", b"two", b"three"]


def test_a_reader_that_stands_still_is_waited_for_until_the_end(
    driver: Path, tmp_path: Path, reader: socket.socket
) -> None:
    more = queue() + 5
    lines = [f"add:1:{number}" for number in range(more)]
    found = sink(driver, DATAGRAM, tmp_path / "socket", *lines, "flush", "flush", "settle")
    assert found[-4:] == [f"{queue()}/0", f"{queue()}/0", f"{queue()}/5", f"{queue()}/5"]
    assert waiting(reader) == [str(number).encode() for number in range(queue())]


def test_what_waited_goes_first_and_whole_when_there_is_room(
    driver: Path, tmp_path: Path, reader: socket.socket
) -> None:
    lines = [f"add:1:{'x' * (number % 7)}{number}" for number in range(queue() + 3)]
    # The driver's child reads nine of them from the same socket.
    take = f"import socket; s = socket.socket(fileno={reader.fileno()}); [s.recv(99) for _ in range(9)]"
    os.set_inheritable(reader.fileno(), True)
    command = [str(driver), "sink", DATAGRAM, str(tmp_path / "socket"), "", "65536", "8", *lines, "flush",
               f"!{sys.executable} -c '{take}'", "flush", "add:1:last"]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, pass_fds=[reader.fileno()], timeout=30)
    assert done.stdout.splitlines()[-1] == f"{queue() + 4}/0"
    assert waiting(reader) == [line.split(":")[2].encode() for line in lines][9:] + [b"last"]


@pytest.mark.parametrize(
    ("lines", "bytes_each", "kept"),
    [(SOCKET_LINES, 2, SOCKET_LINES), (SOCKET_LINES + 1, 2, SOCKET_LINES), (4, SOCKET_BUFFER // 4 + 1, 4),
     (5, SOCKET_BUFFER // 4 + 1, 4)],
)  # fmt: skip
def test_what_the_buffer_does_not_hold_is_dropped(
    driver: Path, tmp_path: Path, lines: int, bytes_each: int, kept: int
) -> None:
    """With nobody there it is emptied by the failure; with somebody who stands still it stays full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as still:
        still.bind(str(tmp_path / "socket"))
        full = ["add:1:x"] * queue() + ["flush"]
        found = sink(driver, DATAGRAM, tmp_path / "socket", *full, f"fill:{lines}:{bytes_each}")
        assert found[-2] == f"{queue()}/{lines - kept}"


def test_a_line_that_no_datagram_holds_is_dropped_alone(driver: Path, tmp_path: Path, reader: socket.socket) -> None:
    path = tmp_path / "socket"
    assert sink(driver, DATAGRAM, path, "add:1:a", f"fill:1:{SOCKET_BUFFER + 2}", "add:1:b")[-1] == "2/1"
    assert waiting(reader) == [b"a", b"b"]


def test_a_reader_that_is_not_there_is_asked_for_once_a_second(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    make = f"!{sys.executable} -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind(\"{path}\")'"
    nobody = ["add:1:x", "flush"]
    assert said(driver, DATAGRAM, path, *nobody, *nobody, "wait", *nobody) == [
        f"ebpf-loader: no reader takes events at {path}: No such file or directory; they are dropped and counted until "
        "somebody does"
    ]
    assert sink(driver, DATAGRAM, path, *nobody, *nobody)[-1] == "0/2"
    # Its socket is there and nobody has it open: it is refused.
    assert "Connection refused" in said(driver, DATAGRAM, path, make, *nobody)[0]


def test_a_reader_that_comes_is_found_within_a_second_and_said(
    driver: Path, tmp_path: Path, reader: socket.socket
) -> None:
    path, place = tmp_path / "later", tmp_path / "socket"
    steps = ["add:1:lost", "flush", f"!ln -s {place} {path}", "add:1:too soon", "flush", "wait", "add:1:taken", "flush"]
    told = said(driver, DATAGRAM, path, *steps)
    assert told[1:] == [f"ebpf-loader: events are taken again at {path}"]
    assert waiting(reader) == [b"taken"]


def test_a_reader_that_goes_is_said_and_what_it_did_not_take_dropped(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        os.set_inheritable(made.fileno(), True)
        shut = f"!{sys.executable} -c 'import socket; socket.socket(fileno={made.fileno()}).shutdown(socket.SHUT_RDWR)'"
        command = [str(driver), "sink", DATAGRAM, str(path), "", "65536", "8", "add:1:x", "flush", shut, "add:1:y",
                   "flush", "add:1:z", "flush"]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True, pass_fds=[made.fileno()], timeout=30)
    assert done.stdout.splitlines() == ["0/0", "1/0", "1/0", "1/0", "1/1", "1/1", "1/2", "1/2"]
    assert done.stderr.count("no reader takes events") == 1


def test_the_journal_gets_fields_at_its_own_place(driver: Path, tmp_path: Path) -> None:
    """Its socket has one path: /run is another one for this process."""
    program = f"""
import os, socket, subprocess
os.makedirs("/run/systemd/journal")
made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
made.bind("/run/systemd/journal/socket")
subprocess.run(["{driver}", "sink", "1", "-", "", "65536", "8", "add:1:{{}}"], check=True, stdout=subprocess.DEVNULL)
print(made.recv(1000).decode())
"""
    (tmp_path / "program").write_text(program, encoding="utf-8")
    inside = f"mount -t tmpfs tmpfs /run && exec {sys.executable} {tmp_path}/program"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout == "PRIORITY=6\nSYSLOG_IDENTIFIER=ebpf-loader\nEF_FEATURE=feat\nMESSAGE={}\n\n"
