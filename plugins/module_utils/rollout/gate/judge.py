# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge observations: a pure function from what was measured to pass, fail or inconclusive.

Unknown is never pass: what is missing, stale or unmeasured is inconclusive, and inconclusive
holds a rollout unless the operator said for that very check that it may not. Rates are
integers rounded up, so that a measured value never looks better than it is.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable, printable_document
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.answers import (
    MALFORMED,
    judge_control,
    lacks_status_alone,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Inputs,
    Json,
    Judgement,
    Pair,
    attached_features,
    expected_features,
    get,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.before_after import before_after
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import BY_NAME, of_scope
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.own import own_checks
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.reasons import reasons_of, unproven
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.record import (
    ANSWER,
    EXPECTED,
    FEATURE,
    FLEET,
    HOST,
    PROGRAMS,
    SERVICE,
    judgements,
    of_answer,
    of_fleet,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import sides, what_is_missing

__all__ = ["FAIL", "INCONCLUSIVE", "MALFORMED", "PASS", "SCHEMA", "judge"]

SCHEMA = "ebpf.fleet/gate/v1"
SENTENCE_LIMIT = 1_000
# Checks that ask systemd alone.
OF_THE_UNIT = ("loader_active", "loader_restarts")


def judge(inputs: Inputs) -> dict[str, Any]:
    """The verdict over all hosts and checks; the format is in docs/formats/gate.md."""
    controls, unusable = usable_controls(inputs.controls)
    inputs = inputs._replace(controls=controls)
    checks = [check for host in sorted(inputs.changed) for check in host_checks(host, inputs)]
    checks += unusable + [one for check in of_scope(FLEET) for one in of_fleet(check, inputs)]
    checks = [safe(check) for check in checks]
    if inputs.early:
        checks = plain_failures(checks)
    counted = [check for check in checks if check.check not in inputs.dry_run]
    dry = reasons_of(*_standing(inputs, [check for check in checks if check.check in inputs.dry_run]))
    found = reasons_of(*_standing(inputs, counted))
    verdict, sentence = summarize(inputs, counted)
    if dry:
        sentence += f"; in dry run, which stops nothing: {dry.sentence}"
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "sentence": sentence,
        "reasons": [row(check) for check in found.checks] if found else [],
        "next": list(found.steps) if found else [],
        "dry_run": [row(check) for check in dry.checks] if dry else [],
        "checks": [row(check) for check in checks],
        "hosts": sorted(inputs.changed),
        "before_after": {} if inputs.early else before_after(inputs),
    }


def _standing(inputs: Inputs, checks: Sequence[Judgement]) -> tuple[Sequence[Judgement], list[Judgement]]:
    return checks, held_checks(inputs, checks)


def plain_failures(checks: Sequence[Judgement]) -> list[Judgement]:
    """What ends a bake before its time: the failures of checks that are plain."""
    return [
        check for check in checks if check.verdict == FAIL and check.check in BY_NAME and BY_NAME[check.check].early
    ]


def row(check: Judgement) -> dict[str, Any]:
    """A judgement as the document has it; only a rank test has statistics."""
    told = check._asdict()
    if check.statistics is None:
        del told["statistics"]
    return told


def summarize(inputs: Inputs, checks: Sequence[Judgement]) -> tuple[str, str]:
    """(verdict, sentence) of all checks together; the sentence names every check that stands in the way."""
    if not inputs.changed:
        return INCONCLUSIVE, "no host was observed, so nothing was judged"
    if inputs.early and not checks:
        return PASS, f"nothing failed plainly on {counted(len(inputs.changed), 'host')} so far; the batch bakes on"
    found = reasons_of(checks, held_checks(inputs, checks))
    if found is not None:
        return FAIL if any(check.verdict == FAIL for check in checks) else INCONCLUSIVE, found.sentence
    silent = unproven(list(inputs.changed), checks)
    if silent:
        return INCONCLUSIVE, f"no check passed on {', '.join(silent)}, so nothing speaks for them"
    passed = sum(check.verdict == PASS for check in checks)
    return (
        PASS,
        f"{counted(passed, 'check')} passed on {counted(len(inputs.changed), 'host')}; "
        f"{len(checks) - passed} had nothing to judge",
    )


def held_checks(inputs: Inputs, checks: Sequence[Judgement]) -> list[Judgement]:
    """The checks that could not be judged and hold."""
    return [check for check in checks if _holds(check, inputs.on_inconclusive)]


def _holds(check: Judgement, policies: Mapping[str, str]) -> bool:
    return check.verdict == INCONCLUSIVE and policies.get(check.check, "hold") == "hold"


def host_checks(host: str, inputs: Inputs) -> list[Judgement]:
    """Every check of one host; where its answer cannot be judged the one that says so, and what systemd tells."""
    record = inputs.changed[host]
    before = get(record, "before")
    pair = Pair(host, before if isinstance(before, Mapping) else None, get(record, "after"), inputs)
    for check in of_scope(ANSWER):
        found = check.judge(host, record)
        if found is not None:
            return [of_answer(check, host, found), *(ended_checks(pair) if lacks_status_alone(record) else [])]
    checks = [one for check in of_scope(HOST, EXPECTED) for one in judgements(check, pair)]
    return [*checks, *witnessed_checks(pair), *feature_checks(pair), *own_checks(pair)]


def ended_checks(pair: Pair) -> list[Judgement]:
    """What systemd alone tells of a loader that left no status: that it ended, or was started again, is a failure."""
    told = [one for name in OF_THE_UNIT for one in judgements(BY_NAME[name], pair)]
    return [one for one in told if one.verdict == FAIL]


def witnessed_checks(pair: Pair) -> list[Judgement]:
    """What our services and their programs tell, held against root's own view, where it was taken."""
    if what_is_missing(pair) is not None:
        return []
    checks = [one for side in sides(pair) for check in of_scope(SERVICE) for one in judgements(check, pair, side)]
    for feature in attached_features(pair):
        checks += [one for check in of_scope(PROGRAMS) for one in judgements(check, pair, feature)]
    return checks


def feature_checks(pair: Pair) -> list[Judgement]:
    """Every check of every expected feature; one that is not attached has only its profile judged."""
    checks: list[Judgement] = []
    attached = attached_features(pair)
    for feature in sorted(expected_features(pair) or {}):
        scopes = (EXPECTED, FEATURE) if feature in attached else (EXPECTED,)
        checks += [one for check in of_scope(*scopes) for one in judgements(check, pair, feature)]
    return checks


def usable_controls(controls: Mapping[str, Json]) -> tuple[dict[str, Json], list[Judgement]]:
    """(controls whose answers can be used, a check that holds for each of the others)."""
    faults = {host: judge_control(host, record) for host, record in sorted(controls.items())}
    checks = [of_answer(BY_NAME["observation"], host, wrong) for host, wrong in faults.items() if wrong is not None]
    return {host: record for host, record in controls.items() if faults[host] is None}, checks


def safe(check: Judgement) -> Judgement:
    """A check whose texts, which may be the host's, can be shown on a terminal."""
    return check._replace(
        feature=None if check.feature is None else printable(check.feature, 128),
        measured=printable_document(check.measured),
        limit=printable_document(check.limit),
        sentence=printable(check.sentence, SENTENCE_LIMIT),
    )
