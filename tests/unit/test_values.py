# SPDX-License-Identifier: GPL-3.0-or-later
"""The readers of values by themselves: both ends of each bound, each form that is taken, each that is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import MOST, Reader, RefusedValueError

NAN, INFINITE = float("nan"), float("inf")
READERS: list[tuple[Reader, list[tuple[Any, Any]], list[Any]]] = [
    (values.whole(), [(0, 0), (MOST, MOST), ("+7", 7), (" 7 ", 7), (str(MOST), MOST)],
     [-1, MOST + 1, "-1", 1.0, True, False, None, "1.5", "1e3", "", [], "9" * 20]),
    (values.whole(-3, 5), [(-3, -3), (5, 5), ("-3", -3)], [-4, 6, "-4", "6"]),
    (values.decimal(), [(0, 0), (0.5, 0.5), (10**15, 10**15), ("2.50", 2.5), ("-0", 0), (str(10**15), 10**15)],
     [-1, -0.001, 10**15 + 1, str(10**15 + 1), NAN, INFINITE, -INFINITE, True, None, "1e3", ".5", "1.", "nan"]),
    (values.decimal(-2, 2.5), [(-2, -2), (2.5, 2.5), ("-2", -2)], [-2.1, 2.6]),
    (values.truth, [(True, True), (False, False), (1, True), (0, False), ("Yes", True), ("OFF", False), (" t ", True)],
     [2, -1, "", "perhaps", None, 1.0, []]),
    (values.text, [("", ""), ("1.10", "1.10")], [1.1, 1, True, None, [], {}]),
    (values.label, [("eu", "eu"), (12, "12"), ("-1", "-1")], ["", "  ", True, 1.5, None, []]),
    (values.one_of("a", "1"), [("a", "a"), (1, "1"), ("1", "1")], ["A", "b", True, None, 2, 1.0, ""]),
    (values.mapping, [({"a": 1}, {"a": 1}), ("", {}), (" ", {}), ('{"a": 1}', {"a": 1}), ({}, {})],
     ["a", "[]", "[1]", [], None, 1, "{", "[" * 100_000]),
    (values.listing, [([1], [1]), ((1, 2), [1, 2]), ("", []), ("[1]", [1])], ["a", "{}", {}, None, 1, "["]),
    (values.names, [(["a"], ["a"]), ("a, b,,", ["a", "b"]), ('["a"]', ["a"]), ("", []), ([], [])],
     [[1], ["a", None], None, 1, {}, "[1]", "["]),
    (values.maybe(values.whole(1)), [(None, None), ("", None), (1, 1)], [0, " ", False]),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "good", "bad"), READERS)
def test_a_reader_takes_what_means_one_thing_and_refuses_the_rest(
    reader: Reader, good: list[tuple[Any, Any]], bad: list[Any]
) -> None:
    for given, meant in good:
        found = reader("some", given)
        assert (found, type(found)) == (meant, type(meant)), given
    for given in bad:
        with pytest.raises(RefusedValueError, match=r"^some(\[\d\])?: is .*; "):
            reader("some", given)


@pytest.mark.parametrize(("given", "told"), [
    (None, "nothing"), (True, "True (a truth value)"), (1, "1 (a number)"), (1.5, "1.5 (a number)"),
    ("a", "'a' (text)"), ({"a": 1}, "{'a': 1} (a mapping)"), ([1], "[1] (a list)"), ((1,), "[1] (a list)"),
])  # fmt: skip
def test_what_was_given_is_told_with_its_kind(given: Any, told: str) -> None:
    assert values.told(given) == told


def test_the_bounds_are_told() -> None:
    for reader, bounds in ((values.whole(), "from 0 up"), (values.whole(1, 3), "from 1 to 3"),
                           (values.whole(1, MOST - 1), f"from 1 to {MOST - 1}")):  # fmt: skip
        with pytest.raises(RefusedValueError, match=f"give a whole number {bounds}$"):
            reader("some", "x")
    with pytest.raises(RefusedValueError, match="give a number from -1 to 2.5$"):
        values.decimal(-1, 2.5)("some", "x")


def test_text_is_told_up_to_a_hundred_characters() -> None:
    assert len(values.told("x" * 100_000)) <= len(" (text)") + 100 and values.told("x" * 98) == f"'{'x' * 98}' (text)"


def test_plain_makes_plain_types_of_others() -> None:
    class Text(str):
        """As a templating engine's own."""

    class Number(int):
        """The same."""

    class Fraction(float):
        """The same."""

    given = {Text("a"): (Number(1), Fraction(1.5), Text("b"), True, None)}
    found = values.plain(given)
    assert found == {"a": [1, 1.5, "b", True, None]}
    assert [type(key) for key in found] == [str] and [type(one) for one in found["a"]] == [
        int,
        float,
        str,
        bool,
        type(None),
    ]
