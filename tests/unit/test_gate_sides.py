# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate makes of one service: both ends of its account, what its main process cost, what only grows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import base, witness_cost, witness_programs
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Pair
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import SLACK_NS, Side
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_cost import Growth

from tests.unit.test_gate import observation

BEGIN = 100 * 10**9


def side(name: str = "loader", told: Any = None, **main: Any) -> Side:
    seen = {"main": main}
    return Side(name, ({}, told or {}), (seen, seen), (BEGIN, BEGIN + 10**10))


@pytest.mark.parametrize(
    ("at", "within"),
    [(None, False), (BEGIN, False), (BEGIN + SLACK_NS - 1, False), (BEGIN + SLACK_NS, True), (BEGIN + 10**10, True)],
)
def test_an_account_is_of_the_window_when_it_was_written_well_after_its_begin(at: int | None, within: bool) -> None:
    assert side(told={"boottime_ns": at}).told_within is within


@pytest.mark.parametrize(
    ("first", "last", "same"),
    [((7, 1), (7, 1), True), ((7, 1), (8, 1), False), ((7, 1), (7, 2), False), ((None, 1), (None, 1), False)],
)
def test_one_life_is_one_process_that_was_started_once(first: Any, last: Any, same: bool) -> None:
    seen = [{"main": {"pid": pid, "started_boottime_ns": at}} for pid, at in (first, last)]
    assert Side("loader", ({}, {}), (seen[0], seen[1]), (0, 0)).same_life is same


@pytest.mark.parametrize(
    ("name", "main", "spent"),
    [
        ("loader", {"cpu_ns": 5, "children_cpu_ns": 3}, 5),
        ("collector", {"cpu_ns": 5, "children_cpu_ns": 3}, 8),
        ("collector", {"cpu_ns": 5}, 5),
        ("collector", {"cpu_ns": 5, "children_cpu_ns": None}, 5),
        ("collector", {"children_cpu_ns": 3}, None),
        ("loader", {}, None),
    ],
)
def test_the_collectors_compilers_are_its_children(name: str, main: dict[str, Any], spent: int | None) -> None:
    assert witness_cost.main_cpu_ns(side(name, **main), 1) == spent


@pytest.mark.parametrize(
    ("told", "seen", "verdict", "value", "limit"),
    [
        ((0, 5), (0, 5), "pass", 5, 5),
        ((0, 7), (0, 5), "pass", 7, 5),
        ((0, 8), (0, 5), "fail", 8, 5),
        ((3, 5), (0, 5), "fail", 3, 0),
        ((2, 5), (0, 5), "pass", 5, 5),
        ((None, 5), (0, 5), "pass", 5, 5),
        ((0, None), (0, 5), "inconclusive", None, 5),
        ((0, 5), (0, None), "inconclusive", None, None),
        ((0, 5), (8, 9), "fail", 5, 8),
        ((0, 6), (8, 9), "pass", 6, 9),
        ((0, 5), (None, 5), "pass", 5, 5),
        ((0, 5), (6, 5), "inconclusive", 5, 5),
        ((6, 5), (6, 6), "inconclusive", 5, 6),
        ((5, 5), (5, 5), "pass", 5, 5),
    ],
)
def test_what_only_grows_lies_between_the_kernels_counts(
    told: Any, seen: Any, verdict: str, value: int | None, limit: int | None
) -> None:
    account = side(told={"boottime_ns": BEGIN + SLACK_NS})
    found = witness_cost.judge_growth(account, Growth(told, seen, 2, "its cost", "ns"))
    assert tuple(found[:3]) == (verdict, value, limit) and "its cost" in found.sentence, found


END, WINDOW = BEGIN + 10**10, 10**10
LOST = "CPU time of the loader could not be seen: "


