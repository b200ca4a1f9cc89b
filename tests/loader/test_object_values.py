# SPDX-License-Identifier: GPL-3.0-or-later
"""A feature around an object that is made up here: what can be, what is seen of it, what it is read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loader.drivers import ask, build

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "feature/*.c", "events/*.c", "control/*.c", "bundle/contract.c", "bundle/signal.c",
          "bundle/standing.c", "bundle/variants.c", "bundle/bundle.c", "kernel/format.c", "kernel/labels.c",
          "kernel/bpflog.c", "kernel/proof.c", "kernel/hook.c", "kernel/require.c", "kernel/requirement.c",
          "kernel/bpfnames.c", "kernel/kernel.c", "kernel/probe.c", "kernel/mapread.c")  # fmt: skip
HASH, ARRAY, PERF, PERCPU_HASH, PERCPU_ARRAY, LRU, LRU_PERCPU, RING = 1, 2, 4, 5, 6, 9, 10, 27
HISTOGRAM, COUNTERS = "0", "2"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("object"), "object", NEEDED, "-Wl,--wrap=ef_fd_memory")


def lines(driver: Path, *words: str) -> list[str]:
    return ask(driver, *words).splitlines()


def a_map(name: str, kind: int, key: int = 4, value: int = 8, most: int = 5) -> str:
    return f"{name}:{kind}:{key}:{value}:{most}"


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        ([], "1 - "),
        (["kernel:6.1", "btf:vmlinux"], "1 - "),
        (["kernel:6.2"], "0 EF_KERNEL_TOO_OLD it needs kernel 6.2 or newer, this is 6.1.0"),
        (["kernel:6.0", "kernel:7.0", "kernel:8.0"], "0 EF_KERNEL_TOO_OLD it needs kernel 7.0 or newer, this is 6.1.0"),
        # What a load answers is not asked before it.
        (["helper:tracing:ktime_get_ns", "map_type:ringbuf", "prog_type:tracing"], "1 - "),
        (
            ["helper:tracing:ktime_get_ns", "kernel:6.2"],
            "0 EF_KERNEL_TOO_OLD it needs kernel 6.2 or newer, this is 6.1.0",
        ),
    ],
)
def test_what_is_asked_before_a_load(driver: Path, requirements: list[str], said: str) -> None:
    assert ask(driver, "possible", *requirements).strip() == said.strip()


def see(driver: Path, *words: str) -> list[Any]:
    return [json.loads(line) for line in lines(driver, "see", *words)]


def test_maps_and_programs_are_told_as_the_kernel_has_them(driver: Path) -> None:
    maps = [a_map("a", HASH, most=10), a_map("r", RING, 0, 0, 4096), a_map("l", LRU, most=7), a_map("o.data", ARRAY)]
    found = see(driver, *maps)
    names = [
        ("a", "hash", 10, 10, 0),
        ("r", "ringbuf", 4096, None, 0),
        ("l", "lru_hash", 7, 7, 1),
        (".data", "array", 5, None, 0),
    ]
    for at, (name, kind, most, entries, evicts) in enumerate(names):
        assert found[2 * at] == {"name": name, "id": 100 + at, "type": kind, "max_entries": most, "entries": entries,
                                 "memory_bytes": None}  # fmt: skip
        assert found[2 * at + 1] == evicts
    program = {"name": "p", "id": 7, "tag": "0123456789abcdef", "verified_insns": 10}
    assert found[-2] == {**program, "run_cnt": None, "run_time_ns": None}
    assert found[-1] == {**program, "run_cnt": 8, "run_time_ns": 9}
    assert see(driver, "unknown", a_map("a", HASH)) == [None, 0, None, None]


@pytest.mark.parametrize(("says", "of_hash", "of_ring"), [(0, 5, 4101), (1, 6, 6), (4096, 4101, 4101)])
def test_a_maps_memory_is_the_kernels_word_with_the_readers_buffers(
    driver: Path, says: int, of_hash: int, of_ring: int
) -> None:
    """Of a ring of which the kernel says 0 it is the data; the buffers have 5 bytes here."""
    found = see(driver, f"={says}", a_map("a", HASH), a_map("r", RING, 0, 0, 4096))
    assert [found[0]["memory_bytes"], found[2]["memory_bytes"]] == [of_hash, of_ring]


RECORD, HEADER = 8192, 8


@pytest.mark.parametrize(
    ("before", "size", "ring", "said"),
    [
        # The struct is the first type of all, or a later one.
        (0, 24, 32, ""),
        (3, 24, 32, ""),
        (0, 24, 31, "has 31 bytes, fewer than one record and its header (32): make the ring larger"),
        (3, 24, 31, "has 31 bytes, fewer than one record and its header (32): make the ring larger"),
        # The ring counts in words of eight bytes.
        (0, 17, 31, "fewer than one record and its header (32)"),
        (0, 16, 24, ""),
        (0, RECORD, 2 * RECORD, ""),
        (0, RECORD - 7, 2 * RECORD, ""),
        (0, RECORD + 1, 2 * RECORD, f"struct 'ef_event' of variant 'full' has {RECORD + 8} bytes; this loader carries"),
        # Without its type the size is not known.
        (-1, 0, HEADER, ""),
        (-2, 0, HEADER, ""),
        (-2, 0, HEADER - 1, f"fewer than one record and its header ({HEADER})"),
    ],
)
def test_a_record_has_room_in_the_loader_and_in_its_ring(
    driver: Path, before: int, size: int, ring: int, said: str
) -> None:
    told = ask(driver, "record", f"{before}:{size}", a_map("ring", RING, 0, 0, ring))
    if said:
        assert told.startswith("-1 EF_CONTRACT_MALFORMED ") and said in told
    else:
        assert told.strip() == "0 -"


def test_only_a_ring_that_is_there_can_be_too_small(driver: Path) -> None:
    for one in (a_map("other", RING, 0, 0, 1), a_map("ring", PERF, 4, 4, 1)):
        assert ask(driver, "record", "0:24", one).strip() == "0 -"


@pytest.mark.parametrize(
    ("of_ring", "of_perf", "read"),
    [
        ("ring", "perf", "ring"),
        ("none", "perf", "perf"),
        ("ring", "", "ring"),
        ("none", "", "-"),
        ("none", "other", "-"),
    ],
)
def test_events_are_read_from_the_ring_or_else_from_the_perf_buffers(
    driver: Path, of_ring: str, of_perf: str, read: str
) -> None:
    maps = [a_map("x", HASH), a_map("perf", PERF, value=4), a_map("ring", RING, 0, 0, 4096)]
    assert ask(driver, "events", of_ring, of_perf, *maps) == read


ABSENT = (
    "a map or struct that it names is not there (clang leaves a struct out of the BTF that no global variable, map or "
    "function uses)"
)
ODD_MAP = "a signal's map is of a type or value that it cannot have"


@pytest.mark.parametrize(
    ("kind", "key", "made", "error", "why"),
    [
        (HISTOGRAM, "", a_map("m", PERCPU_ARRAY, most=65), "0", ""),
        (HISTOGRAM, "", a_map("x", PERCPU_ARRAY, most=65), "ENOENT", ABSENT),
        (HISTOGRAM, "", a_map("m", PERCPU_ARRAY, key=8, most=65), "EPROTOTYPE", ODD_MAP),
        (HISTOGRAM, "", a_map("m", PERCPU_ARRAY, value=4, most=65), "EPROTOTYPE", ODD_MAP),
        (HISTOGRAM, "", a_map("m", RING, most=65), "EPROTOTYPE", ODD_MAP),
        (COUNTERS, "", a_map("m", ARRAY), "0", ""),
        (COUNTERS, "", a_map("m", PERCPU_ARRAY), "0", ""),
        (COUNTERS, "", a_map("x", ARRAY), "ENOENT", ABSENT),
        (COUNTERS, "", a_map("m", HASH), "EPROTOTYPE", ODD_MAP),
        (COUNTERS, "", a_map("m", ARRAY, value=16), "0", ""),
        (COUNTERS, "", a_map("m", ARRAY, value=24), "EPROTOTYPE", ODD_MAP),
        (COUNTERS, "key", a_map("m", HASH), "ENOENT", ABSENT),
    ],
)  # fmt: skip
def test_a_signal_whose_map_is_not_as_its_contract_says_is_refused_with_the_reason(
    driver: Path, kind: str, key: str, made: str, error: str, why: str
) -> None:
    told = f"EF_LOAD_REJECTED variant 'v' is not as its contract says: {why}; build the release again" if why else "- "
    assert lines(driver, "prepare", kind, "m", key, made)[0].strip() == f"{error} {told}".strip()


def test_all_maps_are_seen_and_the_histogram_that_can_be_read(driver: Path) -> None:
    maps = [a_map(f"m{number}", ARRAY) for number in range(3)]
    assert ask(driver, "snapshot", HISTOGRAM, "h", *maps, a_map("h", PERCPU_ARRAY, most=65)) == "4 1 0 m0 m1 m2 h 1 2"
    # Nothing was counted yet by a map that there is not: that is 0 and no error.
    assert ask(driver, "snapshot", HISTOGRAM, "h", *maps) == "3 1 0 m0 m1 m2 0 0"
    assert ask(driver, "snapshot", COUNTERS, "h", *maps) == "3 0 1 m0 m1 m2 0 0"
    assert ask(driver, "snapshot", HISTOGRAM, "h") == "0 1 0 0 0"


def test_an_object_that_counts_nothing_has_counted_nothing(driver: Path) -> None:
    assert ask(driver, "counts") == "0 0 0 0"


@pytest.mark.parametrize("kind", [HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU])
@pytest.mark.parametrize("batches", ["0", "1", "4", "4,20", "4,40"])
def test_every_entry_is_walked_once_with_the_sum_of_its_cpus(driver: Path, kind: int, batches: str) -> None:
    """Batches of so many; with a second number a bucket that needs that much room."""
    for most in (1, 4, 5, 40):
        told = lines(driver, "walk", batches, a_map("m", kind, most=most))[0].split()
        assert told[:most] == [f"{at}={at + 1}" for at in range(most)]
        of_hash = kind in (HASH, PERCPU_HASH, LRU) and batches != "0"
        assert told[most:] == ["0", "1", str(most) if of_hash else "-1"], most
        weighed = lines(driver, "walk", batches, a_map("m", kind, value=16, most=most))[0].split()
        assert weighed[:most] == [f"{at}={at + 1}/{10 * (at + 1)}" for at in range(most)]


@pytest.mark.parametrize(
    ("made", "can"),
    [(a_map("m", LRU_PERCPU), 0), (a_map("m", RING), 0), (a_map("m", HASH, value=4), 0), (a_map("m", HASH, key=256), 1),
     (a_map("m", HASH, key=257), 0), (a_map("m", PERCPU_HASH, value=16), 1), (a_map("m", PERCPU_HASH, value=24), 0)],
)  # fmt: skip
def test_which_maps_can_be_walked(driver: Path, made: str, can: int) -> None:
    assert ask(driver, "can", made) == str(can)


def test_all_programs_attach_or_none_stays_and_the_reason_is_the_last_one(driver: Path) -> None:
    told = "EF_NO_ATTACH_POINT this kernel has nothing to attach program {} to: no place"
    assert lines(driver, "attach", "0", "old") == [f"ENOENT 0 {told.format('one')}", "0", "0 0"]
    assert lines(driver, "attach", "1", "old") == ["detached", f"ENOENT 0 {told.format('two')}", "0", "0 0"]
    assert lines(driver, "attach", "2", "old") == ["0 1 - ", "detached", "detached", "1", "0 0"]


BUDGETS = 6


def test_totals_that_were_handed_over_are_added_to_what_is_there(driver: Path) -> None:
    one = {
        "counters": [10, 20, 30, 40], "lost": 5, "aggregated": 6, "weighted": 7, "thinned": 8, "unweighed": False,
        "lost_known": True, "hist": [[100 + at, 200 + at] for at in range(65)], "series": {'a="b"': [11, 12]},
        "unkept": [13, 14], "falls": list(range(1, 2 * BUDGETS + 1)),
    }  # fmt: skip
    told = json.loads(ask(driver, "totals", json.dumps(one)))
    assert told == {
        "counters": [20, 40, 60, 80], "lost": 10, "aggregated": 12, "weighted": 14, "thinned": 16, "unweighed": False,
        "lost_known": True, "hist": [[2 * (100 + at), 2 * (200 + at)] for at in range(65)],
        "series": {'a="b"': [22, 24]}, "unkept": [26, 28], "falls": [2 * at for at in range(1, 2 * BUDGETS + 1)],
    }  # fmt: skip
    # What is not there, or below zero, is nothing; a doubt stays.
    told = json.loads(ask(driver, "totals", json.dumps({"counters": [-1, 2], "unweighed": True})))
    assert told["counters"] == [0, 4, 0, 0] and told["unweighed"] is True and told["lost_known"] is False
    assert {told[name] for name in ("lost", "aggregated", "weighted", "thinned")} == {0}
    assert told["hist"] == [[0, 0]] * 65 and told["series"] == {} and set(told["falls"]) == {0}
