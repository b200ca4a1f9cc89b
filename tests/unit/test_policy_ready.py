# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy feature goes only where a healthy observability release runs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import census
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import policy_ready as policy


def contract(feature: str, data_path: str, bound: int = 10_000) -> dict[str, Any]:
    return {"feature": feature, "data_path": data_path, "budget": {"drop_ratio_ppm": bound}}


CONTRACTS = [contract("exec_events", "events"), contract("runqlat", "metrics"), contract("exec_policy", "policy")]


def running(**changes: Any) -> dict[str, Any]:
    return {"state": "attached", "data_path": "metrics", "produced": 1000, "dropped": 0, "sampled_out": 0, **changes}


def release(features: Any = None, **changes: Any) -> dict[str, Any]:
    if features is None:
        features = {"runqlat": running()}
    base = {"version": "1.0.0", "state": "running", "status_age_ns": 2_000_000_000, "features": features}
    return {"release": {**base, **changes}}


def test_one_feature_that_counts_within_its_drop_limit_is_enough() -> None:
    features = {"runqlat": running(), "exec_events": running(data_path="events", produced=0)}
    found = policy.policy_ready(release(features), CONTRACTS, None)
    assert (found["ready"], found["reason_code"]) == (True, "EF_OK")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"release": None}, "no release of ours"),
        ({}, "no release of ours"),
        (release(state="idle"), "is idle, not running"),
        (release(state="killed"), "is killed"),
        (release(state=None), "in an unknown state"),
        (release(status_age_ns=None), "age of the loader's status is not known"),
        (release(status_age_ns=True), "age of the loader's status is not known"),
        (release(status_age_ns=31_000_000_000), "31000000000 ns old; at most 30000000000"),
        (release({}), "no metrics or events feature is attached"),
        (release({"exec_policy": running(data_path="policy")}), "no metrics or events feature is attached"),
        (release({"runqlat": running(state="disabled")}), "no metrics or events feature is attached"),
        (release({"runqlat": running(produced=0)}), "runqlat has produced nothing yet"),
        (release({"runqlat": running(produced=None)}), "runqlat was not measured"),
        (release({"runqlat": running(dropped=None)}), "runqlat was not measured"),
        (release({"runqlat": running(sampled_out=None)}), "runqlat was not measured"),
        (release({"runqlat": running(sampled_out=1000)}), "runqlat has recorded none of 1000 events"),
        # 5 of 1000 would be within 10000 ppm: thinning makes no loss smaller.
        (release({"runqlat": running(dropped=5, sampled_out=900)}), "runqlat dropped 5 of 100; its contract allows"),
        (release({"foreign": running()}), "foreign has no contract in the bundle"),
        (release({"runqlat": running(dropped=11)}), "runqlat dropped 11 of 1000; its contract allows 10000 ppm"),
        # A good feature does not outweigh one that loses what it sees.
        (
            release({"runqlat": running(), "exec_events": running(data_path="events", dropped=500)}),
            "exec_events dropped 500 of 1000",
        ),
    ],
)
def test_what_is_not_proven_healthy_is_not_ready_and_says_the_remedy(facts: dict[str, Any], words: str) -> None:
    found = policy.policy_ready(facts, CONTRACTS, None)
    assert (found["ready"], found["reason_code"]) == (False, "EF_POLICY_NOT_READY")
    assert words in found["reason"]
    assert "roll out the observability features alone first" in found["reason"]


def test_drops_at_the_very_limit_are_within_it() -> None:
    assert policy.policy_ready(release({"runqlat": running(dropped=10)}), CONTRACTS)["ready"] is True


def test_a_status_is_fresh_up_to_thirty_seconds() -> None:
    for age, ready in ((0, True), (30_000_000_000, True), (30_000_000_001, False), (-1, False)):
        assert policy.policy_ready(release(status_age_ns=age), CONTRACTS, None)["ready"] is ready