@pytest.mark.parametrize(
    ("told", "cpu", "more", "finding"),
    [
        ((BEGIN, END), (5, 6), {}, ("pass", WINDOW, WINDOW, "the account of the loader goes on")),
        ((BEGIN, BEGIN + SLACK_NS), (5, 5), {},
         ("fail", SLACK_NS, 0, f"the account of the loader advanced by {SLACK_NS} ns, its unit got 0 ns of CPU")),
        ((BEGIN, BEGIN + SLACK_NS - 1), (5, 5), {},
         ("pass", SLACK_NS - 1, WINDOW, "the account of the loader goes on")),
        ((BEGIN, BEGIN + SLACK_NS), (5, 5), {"cpu_source": "processes"},
         ("pass", SLACK_NS, WINDOW, "the account of the loader goes on")),
        ((BEGIN, END), (5, None), {"why": {"cpu_ns": "no file"}}, ("inconclusive", None, None, LOST + "no file")),
        ((BEGIN, END), (6, 5), {}, ("inconclusive", None, None, LOST + "the kernel did not say")),
        ((BEGIN, END + 10**9), (5, 6), {}, ("pass", WINDOW + 10**9, WINDOW, "the account of the loader goes on")),
        ((BEGIN, END + 10**9 + 1), (5, 6), {},
         ("fail", END + 10**9 + 1, END, f"the account of the loader is of {END + 10**9 + 1} ns after boot, "
                                        f"the clock said {END} ns")),
        ((BEGIN + 10**9 + 1, END), (5, 6), {},
         ("fail", BEGIN + 10**9 + 1, END, f"the account of the loader is of {BEGIN + 10**9 + 1} ns after boot, "
                                          f"the clock said {END} ns")),
        ((BEGIN, BEGIN), (5, 6), {},
         ("fail", 0, WINDOW, f"the account of the loader did not advance while {WINDOW} ns passed")),
        ((BEGIN, BEGIN - 7), (5, 6), {"late": WINDOW},
         ("inconclusive", -7, WINDOW, f"the account of the loader did not advance while {WINDOW} ns passed")),
        ((BEGIN, BEGIN + 1), (5, 6), {}, ("pass", 1, WINDOW, "the account of the loader goes on")),
        ((None, END), (5, 6), {}, ("inconclusive", END, None, "the loader gives no time of its account")),
        ((BEGIN, None), (5, 6), {}, ("inconclusive", None, None, "the loader gives no time of its account")),
    ],
)  # fmt: skip
def test_an_account_goes_on_with_the_clock_and_costs_something(
    told: Any, cpu: Any, more: dict[str, Any], finding: tuple[Any, ...]
) -> None:
    more = dict(more)
    late = more.pop("late", WINDOW - 1)
    main = {"pid": 7, "started_boottime_ns": 1}
    seen = [{"main": main, "cpu_ns": one, "cpu_source": "cgroup", **more} for one in cpu]
    account = Side("loader", tuple({"boottime_ns": at} for at in told), (seen[0], seen[1]), (BEGIN, END))
    pair = Pair("h", None, {}, SimpleNamespace(limits={"status_age_ns": late}))
    assert tuple(witness_cost.judge_advance(pair, account)[:4]) == finding


@pytest.mark.parametrize(
    ("first", "last", "spent"),
    [
        ({}, {}, 4),
        ({}, {"cpu_ns": 5}, 0),
        ({}, {"cpu_ns": 4}, None),
        ({"cpu_ns": None}, {}, None),
        ({}, {"cpu_ns": None}, None),
        ({}, {"cpu_source": "processes"}, None),
        ({}, {"main": {"pid": 8, "started_boottime_ns": 1}}, None),
        ({"main": None}, {"main": None}, None),
    ],
)
def test_what_a_unit_got_is_one_count_of_one_life(first: Any, last: Any, spent: int | None) -> None:
    whole = {"cpu_ns": 5, "cpu_source": "cgroup", "main": {"pid": 7, "started_boottime_ns": 1}}
    ends = ({**whole, **first}, {**whole, "cpu_ns": 9, **last})
    assert witness_cost.unit_cpu_ns(Side("loader", ({}, {}), ends, (0, 0))) == spent


def test_the_cost_of_both_services_together() -> None:
    """In thousandths of a CPU, rounded up; unknown where one was not seen whole, or no time passed."""
    found = observation()
    pair = Pair("h", None, found, None)  # type: ignore[arg-type]
    loader = [found[end]["witness"]["loader"] for end in ("start", "end")]
    for spent, millicores in ((10**7, 1), (10**7 + 1, 2), (0, 0)):
        loader[0]["cpu_ns"], loader[1]["cpu_ns"] = 5, 5 + spent
        assert witness_cost.units_millicores(pair) == millicores
    loader[1]["cpu_ns"] = 5 + 10**7
    for end, cpu in (("start", 0), ("end", 2 * 10**7)):
        found[end]["witness"]["collector"] = {**loader[0], "cpu_ns": cpu}
    assert witness_cost.units_millicores(pair) == 3
    found["end"]["witness"]["collector"]["cpu_ns"] = None
    assert witness_cost.units_millicores(pair) is None
    found["end"]["witness"]["collector"] = found["start"]["witness"]["collector"] = None
    found["end"]["witness"]["boottime_ns"] = found["start"]["witness"]["boottime_ns"] + 1
    assert witness_cost.units_millicores(pair) == 10**10
    found["end"]["witness"]["boottime_ns"] -= 1
    assert witness_cost.units_millicores(pair) is None
    found["start"]["witness"] = None
    assert witness_cost.units_millicores(pair) is None


