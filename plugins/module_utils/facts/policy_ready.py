# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May a policy feature go to a host? Only where a healthy observability release runs already. Pure.

Who may later say no to a program of the host must first be seen to work there: loaded, counting,
and within its drop limit. What was not measured proves nothing.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document

Json = Mapping[str, Any]

NOT_READY = "EF_POLICY_NOT_READY"
DEFAULT_LIMITS = {"status_age_ns": 30_000_000_000}
OBSERVABILITY = ("metrics", "events")
REMEDY = (
    "roll out the observability features alone first (ebpf_fleet_features without the policy feature), "
    "and ask again when they count"
)


def policy_ready(facts: Json, contracts: Sequence[Json], limits: Json | None = None) -> dict[str, Any]:
    """{"ready", "reason_code", "reason"} of one host.

    `facts` are its capability facts, `contracts` those of the bundle to come (drop limits),
    `limits` may set `status_age_ns`, nanoseconds, 1 up.
    """
    problem = _release_problem(facts.get("release"), _checked(limits))
    if problem is None:
        problem = _features_problem(facts["release"].get("features") or {}, contracts)
    if problem is not None:
        return {"ready": False, "reason_code": NOT_READY, "reason": f"{problem}; {REMEDY}"}
    version = facts["release"].get("version")
    return {"ready": True, "reason_code": "EF_OK", "reason": f"release {version} observes this host and is healthy"}


def _checked(limits: Json | None) -> dict[str, int]:
    found = dict(DEFAULT_LIMITS)
    for name, value in (limits or {}).items():
        if name not in DEFAULT_LIMITS:
            raise FleetError("EF_ARGUMENT", f"limits.{name}: is not known; known is {', '.join(DEFAULT_LIMITS)}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise FleetError(
                "EF_ARGUMENT", f"limits.{name}: {value!r} is not a whole number from 1 up; give nanoseconds"
            )
        found[name] = value
    return found


def _release_problem(release: Any, limits: Mapping[str, int]) -> str | None:
    """Why the release that runs now cannot vouch for the host; None if it can."""
    if not isinstance(release, Mapping):
        return "no release of ours is known to run on this host"
    if release.get("state") != "running":
        return f"the release on this host is {release.get('state') or 'in an unknown state'}, not running"
    age = release.get("status_age_ns")
    if not isinstance(age, int) or isinstance(age, bool) or age < 0:
        return "the age of the loader's status is not known"
    if age > limits["status_age_ns"]:
        return f"the loader's status is {age} ns old; at most {limits['status_age_ns']} ns are fresh"
    return None


def _features_problem(features: Json, contracts: Sequence[Json]) -> str | None:
    """Why no feature of that release proves that observing works here; None if one does."""
    bounds = {one["feature"]: one["budget"]["drop_ratio_ppm"] for one in contracts if "budget" in one}
    observing = {
        name: one
        for name, one in features.items()
        if one.get("data_path") in OBSERVABILITY and one.get("state") == "attached"
    }
    if not observing:
        return "no metrics or events feature is attached on this host"
    doubts = {name: _doubt(one, bounds.get(name)) for name, one in sorted(observing.items())}
    above = [f"{name} {doubt}" for name, doubt in doubts.items() if doubt and doubt.startswith("dropped")]
    if above:
        return "; ".join(above)
    if all(doubts.values()):
        return "no feature proves that it works: " + "; ".join(f"{name} {doubt}" for name, doubt in doubts.items())
    return None


def _doubt(feature: Json, bound: int | None) -> str | None:
    """Why an attached feature proves nothing, or None. An idle one proves nothing: silence has many causes."""
    produced, dropped, sampled_out = (feature.get(key) for key in ("produced", "dropped", "sampled_out"))
    if not isinstance(produced, int) or not isinstance(dropped, int) or not isinstance(sampled_out, int):
        return "was not measured (produced, dropped and sampled_out are not all known)"
    if produced == 0:
        return "has produced nothing yet"
    passed = produced - sampled_out
    if passed <= 0:
        return f"has recorded none of {produced} events: sampling let none pass"
    if bound is None:
        return "has no contract in the bundle to judge its drops by"
    if dropped * 1_000_000 > bound * passed:
        return f"dropped {dropped} of {passed}; its contract allows {bound} ppm"
    return None


def wanted_policy(contracts: Sequence[Json], features: Json | None) -> list[str]:
    """Policy features to judge: those that `features` names and enables, as no other one runs.

    Where `features` cannot be read every one is judged: what is not understood permits nothing.
    """
    policy = sorted(one["feature"] for one in contracts if one.get("data_path") == "policy")
    try:
        named = values.mapping("ebpf_fleet_features", {} if features is None else features)
    except values.RefusedValueError:
        return policy
    return [name for name in policy if name in named and _enabled(named[name])]


def _enabled(wish: Any) -> bool:
    """Only a clear `enabled: false` keeps a feature off; what is malformed is refused elsewhere."""
    try:
        return not isinstance(wish, Mapping) or values.truth("enabled", wish.get("enabled", True))
    except values.RefusedValueError:
        return True


def policy_answers(
    facts: Json, contracts: Sequence[Json], features: Json | None, limits: Json | None = None
) -> list[dict[str, Any]]:
    """{"feature", "ready", "reason_code", "reason"} of each policy feature that one host would run."""
    ready = policy_ready(facts, contracts, limits)
    return [{"feature": name, **ready} for name in wanted_policy(contracts, features)]


def policy_refusals(
    hosts: Sequence[Json], contracts: Sequence[Json], limits: Json | None = None
) -> list[dict[str, str]]:
    """{"host", "feature", "reason_code", "sentence"} of each policy feature that may not go to a host.

    A host is its variables: `inventory_hostname`, `ebpf_fleet_features` and what
    `capability_facts` registered as `ebpf_fleet_capability`. A host that names no features
    runs none of the policy data path; one whose answer cannot be used is refused. The census has the
    same judgement, by the same `policy_answers`.
    """
    refused = []
    for host in hosts:
        name = str(host["inventory_hostname"])
        answer = capability_document.read(name, host.get("ebpf_fleet_capability") or {})
        for one in policy_answers(answer.capabilities or {}, contracts, host.get("ebpf_fleet_features"), limits):
            if not one["ready"]:
                reason = answer.problem or one["reason"]
                refused.append(_refusal(name, one, f"{name}: {one['feature']}: {one['reason_code']}: {reason}"))
    return refused


def _refusal(host: str, one: Json, sentence: str) -> dict[str, str]:
    return {"host": host, "feature": one["feature"], "reason_code": one["reason_code"], "sentence": sentence}
