# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does on a host run what must run there, at the profile that was predicted? Pure."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    NOT_EXERCISED,
    PASS,
    PROFILE_RANK,
    Finding,
    Pair,
    attached_features,
    expected_features,
    get,
)


def judge_expected(pair: Pair, feature: str | None = None) -> Finding | None:
    """What speaks against the whole host, or whether one feature is what was expected of it."""
    return judge_host(pair) if feature is None else judge_profile(pair, feature)


def judge_host(pair: Pair) -> Finding | None:
    """Did anyone say what must run here?"""
    expected = expected_features(pair)
    if expected is None:
        said = "it is not said which features must run; pass expected"
        return Finding(INCONCLUSIVE, None, None, said)
    if get(pair.end, "status", "state") == "killed":
        scopes = ", ".join(str(get(one, "scope")) for one in get(pair.end, "status", "kills") or [])
        said = f"a kill order holds ({scopes}); release it before a rollout"
        return Finding(FAIL, "killed", None, said)
    if get(pair.end, "status", "lease", "expired") is True:
        said = f"{get(pair.end, 'status', 'reason')} (EF_LEASE_EXPIRED)"
        return Finding(FAIL, "lease expired", None, said)
    wrong = get(pair.end, "status", "desired_error")
    if wrong is not None:
        said = f"the loader cannot read what is desired: {wrong}"
        return Finding(FAIL, "error", None, said)
    wrong = get(pair.end, "status", "policy_error")
    if wrong is not None:
        said = f"the loader cannot read what the host allows: {wrong}"
        return Finding(FAIL, "error", None, said)
    if not expected:
        return _nothing_expected(pair)
    return None


def _nothing_expected(pair: Pair) -> Finding:
    running = attached_features(pair)
    said = f"nothing is expected to run, and {', '.join(running) or 'nothing'} does"
    return Finding(FAIL if running else PASS, running, [], said)


def judge_profile(pair: Pair, feature: str) -> Finding:
    """Is the feature at least at the profile that was predicted?"""
    expectation = (expected_features(pair) or {})[feature]
    wanted = expectation.profile
    state = get(pair.end, "status", "features", feature, "state")
    profile = get(pair.end, "status", "features", feature, "profile")
    if get(pair.end, "status", "features", feature, "wanted") is False and not expectation.binding:
        said = "is not wanted here, so its profile was not exercised"
        return Finding(NOT_EXERCISED, state, wanted, said)
    if profile not in PROFILE_RANK or not isinstance(state, str):
        said = "the loader does not report it"
        return Finding(FAIL, profile, wanted, said)
    reached = profile if state == "attached" else "disabled"
    # What a budget took off does not count as a profile of this host, however little was predicted.
    enough = PROFILE_RANK[reached] >= PROFILE_RANK[wanted] and state != "shed"
    reason = why_of(pair, feature)
    said = f"{state}, profile {reached}, at least {wanted} expected ({reason})"
    return Finding(PASS if enough else FAIL, reached, wanted, said)


def why_of(pair: Pair, feature: str) -> str:
    """The loader's reason, and the step of a degradation with what was measured."""
    reason = get(pair.end, "status", "features", feature, "reason") or "no reason given"
    degraded = get(pair.end, "status", "features", feature, "degraded")
    if not isinstance(degraded, dict):
        return str(reason)
    step, code, steps = (degraded.get(key) for key in ("step", "reason_code", "steps"))
    down = counted(steps, "step") if isinstance(steps, int) else f"{steps} steps"
    return f"degraded to {step}, {down} down, for {code}: {degraded.get('reason')}"