@pytest.mark.parametrize(
    ("name", "told", "seen", "verdict", "value", "limit"),
    [
        ("loader", 8 << 20, (16 << 20, 20 << 20), "pass", 8 << 20, 16 << 20),
        ("loader", 8 << 20, (20 << 20, 20 << 20), "pass", 8 << 20, 20 << 20),
        ("loader", 8 << 20, ((20 << 20) + 1, (20 << 20) + 2), "fail", 8 << 20, (20 << 20) + 1),
        ("loader", 8 << 20, (60 << 20, 20 << 20), "pass", 8 << 20, 20 << 20),
        ("loader", None, (5, 6), "inconclusive", None, 6),
        ("loader", 5, (None, 6), "inconclusive", None, None),
        ("loader", 5, (6, None), "inconclusive", None, None),
        ("collector", 8 << 20, ((20 << 20) + 1, (20 << 20) + 2), "fail", 8 << 20, (20 << 20) + 1),
    ],
)
def test_much_less_memory_than_at_both_ends_is_not_believed(
    name: str, told: int | None, seen: Any, verdict: str, value: int | None, limit: int | None
) -> None:
    """The loader is its whole unit; of the collector's only the main process, its compilers come and go."""
    own = [{"rss_bytes": one, "main": {"rss_bytes": 1}, "why": {"rss_bytes": "gone"}} if name == "loader"
           else {"rss_bytes": 1, "main": {"rss_bytes": one}} for one in seen]  # fmt: skip
    found = witness_cost.judge_memory(None, Side(name, ({}, {"rss_bytes": told}), (own[0], own[1]), (0, 0)))  # type: ignore[arg-type]
    assert tuple(found[:3]) == (verdict, value, limit)
    assert f"resident memory of the {name}" in found.sentence
    assert limit is not None or found.sentence.endswith("could not be seen: gone")


@pytest.mark.parametrize(
    ("name", "told", "verdict", "limit"),
    [
        ("loader", 50_000_005, "pass", 5),
        ("loader", 50_000_006, "fail", 5),
        ("collector", 50_000_008, "pass", 8),
        ("collector", 50_000_009, "fail", 8),
    ],
)
def test_cpu_time_is_believed_up_to_the_cuts_of_its_ticks(name: str, told: int, verdict: str, limit: int) -> None:
    main = {"pid": 7, "started_boottime_ns": 1, "cpu_ns": 5, "children_cpu_ns": 3}
    account = side(name, {"boottime_ns": END, "cpu_ns": told}, **main)
    found = witness_cost.judge_cpu(None, account)  # type: ignore[arg-type]
    assert tuple(found[:3]) == (verdict, told, limit)
    assert found.sentence.startswith(f"CPU time of the {name} since its start")
    assert found.sentence.endswith(" ns")
    lost = witness_cost.judge_cpu(None, side(name, {"boottime_ns": END, "cpu_ns": told}))  # type: ignore[arg-type]
    said = f"the {name} was not one process throughout the window"
    assert tuple(lost[:4]) == ("inconclusive", None, None, said)


def test_cpu_time_is_held_against_the_kernels_at_both_ends() -> None:
    life = {"pid": 7, "started_boottime_ns": 1}
    seen = ({"main": {**life, "cpu_ns": 5}}, {"main": {**life, "cpu_ns": 10**9}})
    for first, last, finding in (
        (50_000_005, 10**9, ("pass", 10**9, 10**9)),
        (50_000_006, 10**9, ("fail", 50_000_006, 5)),
        (50_000_005, 50_000_004, ("inconclusive", 50_000_004, 10**9)),
    ):
        told = ({"cpu_ns": first}, {"cpu_ns": last, "boottime_ns": END})
        found = witness_cost.judge_cpu(None, Side("loader", told, seen, (BEGIN, END)))  # type: ignore[arg-type]
        assert tuple(found[:3]) == finding


def test_an_account_from_before_the_window_proves_nothing() -> None:
    early = side(told={"boottime_ns": BEGIN + SLACK_NS - 1})
    found = witness_cost.judge_growth(early, Growth((0, 5), (0, 5), 2, "its cost", "ns"))
    assert found.verdict == "inconclusive" and "the last account is too old" in found.sentence


def test_the_kernels_run_time_is_what_was_added_within_the_window() -> None:
    found = observation()
    pair = Pair("h", None, found, None)  # type: ignore[arg-type]
    program = [end["witness"]["loader"]["programs"][0] for end in (found["start"], found["end"])]
    for first, last, spent in ((100, 350, 250), (100, 100, 0), (100, 99, None)):
        program[0]["run_time_ns"], program[1]["run_time_ns"] = first, last
        assert witness_programs.kernel_run_ns(pair, "exec_events") == spent
    assert witness_programs.kernel_run_ns(pair, "no_such_feature") is None


@pytest.mark.parametrize(
    ("first", "last", "span"),
    [(10, 25, 15), (10, 11, 1), (10, 10, None), (11, 10, None), (None, 10, None), (10, None, None)],
)
def test_the_time_between_two_statuses_is_known_only_of_two(first: Any, last: Any, span: int | None) -> None:
    ends = [{"status": {"boottime_ns": one, "pid": 7}} for one in (first, last)]
    assert base.status_span_ns(Pair("h", None, {"start": ends[0], "end": ends[1]}, None)) == span  # type: ignore[arg-type]
    other = {"status": {"boottime_ns": last, "pid": 8}}
    assert base.status_span_ns(Pair("h", None, {"start": ends[0], "end": other}, None)) is None  # type: ignore[arg-type]