def test_the_age_limit_can_be_set_and_a_mistyped_one_is_refused() -> None:
    old = release(status_age_ns=60_000_000_000)
    assert policy.policy_ready(old, CONTRACTS, {"status_age_ns": 90_000_000_000})["ready"] is True
    for limits, words in (({"status_age": 1}, "is not known"), ({"status_age_ns": 0}, "give nanoseconds")):
        with pytest.raises(FleetError, match=words):
            policy.policy_ready(old, CONTRACTS, limits)


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        # Without a name none runs, so none is judged: the census and a rollout say the same.
        (None, []),
        ({}, []),
        ("", []),
        ('{"exec_policy": {}}', ["exec_policy"]),
        ('{"exec_policy": {"enabled": "off"}}', []),
        ({"exec_policy": {}}, ["exec_policy"]),
        ({"exec_policy": {"enabled": True}}, ["exec_policy"]),
        ({"exec_policy": {"enabled": False}}, []),
        ({"runqlat": {}}, []),
        ({"exec_policy": {"enabled": "no"}}, []),
        # What is malformed is refused elsewhere; here it does not count as off.
        ({"exec_policy": {"enabled": "maybe"}}, ["exec_policy"]),
        ("exec_policy", ["exec_policy"]),
        (["exec_policy"], ["exec_policy"]),
        ({"exec_policy": None}, ["exec_policy"]),
    ],
)
def test_only_a_policy_feature_that_would_run_is_judged(features: Any, wanted: list[str]) -> None:
    assert policy.wanted_policy(CONTRACTS, features) == wanted


def test_every_host_that_is_refused_is_named_with_feature_code_and_reason() -> None:
    named = {"ebpf_fleet_features": {"runqlat": {}, "exec_policy": {}}}
    facts = {"kernel": {"family": "6.1"}, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}}
    good = {**named, "inventory_hostname": "a", "ebpf_fleet_capability": {"capabilities": {**facts, **release()}}}
    new = {**named, "inventory_hostname": "b", "ebpf_fleet_capability": {"capabilities": {**facts, "release": None}}}
    without = {**new, "inventory_hostname": "c", "ebpf_fleet_features": {"runqlat": {}}}
    unnamed = {**new, "inventory_hostname": "d", "ebpf_fleet_features": {}}
    (refused,) = policy.policy_refusals([good, new, without, unnamed], CONTRACTS)
    assert (refused["host"], refused["feature"]) == ("b", "exec_policy")
    assert refused["sentence"].startswith("b: exec_policy: EF_POLICY_NOT_READY: no release of ours")


def test_a_host_that_gave_no_facts_is_refused() -> None:
    host = {"inventory_hostname": "a", "ebpf_fleet_features": {"exec_policy": {}}}
    assert policy.policy_refusals([host], CONTRACTS)[0]["host"] == "a"


def test_a_bundle_without_policy_features_refuses_nobody() -> None:
    assert policy.policy_refusals([{"inventory_hostname": "a"}], CONTRACTS[:2]) == []


@pytest.mark.parametrize(
    "features",
    [
        None,
        {},
        {"runqlat": {}},
        {"exec_policy": {}},
        {"exec_policy": {"enabled": False}},
        '{"exec_policy": {}}',
        "exec",
    ],
)
def test_the_census_and_a_rollout_judge_the_same(features: Any) -> None:
    facts = {"kernel": {"family": "6.1"}, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}, "release": None}
    answer = {"capabilities": facts}
    host = {"inventory_hostname": "a", "ebpf_fleet_capability": answer, "ebpf_fleet_features": features}
    counted = census.capability_census({"a": answer}, {"contracts": CONTRACTS}, {"a": features})["hosts"]["a"]["policy"]
    refused = policy.policy_refusals([host], CONTRACTS)
    assert [one["feature"] for one in counted if not one["ready"]] == [one["feature"] for one in refused]
