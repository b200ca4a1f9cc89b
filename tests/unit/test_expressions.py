# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators' expressions: what is refused when it is read, and what is stopped while it runs."""

from __future__ import annotations

import time
from typing import Any

import jmespath
import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import expressions
from ansible_collections.ebpf.fleet.plugins.module_utils.base.expressions import (
    Evaluator,
    ExpressionError,
    refuse_expensive,
)


def parse(text: str) -> Any:
    return jmespath.compile(text).parsed


@pytest.mark.parametrize(
    "expression",
    [
        "after.end.host.psi_cpu_some_us",
        "rates.features.exec_events.produced_delta",
        "max(after.end.status.features.*.programs[].run_cnt)",
        "length(after.end.status.features.*.maps[?memory_bytes > `1000`][])",
        "sum(values(rates.features)[*].cpu_millicores)",
    ],
)
def test_what_people_write_is_accepted(expression: str) -> None:
    refuse_expensive(expression, parse)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("a" * 1001, "1001 characters"),
        ("(" * 400 + "a" + ")" * 400, "nested deeper than 20 brackets"),
        ("!" * 900 + "a", "nested deeper than 20 brackets"),
        (".".join(["a"] * 200), "parts"),
        ("*.*.*.*.*.*", "within one another"),
        ("[" + ", ".join(["@[*]"] * 13) + "]", "wildcards and filters"),
        ("[" + ", ".join(["length(@)"] * 11) + "]", "functions"),
        ("[*][*][*][*][*][*]", "within one another"),
    ],
)
def test_what_may_cost_too_much_is_refused_when_it_is_read(expression: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        refuse_expensive(expression, parse)


def doubled(times: int) -> str:
    """Short and not deep, and its text has 2 to the power of `times` parts: seconds at 25, hours at 35."""
    return " | ".join(["[@, @]"] * times) + " | length(to_string(@))"


def test_an_expression_that_would_take_minutes_ends_within_seconds_and_says_the_remedy() -> None:
    expensive = doubled(30)
    refuse_expensive(expensive, parse)
    begin = time.monotonic()
    with Evaluator(seconds_each=2) as evaluator:
        assert evaluator.search(doubled(3), {"a": 1}) > 8
        with pytest.raises(ExpressionError, match="make it simpler"):
            evaluator.search(expensive, {"a": 1})
        with pytest.raises(ExpressionError, match="make it simpler"):
            evaluator.search(expensive, {"a": 2})
        assert evaluator.search("a", {"a": 2}) == 2, "the other expressions go on in a new worker"
    assert time.monotonic() - begin < 30, "a machine under load; the limit itself is 2 s, once"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MEMORY_LIMIT", 200 << 20)
    with Evaluator(seconds_each=120, seconds_all=120) as evaluator:
        with pytest.raises(ExpressionError, match="more memory than is allowed"):
            evaluator.search(doubled(28), {"a": "x" * 100})
        assert evaluator.search("a", {"a": 2}) == 2


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("rows", "gave list of 3, which is not a number"),
        ("@", "gave dict of 1, which is not a number"),
        ("`true`", "gave bool, which is not a number"),
        ("sum(rows)", "invalid type"),
        ("nothing(rows)", "nknown function"),
    ],
)
def test_what_is_no_number_is_described_and_short(expression: str, why: str) -> None:
    with Evaluator() as evaluator, pytest.raises(ExpressionError, match=why) as caught:
        evaluator.search(expression, {"rows": ["x" * 10_000, 1, 2]})
    assert len(str(caught.value)) <= 300


def test_text_of_a_host_is_data_and_never_an_expression() -> None:
    with Evaluator() as evaluator:
        assert evaluator.search("a", {"a": "length(b)", "b": [1, 2]}) == "length(b)"
        assert evaluator.search("a", {"a": None}) is None


def test_a_document_that_is_too_large_is_refused() -> None:
    with Evaluator() as evaluator, pytest.raises(ExpressionError, match="more than"):
        evaluator.search("a", {"a": "x" * (expressions.DOCUMENT_LIMIT + 1)})


def test_no_worker_is_left() -> None:
    with Evaluator() as evaluator:
        evaluator.search("a", {"a": 1})
        worker = evaluator.worker
        assert worker is not None and worker.poll() is None
    assert worker.poll() is not None
