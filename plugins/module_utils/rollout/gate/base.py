# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate's checks share: its inputs, what a judge may answer, and how observations are read. Pure."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple, Sequence, Union

from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.spending import Budget

Json = Mapping[str, Any]
# Evaluates a user's expression over the document of one host; raises ValueError if it cannot.
Search = Callable[[str, Any], Any]

PASS, FAIL, INCONCLUSIVE, NOT_EXERCISED = "pass", "fail", "inconclusive", "not_exercised"

PROFILE_RANK = {name: rank for rank, name in enumerate(reversed(PROFILES))}


class Expectation(NamedTuple):
    """The least profile that is enough; one that does not bind counts only where the feature is wanted."""

    profile: str
    binding: bool


class Inputs(NamedTuple):
    """All that a verdict depends on."""

    changed: Mapping[str, Json]
    controls: Mapping[str, Json]
    limits: Mapping[str, Any]
    contracts: Mapping[str, Json]
    expected: Mapping[str, Mapping[str, Expectation]]
    digest: str | None
    on_inconclusive: Mapping[str, str]
    expressions: Sequence[Json]
    search: Search | None
    # What the rank tests of this judgement may spend of the rollout's error rate.
    budget: Budget = Budget()
    # Names of checks that are judged and told, and stop nothing.
    dry_run: frozenset[str] = frozenset()
    # Whether the batch still bakes: only what fails plainly is judged, and nothing holds.
    early: bool = False


class Judgement(NamedTuple):
    """What one check says of one host, feature or fleet; `measured` and `limit` are null where nothing is compared."""

    host: str | None
    feature: str | None
    check: str
    verdict: str
    measured: Any
    limit: Any
    unit: str | None
    sentence: str
    # Of a rank test: the samples, and what it found.
    statistics: Json | None = None


class Measured(NamedTuple):
    """A judge's answer: a number in the check's unit, held against the check's upper limit.

    None is unmeasured, which is inconclusive. `words` fill the fields of the check's sentence.
    """

    value: int | None
    words: Mapping[str, Any] = {}


class Unmeasured(NamedTuple):
    """A judge's answer: there is no number, for a reason of its own. The check's limit is told all the same."""

    verdict: str
    sentence: str


class Finding(NamedTuple):
    """A judge's answer: a verdict with both values and its own sentence, still without host and name."""

    verdict: str
    measured: Any
    limit: Any
    sentence: str
    statistics: Json | None = None


Answer = Union[Measured, Unmeasured, Finding]
# None: there is nothing to judge here.
Result = Union[None, Answer, Sequence[Answer]]


class Pair(NamedTuple):
    """The observations of one changed host, and the view that the checks share."""

    host: str
    before: Json | None
    after: Json
    inputs: Inputs

    @property
    def start(self) -> Json:
        return get(self.after, "start") or {}

    @property
    def end(self) -> Json:
        return get(self.after, "end") or {}

    def limit(self, name: str) -> Any:
        return self.inputs.limits[name]


def get(document: Any, *path: str) -> Any:
    """The value at a path of keys, or None where any step is missing."""
    for key in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def number(document: Any, *path: str) -> int | None:
    """The whole number at a path of keys; anything else is None."""
    value = get(document, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def grown(first: int | None, last: int | None) -> int | None:
    """By how much a number is larger at the end; None where one of both was not measured."""
    return None if first is None or last is None else last - first


def ratio_up(part: int, whole: int, scale: int) -> int:
    """part / whole in units of 1/scale, rounded up, so that value <= limit is exact."""
    return -((-part * scale) // whole)


def expected_features(pair: Pair) -> Mapping[str, Expectation] | None:
    """{feature: expectation} of this host; None if it was not given."""
    expected = pair.inputs.expected
    return expected.get(pair.host, expected.get("*"))


def status_span_ns(pair: Pair) -> int | None:
    """Time between the two statuses, which is not the window: the loader writes at its own pace."""
    first = number(pair.start, "status", "boottime_ns")
    last = number(pair.end, "status", "boottime_ns")
    same_life = get(pair.start, "status", "pid") == get(pair.end, "status", "pid")
    if first is None or last is None or last <= first or not same_life:
        return None
    return last - first


def millicores(pair: Pair, spent_ns: int | None) -> int | None:
    """CPU time between the two statuses as millicores."""
    span = status_span_ns(pair)
    if spent_ns is None or span is None or spent_ns < 0:
        return None
    return ratio_up(spent_ns, span, 1000)


def difference(pair: Pair, *path: str) -> int | None:
    """How much a status counter grew within the window."""
    return grown(number(pair.start, "status", *path), number(pair.end, "status", *path))


def attached_features(pair: Pair) -> list[str]:
    """Features with programs in the kernel at the end of the window."""
    features = get(pair.end, "status", "features") or {}
    return sorted(name for name in features if get(features[name], "state") == "attached")


def budget_of(pair: Pair, feature: str, name: str) -> int | None:
    """One number of a feature's budget, of its contract."""
    return number(pair.inputs.contracts.get(feature), "budget", name)


def programs_of(snapshot: Json, feature: str) -> list[Json]:
    """The feature's programs in a snapshot."""
    programs = get(snapshot, "status", "features", feature, "programs")
    return [one for one in programs if isinstance(one, Mapping)] if isinstance(programs, (list, tuple)) else []
