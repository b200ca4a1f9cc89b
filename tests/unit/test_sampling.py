# SPDX-License-Identifier: GPL-3.0-or-later
"""From a number of samples for a whole fleet to the sampling of each host."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.filter.sampling import sampling_hosts
from ansible_collections.ebpf.fleet.plugins.filter.sampling import sampling_plan as told_plan
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.sampling import (
    HOUR_NS,
    SamplingError,
    produced_per_hour,
    sampling_plan,
)

SECOND = 10**9
LIFE = {"boot_id": "b", "pid": 7, "started_boottime_ns": 5}


def edge(boottime_ns: int, produced: Any, state: str = "attached", **changes: Any) -> dict[str, Any]:
    feature = {"wanted": True, "state": state, "counters": {"produced": produced}}
    other = {"wanted": True, "state": "attached", "counters": {"produced": 0}}
    features = {"exec_events": feature, "runqlat": other, "off": {**other, "wanted": False}}
    return {"status": {**LIFE, "boottime_ns": boottime_ns, "features": features, **changes}, "status_error": None}


def observed(per_hour: int, seconds: int = 36) -> dict[str, Any]:
    """With so many events an hour."""
    return {"start": edge(100 * SECOND, 50), "end": edge((100 + seconds) * SECOND, 50 + per_hour * seconds // 3600)}


def host(per_hour: int, features: Any = None) -> dict[str, Any]:
    return {"observation": observed(per_hour), "features": features}


def test_events_of_a_window_are_those_of_an_hour_rounded_up() -> None:
    assert produced_per_hour(observed(7200), "exec_events") == (7200, "")
    one = {"start": edge(0, 0), "end": edge(HOUR_NS + 1, 1)}
    assert produced_per_hour(one, "exec_events") == (1, "")
    assert produced_per_hour({"start": edge(0, 9), "end": edge(1, 9)}, "exec_events") == (0, ""), "measured, and none"


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (None, None, "no loader answered"),
        ({"status": None}, {"status": None, "status_error": "f: g: bad"}, "f: g: bad"),
        (edge(0, 1), edge(9, 5, pid=8), "restarted meanwhile"),
        (edge(0, 1), edge(9, 5, boot_id="c"), "restarted meanwhile"),
        (edge(0, 1), edge(9, 5, started_boottime_ns=6), "restarted meanwhile"),
        (edge(0, 1, "killed"), edge(9, 5), "exec_events was killed there"),
        (edge(0, 1), edge(9, 5, "shed"), "exec_events was shed there"),
        (edge(0, None), edge(9, None), "not counted"),
        (edge(0, 5), edge(9, 4), "not counted"),
        (edge(0, True), edge(9, 4), "not counted"),
        (edge(0, 1), edge(0, 1), "one status only"),
        (edge(None, 1), edge(9, 1), "one status only"),
    ],
)
def test_what_was_not_measured_is_said_why_and_is_never_zero(start: Any, end: Any, why: str) -> None:
    rate, said = produced_per_hour({"start": start, "end": end}, "exec_events")
    assert rate is None and why in said
    assert (
        produced_per_hour(None, "exec_events") == produced_per_hour([], "exec_events") == (None, "no loader answered")
    )
    assert produced_per_hour(observed(7200), "no_such")[1] == "no_such was not known there"


@pytest.mark.parametrize(
    ("rates", "target", "every"),
    [([40000], 40000, 1), ([40001], 40000, 2), ([39999], 40000, 1), ([0], 1, 1), ([3600, 7200], 100, 108),
     ([3600] * 1000, 40000, 90), ([10800], 1, 10800)],
)  # fmt: skip
def test_the_samples_of_all_hosts_are_the_target_at_most(rates: list[int], target: int, every: int) -> None:
    hosts = {f"h{at:04}": {"observation": observed(rate, 3600), "features": None} for at, rate in enumerate(rates)}
    found = sampling_plan(hosts, "exec_events", target)
    assert found["sample_every"] == every and found["produced_per_hour"] == sum(rates)
    assert found["samples_per_hour"] <= target and {one["sample_every"] for one in found["hosts"].values()} == {every}
    assert found["standard_error"] == math.isqrt((every - 1) * sum(rates))


def test_the_standard_error_is_that_of_drawn_samples() -> None:
    found, rng = sampling_plan({"a": {"observation": observed(20000, 3600)}}, "exec_events", 2000), random.Random(7)
    every, total = found["sample_every"], found["produced_per_hour"]
    sums = [every * sum(rng.random() < 1 / every for _ in range(total)) for _ in range(200)]
    spread = math.sqrt(sum((one - total) ** 2 for one in sums) / len(sums))
    assert every == 10 and 0.8 < spread / found["standard_error"] < 1.2


def test_a_host_that_was_not_measured_is_named_and_gets_no_sampling() -> None:
    silent = {"observation": None, "features": None}
    found = sampling_plan({"b": silent, "a": host(720000), "c": silent}, "exec_events", 7200)
    assert found["unmeasured"] == {"b": "no loader answered", "c": "no loader answered"}
    assert set(found["hosts"]) == set(found["host_vars"]) == {"a"} and found["sample_every"] == 100
    assert "b (no loader answered), c (no loader answered)" in found["sentences"][-1]
    with pytest.raises(SamplingError, match="no host was measured: b"):
        sampling_plan({"b": silent}, "exec_events", 7200)
    many = {f"h{at:03}": silent for at in range(50)}
    assert "and 30 more" in sampling_plan({**many, "a": host(7200)}, "exec_events", 7200)["sentences"][-1]


def test_the_other_features_of_a_host_stay_as_they_are() -> None:
    """Once the variable is given, what it does not name does not run: so it names all that runs."""
    given = {"runqlat": {"enabled": False}, "exec_events": {"enabled": True, "sample_every": 3}}
    found = sampling_plan({"a": host(720000), "b": host(720000, given)}, "exec_events", 14400)["host_vars"]
    assert found["a"] == {"ebpf_fleet_features": {"exec_events": {"sample_every": 100}, "runqlat": {}}}
    assert found["b"] == {"ebpf_fleet_features": {"runqlat": {"enabled": False},
                                                  "exec_events": {"enabled": True, "sample_every": 100}}}  # fmt: skip
    assert given["exec_events"]["sample_every"] == 3, "what was given is not changed"


@pytest.mark.parametrize(
    ("hosts", "feature", "target", "said"),
    [({}, "f", 1, "name at least one host"), ([], "f", 1, "name at least one host"),
     ({"a": {}}, "", 1, "name the feature"), ({"a": {}}, None, 1, "name the feature"),
     *(({"a": {}}, "f", target, "give 1 or more") for target in (0, True, None, 1.5, "7"))],
)  # fmt: skip
def test_what_is_no_target_is_refused(hosts: Any, feature: Any, target: Any, said: str) -> None:
    with pytest.raises(SamplingError, match=said):
        sampling_plan(hosts, feature, target)
    assert said in told_plan(hosts, feature, target, told=True)["fault"]


def test_what_the_plan_needs_is_taken_out_of_the_hosts() -> None:
    variables = [{"ebpf_fleet_observed": {"observation": {"a": 1}}, "ebpf_fleet_features": {"x": {}}}, {},
                 {"ebpf_fleet_observed": {"unreachable": True}}]  # fmt: skip
    nothing = {"observation": None, "features": None}
    assert sampling_hosts(variables) == [{"observation": {"a": 1}, "features": {"x": {}}}, nothing, nothing]
