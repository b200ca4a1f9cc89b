# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge one host's document by itself: size, depth, types, ranges, words. Pure.

A host may answer anything. What a document must be is said by rules; `usable` returns a
printable copy of what keeps to them, or sentences that name the host, the field and why. It
raises for nothing that a host can say, so one host's answer never takes down the others'.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable, printable_document

Json = Mapping[str, Any]
# A rule is asked with where the value stands and the value; it says each fault as a Fault.
Rule = Callable[[str, Any], "Iterator[Fault]"]

DEPTH_LIMIT = 16
# Keys and values of a whole document: every helper of every program type is some 25,000.
NODES_LIMIT = 200_000
CHARACTERS_LIMIT = 16 * 1024 * 1024
TEXT_LIMIT = 4096
KEY_LIMIT = 200
ITEMS_LIMIT = 20_000
# How many faults of one host are told; the first is mostly the cause of the others.
FAULTS_TOLD = 3
U64 = 2**64 - 1
I64 = 2**63 - 1


class Fault(NamedTuple):
    """What is wrong with one field, both texts printable."""

    field: str
    why: str


class Judged(NamedTuple):
    """A printable copy of a good document and no faults, or None and at least one fault."""

    document: Any
    faults: list[Fault]


def usable(document: Any, rule: Rule) -> Judged:
    """Judge one document: first its size and shape, then by `rule`."""
    faults = list(_first(misshapen(document), 1)) or list(_first(rule("", document), FAULTS_TOLD))
    if faults:
        return Judged(None, faults)
    return Judged(printable_document(document, TEXT_LIMIT, DEPTH_LIMIT, NODES_LIMIT), [])


def no_usable_answer(host: str, faults: Sequence[Fault]) -> str:
    """The sentence for a host whose document is not believed."""
    return f"no usable answer from {printable(host, KEY_LIMIT)}: {told(faults)}"


def told(faults: Sequence[Fault]) -> str:
    """The faults in one line: `field: why; field: why`."""
    return "; ".join(f"{one.field}: {one.why}" for one in faults)


def _first(faults: Iterator[Fault], limit: int) -> Iterator[Fault]:
    for _turn, fault in zip(range(limit), faults):
        yield fault


# --- shape -------------------------------------------------------------------------------------


def misshapen(document: Any) -> Iterator[Fault]:
    """What no document may be, whatever its rule: too deep, too large, or of values that JSON has not.

    Goes level by level and not by recursion, so that a deep document cannot exhaust the stack.
    """
    level: list[tuple[str, Any]] = [("", document)]
    nodes = characters = depth = 0
    while level:
        depth += 1
        if depth > DEPTH_LIMIT:
            yield Fault(level[0][0] or "the answer", f"is nested deeper than {DEPTH_LIMIT}")
            return
        below: list[tuple[str, Any]] = []
        for field, value in level:
            nodes += 1
            characters += len(value) if isinstance(value, str) else 0
            yield from _bad_leaf(field, value)
            if isinstance(value, Mapping):
                yield from _bad_keys(field, value)
                below += [(_below(field, key), one) for key, one in value.items()]
            elif isinstance(value, (list, tuple)):
                below += [(f"{field}[{at}]", one) for at, one in enumerate(value)]
            if nodes + len(below) > NODES_LIMIT or characters > CHARACTERS_LIMIT:
                yield Fault("the answer", f"is larger than {NODES_LIMIT} values or {CHARACTERS_LIMIT} characters")
                return
        level = below


def _bad_leaf(field: str, value: Any) -> Iterator[Fault]:
    if value is None or isinstance(value, (bool, Mapping, list, tuple)):
        return
    if isinstance(value, str):
        if len(value) > TEXT_LIMIT:
            yield Fault(field, f"is a text of {len(value)} characters; at most {TEXT_LIMIT} are read")
    elif isinstance(value, int):
        if not -I64 <= value <= U64:
            yield Fault(field, "is a number of more than 64 bits")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            yield Fault(field, f"is {value}, which is not a number of JSON")
    else:
        yield Fault(field, f"is of type {printable(type(value).__name__, 50)}, which JSON has not")


