# SPDX-License-Identifier: GPL-3.0-or-later
"""What bpf/include computes, by value: compiled for this machine; test_fairness.py has it in a kernel."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.loader.drivers import ARCH, ask, build_for_here

pytestmark = pytest.mark.apart


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("include") / "include"
    build_for_here("include", binary)
    return binary


def lines(driver: Path, *words: object) -> list[str]:
    return ask(driver, *map(str, words)).splitlines()


def test_a_logarithm_is_exact_at_both_sides_of_each_power(driver: Path) -> None:
    numbers = [0, *(2**bit + more for bit in range(64) for more in (-1, 0, 1) if 0 < 2**bit + more < 2**64)]
    assert lines(driver, "log2", *numbers) == [str(max(0, number.bit_length() - 1)) for number in numbers]


def test_one_event_in_so_many_is_taken_by_chance(driver: Path) -> None:
    every_one = ["1"] * 2
    for every in ("-", 0, 1):
        assert lines(driver, "sampled", every, 0, 2**32 - 1) == every_one, every
    for every in (2, 3, 10, 2**32 - 1):
        last = -(-(2**32) // every) - 1  # the last number below 2^32 / every
        assert lines(driver, "sampled", every, 0, last, last + 1, 2**32 - 1) == [str(every), str(every), "0", "0"], (
            every
        )


def test_each_event_is_counted_once_as_what_became_of_it(driver: Path) -> None:
    """Produced, delivered, dropped, sampled out; the driver adds one delivered and two dropped."""
    assert lines(driver, "produce", 2, 2**32 - 1) == ["0 1 1 2 1"]
    assert lines(driver, "produce", 2, 0) == ["2 1 1 2 0"]


def test_a_histogram_has_a_slot_for_each_power_and_a_sum(driver: Path) -> None:
    """Each as it was measured, and times the weight."""
    total = 0 + 1 + 4 + 7 + 100 + 2**40
    for weight in (1, 3, 2**20):
        counts = " ".join(f"{slot}={n}/{n * weight}" for slot, n in ((0, 2), (2, 2), (6, 1), (40, 1)))
        expected = f"{counts} {total}/{total * weight}"
        assert lines(driver, "hist", weight, 0, 1, 4, 7, 100, 2**40) == [expected] * 2


OPEN, CLOSED, FROM, UNTIL = range(4)


def test_one_instant_says_which_of_two_programs_counts(driver: Path) -> None:
    """The one from then on, the other until then: at each instant exactly one of them."""
    times = (99, 100, 101)
    assert lines(driver, "gate", OPEN, 100, *times)[:3] == ["1", "1", "1"]
    assert lines(driver, "gate", CLOSED, 100, *times)[:3] == ["0", "0", "0"]
    assert lines(driver, "gate", FROM, 100, *times)[:3] == ["0", "1", "1"]
    assert lines(driver, "gate", UNTIL, 100, *times)[:3] == ["1", "0", "0"]


def test_both_programs_judge_an_event_by_the_first_ones_reading(driver: Path) -> None:
    """Read before the instant by the other, after it by this one: it is the other's; and the other way round."""
    assert lines(driver, "gate", FROM, 100, "99:101", "100:101")[:2] == ["0", "1"]
    assert lines(driver, "gate", UNTIL, 100, "99:101", "100:101")[:2] == ["1", "0"]
    # A reading is taken once: the next event has its own.
    assert lines(driver, "gate", FROM, 100, "99:101", "101")[:2] == ["0", "1"]


def test_a_reading_of_another_event_is_not_taken(driver: Path) -> None:
    """What an earlier handover left, and what is older than the other program of one event can be."""
    assert lines(driver, "gate", FROM, 100, "99:101:90")[0] == "1"
    at, fresh = 10**9, 10**6
    assert lines(driver, "gate", FROM, at, f"{at - 1}:{at + fresh - 2}", f"{at - 1}:{at + fresh - 1}")[:2] == ["0", "1"]


def test_what_is_the_other_programs_is_not_counted_at_all(driver: Path) -> None:
    assert lines(driver, "gate", CLOSED, 100)[-2:] == ["0", "0 0 0 0"]
    assert lines(driver, "gate", UNTIL, 100, 100)[-2:] == ["0", "0 0 0 0"]
    assert lines(driver, "gate", UNTIL, 100, 99)[-2:] == ["1", "1 0 0 0"]


FORCE, NONE = "2", "1"


