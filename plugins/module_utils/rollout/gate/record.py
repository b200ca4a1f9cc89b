# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A check of the gate as one record, and how its judge's answer becomes a judgement. Pure."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Answer,
    Finding,
    Inputs,
    Judgement,
    Measured,
    Pair,
    Unmeasured,
    budget_of,
)

# A check's scope says what it is judged of, and what its judge is called with.
ANSWER = "answer"  # a host's answer before anything else, alone where it says anything: (host, its observations)
HOST = "host"  # each changed host: (pair)
SERVICE = "service"  # the loader, and the collector where it runs, as root saw them: (pair, side)
PROGRAMS = "programs"  # each attached feature, as root saw its programs: (pair, feature)
EXPECTED = "expected"  # a host, then first of all each feature that is expected there: (pair, feature or None)
FEATURE = "feature"  # each feature that is expected and attached: (pair, feature)
FLEET = "fleet"  # all changed hosts together: (inputs)
SCOPES = (ANSWER, HOST, SERVICE, PROGRAMS, EXPECTED, FEATURE, FLEET)


class Fallback(NamedTuple):
    """The limit of a check for which none is set: called like the judge, and in words for the page."""

    of: Callable[..., int | None]
    words: str


def budget(name: str) -> Fallback:
    """The limit is a number of the feature's own contract."""
    return Fallback(lambda pair, feature: budget_of(pair, feature, name), f"the contract's `{name}`")


class Check(NamedTuple):
    """All that the gate knows of one check. The arguments, the next steps and the pages are made of these records."""

    name: str
    scope: str
    # Pure. Called with what the scope says; answers None where there is nothing to judge.
    judge: Callable[..., Any]
    # For the page: what is judged, or in a comparison with root's view what fails.
    what: str
    # What to do where it failed.
    step: str
    # The subject of the sentence of a `Measured`, with fields in braces; other answers have their own sentence.
    sentence: str = ""
    unit: str | None = None
    # The name in ebpf_fleet_gate_limits, an upper limit. Null is taken only where null is the default.
    limit: str | None = None
    default: int | None = None
    fallback: Fallback | None = None
    # Whether it is judged only where it has a limit.
    optional: bool = False
    # The verdict over the limit.
    over: str = FAIL
    # A name in ebpf_fleet_gate_limits that is true or false (the default).
    switch: str | None = None
    # Whether a failure is plain enough to end a bake before its time: a budget, a loader that is dead; nothing that
    # varies by itself.
    early: bool = False


def limit_of(check: Check, pair: Pair, *about: Any) -> int | None:
    """The limit that holds: the one that is set, else the check's fallback."""
    value = None if check.limit is None else pair.limit(check.limit)
    return check.fallback.of(pair, *about) if value is None and check.fallback is not None else value


def judgements(check: Check, pair: Pair, *about: Any) -> list[Judgement]:
    """What a check says of a host, or of `about` on it: a feature's name, or a service of ours."""
    result = check.judge(pair, *about)
    answers = [result] if isinstance(result, (Measured, Unmeasured, Finding)) else result or []
    return [one for answer in answers for one in _judgement(check, pair, answer, about)]


def _judgement(check: Check, pair: Pair, answer: Answer, about: tuple[Any, ...]) -> list[Judgement]:
    feature = about[0] if about and isinstance(about[0], str) else None
    subject = pair.host if feature is None else f"{pair.host}, {feature}"
    if not isinstance(answer, Finding):
        limit = limit_of(check, pair, *about)
        if isinstance(answer, Measured) and limit is None and check.optional:
            return []
        answer = compare(check, answer, limit)
    sentence = f"{subject}: {answer.sentence}"
    row = (answer.verdict, answer.measured, answer.limit, check.unit, sentence)
    return [Judgement(pair.host, feature, check.name, *row)]


def compare(check: Check, answer: Measured | Unmeasured, limit: int | None) -> Finding:
    """A measured value against its upper limit; inconclusive if either is missing."""
    if isinstance(answer, Unmeasured):
        return Finding(answer.verdict, None, limit, answer.sentence)
    what, value = check.sentence.format_map(answer.words), answer.value
    if value is None:
        return Finding(INCONCLUSIVE, None, limit, f"{what} was not measured")
    if limit is None:
        return Finding(INCONCLUSIVE, value, None, f"{what} has no limit; set one or pass the contracts")
    good = value <= limit
    relation = "within" if good else "over"
    sentence = f"{what} {value} {_unit(check.unit, value)}, {relation} the limit of {limit}"
    return Finding(PASS if good else check.over, value, limit, sentence)


def _unit(unit: str | None, value: int) -> str:
    """The unit behind the value: `1 step`, `2 steps`."""
    is_count = unit in ("steps", "restarts", "events", "bytes", "millicores")
    return str(unit)[:-1] if is_count and value == 1 else str(unit)


def of_answer(check: Check, host: str, found: Finding) -> Judgement:
    """What a host's answer itself is worth, in the finding's own words."""
    return Judgement(host, None, check.name, found.verdict, found.measured, found.limit, check.unit, found.sentence)


def of_fleet(check: Check, inputs: Inputs) -> list[Judgement]:
    """What a check says of all hosts together."""
    found = check.judge(inputs)
    if found is None:
        return []
    row = (found.verdict, found.measured, found.limit, check.unit, found.sentence, found.statistics)
    return [Judgement(None, None, check.name, *row)]