def _bad_keys(field: str, value: Mapping[Any, Any]) -> Iterator[Fault]:
    for key in value:
        if not isinstance(key, str):
            yield Fault(_below(field, key), "its name is not text")
        elif len(key) > KEY_LIMIT:
            yield Fault(_below(field, key), f"its name has {len(key)} characters; at most {KEY_LIMIT} are read")


def _below(field: str, key: object) -> str:
    name = printable(key, 60) if isinstance(key, str) else f"({type(key).__name__})"
    return f"{field}.{name}" if field else name


# --- rules -------------------------------------------------------------------------------------


def anything(_field: str, _value: Any) -> Iterator[Fault]:
    """Whatever it is; its shape is judged already."""
    return iter(())


def text(limit: int = TEXT_LIMIT, pattern: str | None = None, null: bool = False) -> Rule:
    """Text of at most `limit` characters that the whole of `pattern` matches."""
    compiled = None if pattern is None else re.compile(pattern, re.ASCII)

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is None and null:
            return
        if not isinstance(value, str):
            yield _not(field, value, "text")
        elif len(value) > limit:
            yield Fault(field, f"has {len(value)} characters; at most {limit} are allowed")
        elif compiled is not None and compiled.fullmatch(value) is None:
            yield Fault(field, f"{shown(value)} is not of the form {pattern}")

    return judge


def whole(low: int = 0, high: int = U64, null: bool = False) -> Rule:
    """A whole number from `low` to `high`; true and false are not numbers."""

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is None and null:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            yield _not(field, value, "a whole number")
        elif not low <= value <= high:
            yield Fault(field, f"{shown(value)} is not from {low} to {high}")

    return judge


def truth(null: bool = False) -> Rule:
    """true or false; 0 and 1 are neither."""

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if not isinstance(value, bool) and not (value is None and null):
            yield _not(field, value, "true or false")

    return judge


def word(*known: str, null: bool = False) -> Rule:
    """One of the words."""

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is None and null:
            return
        if not isinstance(value, str):
            yield _not(field, value, "text")
        elif value not in known:
            yield Fault(field, f"{shown(value)} is not one of {', '.join(known)}")

    return judge


def record(fields: Mapping[str, Rule], needed: Sequence[str] = (), null: bool = False) -> Rule:
    """A mapping with these fields, those of `needed` at least; what else it has is left to the shape's limits."""

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is None and null:
            return
        if not isinstance(value, Mapping):
            yield _not(field, value, "a mapping")
            return
        for name in needed:
            if name not in value:
                yield Fault(_below(field, name), "is missing")
        for name, rule in fields.items():
            if name in value:
                yield from rule(_below(field, name), value[name])

    return judge


def table(rule: Rule, names: str = r".{1,200}", limit: int = ITEMS_LIMIT, null: bool = False) -> Rule:
    """A mapping of at most `limit` names, each of the form `names`, to values that keep to `rule`."""
    form = re.compile(names, re.ASCII)

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is None and null:
            return
        if not isinstance(value, Mapping):
            yield _not(field, value, "a mapping")
            return
        if len(value) > limit:
            yield Fault(field, f"has {len(value)} entries; at most {limit} are allowed")
            return
        for name, one in value.items():
            if form.fullmatch(name) is None:
                yield Fault(_below(field, name), f"its name is not of the form {names}")
            yield from rule(_below(field, name), one)

    return judge


def many(rule: Rule, limit: int = ITEMS_LIMIT, null: bool = False) -> Rule:
    """A list of at most `limit` values that keep to `rule`."""

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is None and null:
            return
        if not isinstance(value, (list, tuple)):
            yield _not(field, value, "a list")
            return
        if len(value) > limit:
            yield Fault(field, f"has {len(value)} entries; at most {limit} are allowed")
            return
        for at, one in enumerate(value):
            yield from rule(f"{field}[{at}]", one)

    return judge


_NAMES = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "a mapping", list: "a list"}


def _not(field: str, value: Any, wanted: str) -> Fault:
    if value is None:
        return Fault(field or "the answer", f"is null and not {wanted}")
    kind = next((name for base, name in _NAMES.items() if isinstance(value, base) and base is not int), None)
    kind = kind or ("a number" if isinstance(value, int) else "of another type")
    return Fault(field or "the answer", f"is {kind} and not {wanted}")


def shown(value: object) -> str:
    """A value within a sentence, bounded."""
    return f"'{printable(value, 60)}'" if isinstance(value, str) else printable(value, 60)