def test_the_record_that_fills_a_quarter_wakes_the_reader(driver: Path) -> None:
    """A ring of 4096 bytes; a record takes its size and 8 more, up to a multiple of 8."""
    cases = [
        ("40:32", NONE), ("1023:32", NONE), ("1024:32", FORCE), ("1063:32", FORCE), ("1064:32", NONE),
        ("2048:32", FORCE), ("2088:32", NONE), ("1032:25", FORCE), ("1064:33", FORCE), ("1072:33", NONE),
        ("3000:2000", FORCE),
    ]  # fmt: skip
    assert lines(driver, "submit", *(case for case, _ in cases)) == [
        *(flags for _, flags in cases),
        f"0 {len(cases)} 0 0",
    ]


def test_a_record_for_which_there_is_no_room_is_dropped(driver: Path) -> None:
    assert lines(driver, "reserve", 1, 0, 0) == ["1", "0", "0", "0 0 2 0"]


def test_a_table_counts_by_key_until_it_is_full(driver: Path) -> None:
    assert lines(driver, "table", 2, 5, 6, 5, 7, 5) == ["0", "0", "0", "-2", "0", "5=3/9", "6=1/3"]


def test_the_state_of_a_task_is_as_its_kernel_hands_it_over(driver: Path) -> None:
    assert lines(driver, "state", 2, 7) == ["2 7 1"]
    assert lines(driver, "state", 2**32 + 1, 7) == ["1 7 1"]


def test_a_32_bit_system_call_is_told_by_its_bit(driver: Path) -> None:
    """Only x86 has such calls with other numbers."""
    expected = [int(ARCH == "x86" and status & 2 > 0) for status in range(5)]
    assert [int(lines(driver, "compat", status)[0]) for status in range(5)] == expected


@pytest.mark.parametrize(
    ("depth", "level", "number"), [(0, 2, 100), (1, 2, 101), (2, 2, 102), (3, 2, 102), (7, 2, 102), (3, 1, 101)]
)
def test_a_domain_is_the_control_group_of_its_level(driver: Path, depth: int, level: int, number: int) -> None:
    assert lines(driver, "ancestor", depth, level) == [str(number)]


@pytest.mark.parametrize(("level", "uid"), [(0, 77), (1, 501), (2, 501), (8, 501), (9, 2**32 - 2)])
def test_a_user_of_a_namespace_is_the_owner_of_the_outermost(driver: Path, level: int, uid: int) -> None:
    assert lines(driver, "owner", level) == [str(uid)]


# Fairness, against the same rules written once more.


@dataclass
class Node:
    window: int = 0
    produced: int = 0
    produced_at: int = 0
    thinned: int = 0
    thinned_at: int = 0
    asked: int = 0
    asked_at: int = 0
    first: int = 0
    first_at: int = 0
    children: int = 0
    children_at: int = 0
    children_before: int = 0
    share: int = 0
    reserve: int = 0
    was_thinned: bool = False

    def begin(self, window: int, capacity: int) -> bool:
        """Is it the first event of a window? Then what was asked for in the one before says what a share is."""
        if self.window == window:
            return False
        next_one = self.window + 1 == window
        asked = self.asked - self.asked_at
        self.was_thinned = next_one and self.thinned != self.thinned_at
        self.children_before = self.children - self.children_at if next_one else 0
        self.window = window
        for name in ("produced", "thinned", "asked", "first", "children"):
            setattr(self, f"{name}_at", getattr(self, name))
        share = self.share
        if not self.was_thinned or not share:
            share = capacity
        elif asked:
            share = share * capacity // asked
        self.share = min(share, capacity) or 1
        return True


