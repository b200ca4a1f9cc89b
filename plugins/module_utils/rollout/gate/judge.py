# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge observations: a pure function from what was measured to pass, fail or inconclusive.

Unknown is never pass: what is missing, stale or unmeasured is inconclusive, and inconclusive
holds a rollout unless the operator said for that very check that it may not. Rates are
integers rounded up, so that a measured value never looks better than it is.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable, printable_document
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import counters as gate_counters
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import ranktest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Check,
    Inputs,
    Json,
    Measure,
    Pair,
    attached_features,
    compare,
    difference,
    expected_features,
    get,
    grown,
    millicores,
    number,
    ratio_up,
    status_span_ns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.features import (
    counter_delta,
    feature_checks,
    feature_millicores,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import (
    bpf_millicores,
    cpu_busy_ppm,
    cpu_delta,
    judge_cpu,
    judge_host_load,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.reasons import reasons_of, unproven
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import seen_of
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness import witness_checks
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import observation_fault

SCHEMA = "ebpf.fleet/gate/v1"
SENTENCE_LIMIT = 1_000
# Stands in the place of an observation that could not even be read, with the reason.
MALFORMED = "malformed"

# The rank test speaks only where so many hosts stand on both sides.
RANK_TEST_HOSTS = 5
RANK_TEST_ALPHA_PPM = 10_000
RANK_TEST_EFFECT_PPM = 500_000
RANK_TEST_SHIFT_PPM = 10_000


# --- the verdict -------------------------------------------------------------------------------


def judge(inputs: Inputs) -> dict[str, Any]:
    """The verdict over all hosts and checks; the format is in docs/interfaces.md."""
    controls, unusable = usable_controls(inputs.controls)
    inputs = inputs._replace(controls=controls)
    checks = [check for host in sorted(inputs.changed) for check in host_checks(host, inputs)]
    checks += unusable + fleet_checks(inputs)
    checks = [safe(check) for check in checks]
    verdict, sentence = summarize(inputs, checks)
    found = reasons_of(checks, held_checks(inputs, checks))
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "sentence": sentence,
        "reasons": [check._asdict() for check in found.checks] if found else [],
        "next": list(found.steps) if found else [],
        "checks": [check._asdict() for check in checks],
        "hosts": sorted(inputs.changed),
    }


def summarize(inputs: Inputs, checks: Sequence[Check]) -> tuple[str, str]:
    """(verdict, sentence) of all checks together; the sentence names every check that stands in the way."""
    if not inputs.changed:
        return INCONCLUSIVE, "no host was observed, so nothing was judged"
    found = reasons_of(checks, held_checks(inputs, checks))
    if found is not None:
        return FAIL if any(check.verdict == FAIL for check in checks) else INCONCLUSIVE, found.sentence
    silent = unproven(list(inputs.changed), checks)
    if silent:
        return INCONCLUSIVE, f"no check passed on {', '.join(silent)}, so nothing speaks for them"
    passed = sum(check.verdict == PASS for check in checks)
    return (
        PASS,
        f"{passed} checks passed on {len(inputs.changed)} hosts; {len(checks) - passed} had nothing to judge",
    )


def held_checks(inputs: Inputs, checks: Sequence[Check]) -> list[Check]:
    """The checks that could not be judged and hold."""
    return [check for check in checks if _holds(check, inputs.on_inconclusive)]


def _holds(check: Check, policies: Mapping[str, str]) -> bool:
    return check.verdict == INCONCLUSIVE and policies.get(check.check, "hold") == "hold"


def host_checks(host: str, inputs: Inputs) -> list[Check]:
    """Every check of one host; without a usable observation only the one that says so."""
    after = get(inputs.changed[host], "after")
    before = get(inputs.changed[host], "before")
    malformed = fault_of_record(inputs.changed[host])
    if malformed is not None:
        return [unusable_answer(host, FAIL, malformed)]
    wrong = what_is_wrong(after)
    if wrong is not None:
        return [Check(host, None, "observation", INCONCLUSIVE, None, None, None, f"{host}: {wrong}")]
    pair = Pair(host, before if isinstance(before, Mapping) else None, after, inputs)
    checks = [check for judge_one in HOST_CHECKS for check in judge_one(pair)]
    for feature in sorted(expected_features(pair) or {}):
        checks += feature_checks(pair, feature)
    return checks + expression_checks(pair)


def fault_of_record(record: Any) -> str | None:
    """What is malformed in a host's observations, each held against the schema by itself; None if nothing is.

    An answer that is not a document at all counts as none: the host was not observed.
    """
    for end in ("after", "before"):
        document = get(record, end)
        if isinstance(document, Mapping) and set(document) == {MALFORMED}:
            return str(document[MALFORMED])
        wrong = observation_fault(document) if isinstance(document, Mapping) and document else None
        if wrong is not None:
            return f"{end}: {wrong}"
    return None


def unusable_answer(host: str, verdict: str, wrong: str) -> Check:
    """The one check of a host whose answer cannot be used."""
    said = f"no usable answer from {host}: {printable(wrong)}"
    return Check(host, None, "observation", verdict, None, None, None, said)


def usable_controls(controls: Mapping[str, Json]) -> tuple[dict[str, Json], list[Check]]:
    """(controls whose answers can be used, a check that holds for each of the others)."""
    faults = {host: fault_of_record(record) for host, record in controls.items()}
    checks = [unusable_answer(host, INCONCLUSIVE, wrong) for host, wrong in sorted(faults.items()) if wrong]
    return {host: controls[host] for host, wrong in faults.items() if not wrong}, checks


def safe(check: Check) -> Check:
    """A check whose texts, which may be the host's, can be shown on a terminal."""
    return check._replace(
        feature=None if check.feature is None else printable(check.feature, 128),
        measured=printable_document(check.measured),
        limit=printable_document(check.limit),
        sentence=printable(check.sentence, SENTENCE_LIMIT),
    )


def what_is_wrong(observation: Any) -> str | None:
    """Why an observation cannot be judged, or None."""
    if not isinstance(observation, Mapping):
        return "was not observed after the change; is it reachable?"
    if not isinstance(observation.get("start"), Mapping) or not isinstance(observation.get("end"), Mapping):
        return "its observation has no start and end; pass what observation_info returned"
    if (number(observation, "window_ns") or 0) <= 0:
        return "its observation has no window, so there are no rates; observe with window > 0"
    if get(observation, "end", "status") is None:
        reason = get(observation, "end", "status_error")
        return f"has no status from the loader ({reason or 'is it installed and running?'})"
    return None


# --- per host ----------------------------------------------------------------------------------


def judge_freshness(pair: Pair) -> list[Check]:
    """Is the status recent? A stale one says nothing of now: it holds, it does not condemn."""
    age = number(pair.end, "status_age_ns")
    check = compare(pair, Measure("status_fresh", age, pair.limit("status_age_ns"), "ns", "age of the status"))
    return [check._replace(verdict=INCONCLUSIVE) if check.verdict == FAIL else check]


def judge_release(pair: Pair) -> list[Check]:
    """Does the host run the very bundle that the rollout brings?"""
    wanted = pair.inputs.digest
    if wanted is None:
        return []
    running = get(pair.end, "status", "bundle", "digest")
    good = running == wanted
    sentence = f"{pair.host}: runs bundle {str(running)[:12]}, the rollout brings {wanted[:12]}"
    return [Check(pair.host, None, "release", PASS if good else FAIL, running, wanted, "sha256", sentence)]


def judge_active(pair: Pair) -> list[Check]:
    """Is the service up at both ends of the window?"""
    states = [get(pair.start, "unit", "active_state"), get(pair.end, "unit", "active_state")]
    if None in states:
        verdict, said = INCONCLUSIVE, "systemd did not say whether the loader is active"
    elif states == ["active", "active"]:
        verdict, said = PASS, "the loader was active at both ends of the window"
    else:
        verdict, said = FAIL, f"the loader was {states[0]}, then {states[1]}"
    return [Check(pair.host, None, "loader_active", verdict, states[1], "active", None, f"{pair.host}: {said}")]


def judge_restarts(pair: Pair) -> list[Check]:
    """Restarts that nobody ordered: systemd's count, and a loader that changed within the window."""
    what = "unordered loader restarts"
    measure = Measure("loader_restarts", restarts(pair), pair.limit("loader_restarts"), "restarts", what)
    return [compare(pair, measure)]


def restarts(pair: Pair) -> int | None:
    """Unordered restarts between the observations; systemd's count starts anew at an ordered one."""
    first, last = number(pair.start, "unit", "n_restarts"), number(pair.end, "unit", "n_restarts")
    if first is None or last is None:
        return None
    lives = [loader_life(pair.start), loader_life(pair.end)]
    changed_in_window = (None not in lives and lives[0] != lives[1]) or life_changed(pair)
    before_life = loader_life(get(pair.before, "end") or {})
    if last < first and not changed_in_window:
        return None
    ordered = before_life is None or before_life != lives[0]
    base = 0 if ordered else number(pair.before, "end", "unit", "n_restarts") or 0
    return max(last - base, last - first, int(changed_in_window))


def life_changed(pair: Pair) -> bool:
    """Whether the kernel saw another main process at the end of the window than at its start."""
    lives = [get(seen_of(one, "loader"), "main", "started_boottime_ns") for one in (pair.start, pair.end)]
    return None not in lives and lives[0] != lives[1]


def loader_life(snapshot: Json) -> tuple[int, int] | None:
    """What tells one run of the loader from the next."""
    pid = number(snapshot, "status", "pid")
    started = number(snapshot, "status", "started_boottime_ns")
    return None if pid is None or started is None else (pid, started)


def first_fault(pair: Pair, field: str) -> str | None:
    """What the latest observation says is wrong with a file; None where nothing is."""
    ends = (pair.end, get(pair.before, "end"))
    return next((str(get(one, field)) for one in ends if get(one, field) is not None), None)


def judge_application(pair: Pair) -> list[Check]:
    """The application's latency, where it is measured or a limit demands it."""
    checks = []
    for name in ("p95", "p99"):
        limit = pair.limit(f"application_{name}_growth_ppm")
        wrong = first_fault(pair, "application_error")
        if wrong is not None:
            said = f"{pair.host}: the application's {name} cannot be read: {wrong}"
            checks.append(Check(pair.host, None, f"application_{name}", INCONCLUSIVE, None, limit, "ppm", said))
            continue
        if limit is None:
            continue
        before = number(pair.before, "end", "application", name + "_ns")
        after = number(pair.end, "application", name + "_ns")
        more = grown(before, after)
        growth = ratio_up(more, before, 1_000_000) if more is not None and before is not None and before > 0 else None
        what = f"growth of the application's {name}"
        checks.append(compare(pair, Measure(f"application_{name}", growth, limit, "ppm", what)))
    return checks


def judge_expectation(pair: Pair) -> list[Check]:
    """Did anyone say what must run here?"""
    expected = expected_features(pair)
    if expected is None:
        said = f"{pair.host}: nobody said which features must run; pass expected"
        return [Check(pair.host, None, "features_attached", INCONCLUSIVE, None, None, "profile", said)]
    if get(pair.end, "status", "state") == "killed":
        scopes = ", ".join(str(get(one, "scope")) for one in get(pair.end, "status", "kills") or [])
        said = f"{pair.host}: a kill order holds ({scopes}); release it before a rollout"
        return [Check(pair.host, None, "features_attached", FAIL, "killed", None, "profile", said)]
    if get(pair.end, "status", "lease", "expired") is True:
        said = f"{pair.host}: {get(pair.end, 'status', 'reason')} (EF_LEASE_EXPIRED)"
        return [Check(pair.host, None, "features_attached", FAIL, "lease expired", None, "profile", said)]
    wrong = get(pair.end, "status", "desired_error")
    if wrong is not None:
        said = f"{pair.host}: the loader cannot read what is desired: {wrong}"
        return [Check(pair.host, None, "features_attached", FAIL, "error", None, "profile", said)]
    wrong = get(pair.end, "status", "policy_error")
    if wrong is not None:
        said = f"{pair.host}: the loader cannot read what the host allows: {wrong}"
        return [Check(pair.host, None, "features_attached", FAIL, "error", None, "profile", said)]
    if not expected:
        return _nothing_expected(pair)
    return []


def _nothing_expected(pair: Pair) -> list[Check]:
    running = attached_features(pair)
    said = f"{pair.host}: nothing is expected to run, and {', '.join(running) or 'nothing'} does"
    verdict = FAIL if running else PASS
    return [Check(pair.host, None, "features_attached", verdict, running, [], "profile", said)]


HOST_CHECKS: tuple[Callable[[Pair], list[Check]], ...] = (
    gate_counters.judge_counters,
    judge_freshness,
    judge_release,
    judge_active,
    judge_restarts,
    judge_cpu,
    judge_host_load,
    judge_application,
    judge_expectation,
    witness_checks,
)


# --- the user's own checks, and the fleet ------------------------------------------------------


def rates(pair: Pair) -> dict[str, Any]:
    """Derived values that a user's expression may use beside the observations."""
    features = {}
    for name in attached_features(pair):
        counters = {
            key + "_delta": counter_delta(pair, name, key)
            for key in ("produced", "delivered", "dropped", "sampled_out")
        }
        cpu = feature_millicores(pair, name)
        features[name] = dict(counters, cpu_millicores=cpu)
    return {
        "window_ns": number(pair.after, "window_ns"),
        "status_span_ns": status_span_ns(pair),
        "loader_cpu_millicores": millicores(pair, difference(pair, "loader", "cpu_ns")),
        "bpf_cpu_millicores": bpf_millicores(pair),
        "host_cpu_ppm": cpu_busy_ppm(pair.after),
        "features": features,
    }


def expression_checks(pair: Pair) -> list[Check]:
    """The user's checks over {before, after, rates} of one host."""
    if not pair.inputs.expressions:
        return []
    document = {"before": pair.before, "after": pair.after, "rates": rates(pair)}
    return [_judge_expression(pair, one, document) for one in pair.inputs.expressions]


def _judge_expression(pair: Pair, one: Json, document: Json) -> Check:
    upper = one.get("max") is not None
    limit = one["max"] if upper else one["min"]
    name, unit = one["name"], one.get("unit")
    value, wrong = _evaluate(pair, one["expression"], document)
    if wrong is not None:
        said = f"{pair.host}: {name}: {wrong}"
        return Check(pair.host, None, name, INCONCLUSIVE, None, limit, unit, said)
    good = value <= limit if upper else value >= limit
    bound = "at most" if upper else "at least"
    said = f"{pair.host}: {name} is {value}, {bound} {limit} is allowed"
    return Check(pair.host, None, name, PASS if good else FAIL, value, limit, unit, said)


def _evaluate(pair: Pair, expression: str, document: Json) -> tuple[Any, str | None]:
    if pair.inputs.search is None:
        return None, "no JMESPath at hand"
    try:
        value = pair.inputs.search(expression, document)
    except ValueError as error:
        return None, f"the expression could not be evaluated: {error}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None, f"the expression gave {value!r}, which is no number"
    return value, None


def fleet_checks(inputs: Inputs) -> list[Check]:
    """What only many hosts together show: a small shift that hides in each host's noise."""
    changed = [value for value in map(cpu_delta, inputs.changed.values()) if value is not None]
    controls = [value for value in map(cpu_delta, inputs.controls.values()) if value is not None]
    if min(len(changed), len(controls)) < RANK_TEST_HOSTS:
        return []
    p_ppm, effect_ppm = ranktest.rank_test(changed, controls)
    shift = ranktest.median(changed) - ranktest.median(controls)
    bad = p_ppm <= RANK_TEST_ALPHA_PPM and effect_ppm >= RANK_TEST_EFFECT_PPM and shift >= RANK_TEST_SHIFT_PPM
    said = (
        f"host CPU of {len(changed)} changed hosts shifted by {shift} ppm against {len(controls)} controls "
        f"(p {p_ppm} ppm, effect {effect_ppm} ppm)"
    )
    verdict = FAIL if bad else PASS
    return [Check(None, None, "host_cpu_shift", verdict, shift, RANK_TEST_SHIFT_PPM, "ppm", said)]
