# SPDX-License-Identifier: GPL-3.0-or-later
"""How the loader reads records of a ring and of perf buffers, by value; both are made up in libbpf's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loader.drivers import build, run

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "events/aggregate.c", "events/feed.c", "events/perf.c", "events/cursor.c", "events/sink*.c",
          "kernel/format.c", "kernel/kernel.c")  # fmt: skip
# A record of 16 bytes and what stands before it.
RING_RECORD, PERF_RECORD = 24, 28


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("feed"), "feed", NEEDED)


def feed(driver: Path, kind: str, folder: Path, *steps: str) -> tuple[list[str], list[dict[str, Any]], str]:
    """What the steps said, the lines that were written, and stderr."""
    (folder / "events.jsonl").unlink(missing_ok=True)
    done = run(driver, kind, str(folder), *steps)
    written = folder / "events.jsonl"
    lines = written.read_text(encoding="utf-8").splitlines() if written.exists() else []
    return done.stdout.decode().splitlines(), [json.loads(line) for line in lines], done.stderr.decode()


def pids(lines: list[dict[str, Any]]) -> list[int]:
    return [line["pid"] for line in lines]


def test_a_record_becomes_a_line_with_its_own_time(driver: Path, tmp_path: Path) -> None:
    said, lines, _ = feed(driver, "ring", tmp_path, "put:16:5", "put:24:6", "read:10")
    assert said == ["0 2/0 0/0", "2/0 0/0"] and pids(lines) == [5, 6]
    assert list(lines[0]) == ["time", "feature", "event", "ktime_ns", "pid", "more"]
    assert (lines[0]["feature"], lines[0]["event"], lines[0]["more"]) == ("f", "e", 7)
    assert lines[0]["time"] <= lines[1]["time"]


def test_what_waits_is_told_by_bytes_and_age(driver: Path, tmp_path: Path) -> None:
    steps = [
        "lag",
        "age",
        "put:16:5",
        "put:16:6",
        "lag",
        "!sleep 0.05",
        "age",
        "read:1",
        "lag",
        "read:9",
        "lag",
        "what",
    ]
    said, _, _ = feed(driver, "ring", tmp_path, *steps)
    assert said[:3] == ["0", "0", str(2 * RING_RECORD)]
    assert int(said[3]) >= 50
    assert said[4:-1] == ["1 1/0 0/0", str(RING_RECORD), "0 2/0 0/0", "0", "77 65536 -1 0"]


def test_the_greatest_age_since_it_was_asked_last_is_told(driver: Path, tmp_path: Path) -> None:
    said, _, _ = feed(driver, "ring", tmp_path, "put:16:5", "!sleep 0.05", "read:9", "age", "age")
    assert int(said[1]) >= 50 and said[2] == "0"


def test_a_read_takes_no_more_than_it_may_and_says_that_there_may_be_more(driver: Path, tmp_path: Path) -> None:
    for kind, put in (("ring", "put:16:5"), ("perf", "put:0:16:5:0")):
        said, _, _ = feed(driver, kind, tmp_path, *[put] * 3, "read:2", "read:2")
        assert [line for line in said if "attr" not in line] == ["1 2/0 0/0", "0 3/0 0/0", "3/0 0/0"], kind


def test_a_record_that_is_too_short_is_dropped_counted_and_said_once(driver: Path, tmp_path: Path) -> None:
    said, lines, stderr = feed(driver, "ring", tmp_path, "put:15:5", "put:15:6", "put:16:7", "read:9")
    assert said[-1] == "1/2 0/0" and pids(lines) == [7]
    assert stderr.count("a record of 15 bytes, expected 16; it is dropped") == 1


def test_others_records_may_be_shorter_and_are_filled_with_zeros(driver: Path, tmp_path: Path) -> None:
    said, lines, stderr = feed(driver, "ring", tmp_path, "third", "put:16:5", "put:12:6", "put:8:7", "read:9")
    assert said[-1] == "3/0 0/0" and stderr == ""
    assert [(line["pid"], line["more"]) for line in lines] == [(5, 7), (6, 0), (0, 0)]


def test_who_only_counts_needs_no_lines(driver: Path, tmp_path: Path) -> None:
    said, lines, _ = feed(driver, "ring", tmp_path, "count", "put:16:5", "put:16:6", "read:9")
    assert said[-1] == "2/0 0/0" and lines == []


def test_records_are_told_together_while_it_is_asked_for_and_what_is_left_at_its_end(
    driver: Path, tmp_path: Path
) -> None:
    steps = ["aggregate:1", "put:16:5", "put:16:5", "put:16:6", "read:9", "tell", "put:16:5", "read:9", "aggregate:0",
             "put:16:8", "read:9"]  # fmt: skip
    said, lines, _ = feed(driver, "ring", tmp_path, *steps)
    assert said == ["0 0/0 0/0", "0/0 3/0", "0 0/0 3/0", "0 1/0 4/0", "1/0 4/0"]
    assert [(line.get("aggregated"), line["pid"]) for line in lines] == [(2, 5), (1, 6), (1, 5), (None, 8)]
    assert list(lines[0]) == ["time", "feature", "event", "aggregated", "pid"]


def test_a_feed_that_cannot_be_opened_says_why(driver: Path, tmp_path: Path) -> None:
    assert feed(driver, "ring", tmp_path, "hash")[0] == ["EPROTOTYPE", "0/0 0/0"]
    said = feed(driver, "ring", tmp_path, "broken")[0]
    assert len(said) == 2 and said[0].startswith("E"), said
    assert feed(driver, "ring", tmp_path, "failing")[0] == ["ENOMEM", "0/0 0/0"]
    assert feed(driver, "perf", tmp_path, "failing")[0][1:] == ["EPERM", "0/0 0/0"]


# Perf buffers: of three CPUs, 4096 bytes each.


def perf(driver: Path, folder: Path, *steps: str) -> tuple[list[str], list[dict[str, Any]]]:
    said, lines, _ = feed(driver, "perf", folder, *steps)
    # A software event of what programs output, each of which counts; the reader is woken by bytes.
    assert said[0] == "attr 1 10 1 1"
    return said[1:-1], lines


def test_records_of_all_cpus_are_read_in_turns(driver: Path, tmp_path: Path) -> None:
    puts = ["put:0:16:1:0", "put:0:16:2:0", "put:1:16:3:0", "put:2:16:4:0"]
    said, lines = perf(driver, tmp_path, *puts, "read:9", "what")
    assert said == ["0 4/0 0/0", "78 12288 0 0"] and pids(lines) == [1, 2, 3, 4]
    # The next read begins where the one before was stopped.
    said, lines = perf(driver, tmp_path, *puts, "read:2", "put:0:16:5:0", "read:9")
    assert said == ["1 2/0 0/0", "0 5/0 0/0"] and pids(lines) == [1, 2, 3, 4, 5]


def test_what_waits_in_perf_buffers_is_of_all_cpus(driver: Path, tmp_path: Path) -> None:
    said, _ = perf(
        driver, tmp_path, "lag", "put:0:16:1:0", "put:1:16:2:0", "lag", "put:2:20:3:0", "lag", "read:9", "lag"
    )
    assert said == ["0", str(2 * PERF_RECORD), str(3 * PERF_RECORD + 4), "0 3/0 0/0", "0"]


@pytest.mark.parametrize(
    ("ages", "least"), [((100, 900, 500), 900), ((900, 100, 500), 900), ((100, 500, 900), 900), ((300,), 300)]
)
def test_the_age_is_that_of_the_oldest_of_all_cpus(
    driver: Path, tmp_path: Path, ages: tuple[int, ...], least: int
) -> None:
    """Data goes round the end of a buffer in the middle of the first record."""
    puts = [f"put:{cpu}:16:{cpu}:{age}" for cpu, age in enumerate(ages)]
    said, _ = perf(driver, tmp_path, *puts, "age")
    assert least <= int(said[0]) < least + 100_000


def test_a_loss_that_is_first_tells_no_age(driver: Path, tmp_path: Path) -> None:
    said, _ = perf(driver, tmp_path, "lost:0:5", "put:1:16:2:700", "age", "read:9", "what")
    assert int(said[0]) >= 700 and said[1:] == ["0 1/0 0/0", "78 12288 5 0"]
    said, _ = perf(driver, tmp_path, "lost:0:5", "lost:2:6", "age", "read:9", "what")
    assert said == ["0", "0 0/0 0/0", "78 12288 11 0"]


def test_the_weights_of_records_are_added_up_as_they_are_written(driver: Path, tmp_path: Path) -> None:
    """Those of records that are told together too; a record of an object that does not weigh has none."""
    steps = ["put:16:3", "put:16:5", "read:9", "aggregate:1", "put:16:7", "read:9", "tell"]
    high = 7 << 32  # the driver's weight takes the place of two numbers, of which the second is always 7
    said, lines, _ = feed(driver, "ring", tmp_path, "weighs", *steps)
    assert said[-1] == f"2/0 1/0 weigh {3 + 5 + 2 * high} {7 + high}"
    assert [line["weight"] - high for line in lines] == [3, 5, 7] and lines[2]["aggregated"] == 1
    said, lines, _ = feed(driver, "ring", tmp_path, *steps)
    assert said[-1] == "2/0 1/0" and not [line for line in lines if "weight" in line]