class Fair:
    """Who passes, of a signal with this quota."""

    def __init__(self, quota: int) -> None:
        self.quota, self.all = quota, Node()
        self.nodes: dict[tuple[int, int], Node] = {}
        self.capacity = max(1, quota * 11 // 16)

    def passes(self, window: int, domain: int, cgroup: int, uid: int) -> bool:
        if not self.quota:
            return True
        used = self.all.first - self.all.first_at
        if self.all.begin(window, self.capacity):
            self.all.reserve = min(max(0, self.all.reserve - used) + self.quota // 4, self.quota)
        self.all.produced += 1
        if not self.all.was_thinned and self.all.produced - self.all.produced_at <= self.capacity // 2:
            self.all.asked += 1
            return True
        of_domain = self.nodes.setdefault((domain, -1), Node())
        of_source = self.nodes.setdefault((cgroup, uid), Node())
        if of_domain.begin(window, self.all.share):
            of_domain.reserve = self.all.reserve // (self.all.children_before + 1)
            self.all.children += 1
        if of_source.begin(window, 1):
            of_domain.children += 1
        of_domain.produced += 1
        of_source.produced += 1
        if self.shared(of_domain, of_source) or self.first(of_domain, of_source):
            return True
        for node in (of_domain, of_source, self.all):
            node.thinned += 1
        return False

    def shared(self, domain: Node, source: Node) -> bool:
        if source.produced - source.produced_at > domain.share:
            return False
        domain.asked += 1
        if domain.asked - domain.asked_at > self.all.share:
            return False
        self.all.asked += 1
        return self.all.asked - self.all.asked_at <= self.capacity

    def first(self, domain: Node, source: Node) -> bool:
        parts = 2 * (max(domain.children - domain.children_at, domain.children_before) + 1)
        of_source = domain.reserve // max(parts, 4) or 1
        if (
            source.produced - source.produced_at > of_source
            or domain.first - domain.first_at >= domain.reserve
            or self.all.first - self.all.first_at >= self.all.reserve
        ):
            return False
        domain.first += 1
        self.all.first += 1
        return True


Event = tuple[int, int, int, int, int]


def weighed(driver: Path, quota: int, events: list[Event]) -> tuple[list[tuple[int, int]], list[str]]:
    """How many of each passed and what they stand for; then the totals."""
    found = lines(driver, "fair", quota, *(":".join(map(str, event)) for event in events))
    rows = [row.split() for row in found[: len(events)]]
    return [(int(row[0]), int(row[1])) for row in rows], found[len(events) :]


def passed(driver: Path, quota: int, events: list[Event]) -> tuple[list[int], list[str]]:
    found, totals = weighed(driver, quota, events)
    return [number for number, _weight in found], totals


def test_a_record_stands_for_those_of_its_source_that_were_thinned_before(driver: Path) -> None:
    """What was thinned last waits for the source's next record; nothing is told twice, and none by another source."""
    flood, quiet = [(window, 1, 11, 5, 300) for window in range(1, 12)], [(12, 2, 21, 6, 10)]
    found, _totals = weighed(driver, 100, flood + quiet)
    assert found[0] == (68, 68), "before anything was thinned each stands for itself"
    told = [sum(weight for _number, weight in found[:n]) for n in range(1, 12)]
    sent = [300 * n for n in range(1, 12)]
    assert told == sorted(told) and all(now <= most for now, most in zip(told, sent))
    assert sent[-1] - told[-1] <= 300, "what is not told yet is of the last window"
    assert found[-1] == (10, 10), "a quiet source stands for itself only"


def scene(number: int) -> list[Event]:
    """Of some windows, one behind the other or with a gap, events of a few sources in a few domains."""
    rng = random.Random(number)
    sources = [(domain, 10 * domain + one, one % 3) for domain in range(1, 4) for one in range(rng.randrange(1, 4))]
    events, window = [], 10
    for _ in range(rng.randrange(3, 8)):
        window += rng.choice((1, 1, 1, 2))
        for _ in range(rng.randrange(1, 12)):
            events.append((window, *rng.choice(sources), rng.choice((1, 2, 7, 40, 200))))
    return events


@pytest.mark.parametrize("quota", [1, 2, 5, 16, 100, 1000])
@pytest.mark.parametrize("number", range(8))
def test_who_passes_is_who_the_rules_let_pass(driver: Path, quota: int, number: int) -> None:
    events, rules = scene(number), Fair(quota)
    expected = [sum(rules.passes(*event[:4]) for _ in range(event[4])) for event in events]
    found, totals = passed(driver, quota, events)
    assert found == expected
    sent, let = sum(event[4] for event in events), sum(expected)
    assert totals == [f"{sent} {sent - let}", f"{sent} 0 0 {sent - let}"]


def test_without_a_quota_all_pass(driver: Path) -> None:
    assert passed(driver, 0, [(1, 1, 1, 5, 5000)]) == ([5000], ["0 0", "5000 0 0 0"])


def test_what_each_may_pass_in_a_window_by_hand(driver: Path) -> None:
    """Of a quota of 100, 68 are shared; the reserve begins with 25."""
    flood = [(1, 1, 11, 5, 200)]
    assert passed(driver, 100, flood)[0] == [68]
    # From the second window on it has its share, and a quiet one of another domain loses nothing.
    assert passed(driver, 100, [*flood, (2, 1, 11, 5, 200), (2, 2, 21, 6, 10)])[0][2] == 10
    # One of the same domain has the first of the reserve: an eighth and a sixth of what it holds.
    found = passed(driver, 100, [*flood, (2, 1, 11, 5, 200), (2, 1, 11, 6, 10)])[0]
    assert 1 <= found[2] < 10


def test_two_floods_share_alike_and_a_quiet_one_passes_whole(driver: Path) -> None:
    events = []
    for window in range(1, 12):
        events += [(window, 1, 11, 5, 300), (window, 2, 21, 6, 300), (window, 3, 31, 7, 3)]
    found = passed(driver, 100, events)[0]
    last = found[-3:]
    assert last[2] == 3 and abs(last[0] - last[1]) <= 25 and 60 <= sum(last) <= 100
