# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's document is judged by itself: what is wrong is told, nothing is raised."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable


def nested(depth: int) -> Any:
    value: Any = 1
    for _turn in range(depth):
        value = [value]
    return value


WIDE = {f"k{number}": list(range(1000)) for number in range(300)}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (nested(17), "nested deeper than 16"),
        (nested(100_000), "nested deeper than 16"),
        (WIDE, "is larger than 200000 values"),
        ({"a": ["x" * 4096] * 5000}, "is larger than"),
        ({"a": "x" * 5000}, "a: is a text of 5000 characters"),
        ({"a": float("nan")}, "a: is nan"),
        ({"a": [1, float("-inf")]}, r"a\[1\]: is -inf"),
        ({"a": 2**64}, "a: is a number of more than 64 bits"),
        ({"a": 10**5000}, "a: is a number of more than 64 bits"),
        ({"a": b"x"}, "a: is of type bytes"),
        ({1: 1}, r"\(int\): its name is not text"),
        ({"k" * 300: 1}, "its name has 300 characters"),
    ],
)
def test_what_no_document_may_be_is_refused_whatever_its_rule(document: Any, why: str) -> None:
    judged = doc.usable(document, doc.anything)
    assert judged.document is None
    assert re.search(why, doc.told(judged.faults)), judged.faults


RULE = doc.record(
    {
        "name": doc.text(8, r"[a-z]+"),
        "count": doc.whole(1, 9),
        "on": doc.truth(),
        "state": doc.word("up", "down", null=True),
        "parts": doc.many(doc.whole(), 3),
        "table": doc.table(doc.text(), r"[a-z]{1,3}", 2),
    },
    needed=("name",),
)
GOOD = {"name": "abc", "count": 9, "on": False, "state": None, "parts": [0], "table": {"a": "x"}}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"name": None}, "name: is null and not text"),
        ({"name": "ABC"}, "name: 'ABC' is not of the form [a-z]+"),
        ({"name": "abc\n"}, "name: 'abc\\x0a' is not of the form [a-z]+"),
        ({"name": "abcdefghi"}, "name: has 9 characters; at most 8 are allowed"),
        ({"count": 0}, "count: 0 is not from 1 to 9"),
        ({"count": 1.0}, "count: is a number and not a whole number"),
        ({"count": True}, "count: is true or false and not a whole number"),
        ({"on": 1}, "on: is a number and not true or false"),
        ({"state": "\x1b[2J"}, "state: '\\x1b[2J' is not one of up, down"),
        ({"state": []}, "state: is a list and not text"),
        ({"parts": [0, -1]}, "parts[1]: -1 is not from 0"),
        ({"parts": [0] * 4}, "parts: has 4 entries; at most 3 are allowed"),
        ({"table": {"\x1b": "x"}}, "table.\\x1b: its name is not of the form"),
        ({"table": {"a": 1}}, "table.a: is a number and not text"),
    ],
)
def test_each_rule_names_field_and_why(more: dict[str, Any], told: str) -> None:
    judged = doc.usable({**GOOD, **more}, RULE)
    assert judged.document is None and told in doc.told(judged.faults)


def test_a_good_document_comes_back_printable() -> None:
    judged = doc.usable({**GOOD, "more": "\x1b[2Jx\u202e"}, RULE)
    assert judged.faults == []
    assert judged.document == {**GOOD, "more": "\\x1b[2Jx\\u{202e}"}


def test_a_missing_field_and_the_host_are_named_and_only_a_few_faults_told() -> None:
    assert doc.told(doc.usable({}, RULE).faults) == "name: is missing"
    assert doc.told(doc.usable([], RULE).faults) == "the answer: is a list and not a mapping"
    faults = doc.usable({"name": 1, "count": -1, "on": 7, "state": 1, "parts": 1}, RULE).faults
    assert len(faults) == doc.FAULTS_TOLD
    assert doc.no_usable_answer("h\x1b1", faults[:1]) == "no usable answer from h\\x1b1: name: is a number and not text"


def faults(document: Any, rule: doc.Rule = doc.anything) -> str:
    return doc.told(doc.usable(document, rule).faults)


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (nested(15), nested(16), "nested deeper than 16"),
        ({"k" * 200: 1}, {"k" * 201: 1}, "its name has 201 characters; at most 200 are read"),
        ({"a": "x" * 4096}, {"a": "x" * 4097}, "a: is a text of 4097 characters; at most 4096 are read"),
        ({"a": 2**64 - 1}, {"a": 2**64}, "more than 64 bits"),
        ({"a": -(2**63 - 1)}, {"a": -(2**63)}, "more than 64 bits"),
        # The list itself, its key, and what is in it.
        ({"a": [0] * 199_998}, {"a": [0] * 200_001}, "is larger than 200000 values"),
    ],
)
def test_the_shape_of_a_document_on_both_sides_of_each_limit(good: Any, bad: Any, told: str) -> None:
    assert doc.usable(good, doc.anything).faults == []
    assert told in faults(bad)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (doc.text(3), ["", "abc"], ["abcd", 1, None]),
        (doc.text(3, r"[a-z]+"), ["a", "abc"], ["", "A", "a\n"]),
        (doc.text(3, null=True), [None, "abc"], ["abcd", False]),
        (doc.whole(2, 4), [2, 4], [1, 5, 3.0, True, None, "3"]),
        (doc.whole(null=True), [0, 2**64 - 1, None], [-1, ""]),
        (doc.truth(), [True, False], [0, 1, None, "true"]),
        (doc.truth(null=True), [True, None], [0]),
        (doc.word("up", ""), ["up", ""], ["Up", None, 1]),
        (doc.word("up", null=True), ["up", None], [""]),
        (doc.many(doc.whole(), 2), [[], [1, 2], (1,)], [[1, 2, 3], None, "12", {}, [None]]),
        (doc.many(doc.whole(), 2, null=True), [None], [[1] * 3]),
        (
            doc.table(doc.whole(), r"[a-z]", 2),
            [{}, {"a": 1, "b": 2}],
            [{"a": 1, "b": 2, "c": 3}, {"A": 1}, {"a": ""}, []],
        ),
        (doc.table(doc.whole(), null=True), [None, {"x" * 200: 1}, {"X y": 1}], [{"": 1}, 7]),
        (doc.record({"a": doc.whole()}, needed=("a",)), [{"a": 1}, {"a": 1, "b": []}], [{}, {"a": None}, [], None]),
        (doc.record({"a": doc.whole()}, null=True), [None, {}], [{"a": -1}, "a"]),
    ],
)
def test_each_rule_on_both_sides_of_each_of_its_limits(rule: doc.Rule, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert doc.usable({"it": value}, doc.record({"it": rule})).faults == [], value
    for value in bad:
        judged = doc.usable({"it": value}, doc.record({"it": rule}))
        assert judged.document is None and judged.faults[0].field.startswith("it"), value


def test_a_name_is_told_up_to_sixty_characters_and_one_that_is_no_text_by_its_kind() -> None:
    (fault,) = doc.usable({"a": {"k" * 300: 1}}, doc.anything).faults
    assert fault.field == f"a.{printable('k' * 300, 60)}" and len(fault.field) <= 62
    (fault,) = doc.usable({"a": {1.5: 1}}, doc.anything).faults
    assert fault == doc.Fault("a.(float)", "its name is not text")
