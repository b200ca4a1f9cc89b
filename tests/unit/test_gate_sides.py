# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate makes of one service: both ends of its account, what its main process cost, what only grows."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import witness_cost, witness_programs
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
    ],
)
def test_what_only_grows_lies_between_the_kernels_counts(
    told: Any, seen: Any, verdict: str, value: int | None, limit: int | None
) -> None:
    account = side(told={"boottime_ns": BEGIN + SLACK_NS})
    found = witness_cost.judge_growth(account, Growth(told, seen, 2, "its cost", "ns"))
    assert tuple(found[:3]) == (verdict, value, limit) and "its cost" in found.sentence, found


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
