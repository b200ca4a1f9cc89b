# SPDX-License-Identifier: GPL-3.0-or-later
"""Triage: what counts as confirmed, what is brought down by how much, what goes first, and how far it reaches."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.filter.incident import triage_policy
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import blast, cost, triage
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import checks
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Inputs, Pair

from tests.unit.test_gate import CONTRACTS, observation, spend

ASKED = triage.Asked(CONTRACTS)


def measured(loader_ns: int = 10_000_000, programs_ns: int = 1_000_000, counts: Any = True) -> dict[str, Any]:
    found = spend(observation(), loader_ns, programs_ns)
    for end in ("start", "end"):
        found[end]["status"]["stats_enabled"] = counts
        found[end]["status"]["kernel"] = {"family": "6.1"}
        found[end]["status"]["bundle"]["version"] = "1.2.0"
    return found


def heavy() -> dict[str, Any]:
    """900 ms of programs in ten seconds: 90 millicores."""
    return measured(programs_ns=900_000_000)


def find(asked: triage.Asked = ASKED, **windows: list[Any]) -> dict[str, Any]:
    return triage.findings(windows, asked)


def test_one_feature_alone_is_brought_down_where_it_is_named() -> None:
    twice = [heavy(), heavy()]
    every = find(a=twice)["hosts"]["a"]["reduce"]
    assert set(every) == {"exec_events"}
    assert find(triage.Asked(CONTRACTS, reduce="exec_events"), a=twice)["hosts"]["a"]["reduce"] == every
    other = find(triage.Asked(CONTRACTS, reduce="runqlat"), a=twice)
    assert other["hosts"]["a"]["reduce"] == {} and other["confirmed"] == ["a"], "it is over all the same"


def test_every_check_that_is_asked_is_one_of_the_gate() -> None:
    assert set(triage.CHECKS) <= set(checks.NAMES) and set(triage.UNUSABLE) <= set(checks.NAMES)
    assert set(cost.LOWERED) | set(cost.OF_HOST) == set(triage.CHECKS)


def test_only_what_is_over_in_every_window_is_confirmed() -> None:
    found = find(a=[heavy(), heavy()], b=[heavy(), measured()], c=[measured(), measured()], d=[measured(), heavy()])
    assert (found["confirmed"], found["once"], found["within"]) == (["a"], ["b", "d"], ["c"])
    row = next(one for one in found["hosts"]["a"]["checks"] if one["check"] == "feature_cpu")
    assert (row["feature"], row["measured"], row["windows_over"]) == ("exec_events", 90, 2)
    assert found["hosts"]["b"]["reduce"] == {} and found["costs"][0]["hosts"] == ["a"]
    assert "1 of 4 hosts over a limit in every window, 2 in some, 1 within, 0 not measured" in found["lines"]
    assert any("b" in line and "(1 window)" in line for line in found["lines"])


def test_twelve_hosts_are_told_and_the_others_are_counted() -> None:
    def ends(count: int) -> list[str]:
        found = find(**{f"h{at:02d}": [heavy(), heavy()] for at in range(count)})
        return [line for line in found["lines"] if line.startswith("and ")]

    most = triage.TOLD
    assert ends(most) == [] and ends(most + 1) == ["and 1 more host"] and ends(most + 2) == ["and 2 more hosts"]


def test_what_could_be_judged_in_every_window_is_not_told_as_unjudged() -> None:
    row = {"check": "loader_cpu", "feature": None, "unit": "millicores", "measured": 1, "limit": 2, "sentence": "s"}
    for first, second, unjudged in (
        ("pass", "pass", False), ("fail", "pass", False), ("pass", "inconclusive", True), ("inconclusive", "fail", True)
    ):  # fmt: skip
        (merged,) = triage._merged([[{**row, "verdict": first}], [{**row, "verdict": second}]])
        assert merged["unjudged"] is unjudged, (first, second)


def test_a_host_that_was_not_measured_is_neither_over_nor_within() -> None:
    stale = measured()
    stale["end"]["status_age_ns"] = 10**12
    silent = measured()
    silent["end"]["status"] = None
    found = find(a=[None, None], b=[measured(), None], c=[stale, stale], d=[{"x": 1}, measured()], e=[silent, silent])
    assert found["unmeasured"] == ["a", "b", "c", "d", "e"] and not found["within"]
    whys = {name: host["why"] for name, host in found["hosts"].items()}
    assert "gave no observation" in whys["a"] and "age of the status" in whys["c"] and all(whys.values())
    assert sum("not measured: " in line for line in found["lines"]) >= 3


def test_without_a_contract_the_limits_in_force_on_the_host_are_the_measure_and_stay_it() -> None:
    seen = heavy()
    for end in ("start", "end"):
        seen[end]["status"]["budget"] = {"features": {"exec_events": {"cpu_millicores": {"measured": 90, "limit": 20}}}}
    found = find(triage.Asked(), a=[seen, seen])
    assert found["hosts"]["a"]["budgets"] == {"exec_events": {"cpu_millicores": 20}} and found["confirmed"] == ["a"]
    lowered = copy.deepcopy(measured(programs_ns=150_000_000))
    lowered["end"]["status"]["budget"] = {"features": {"exec_events": {"cpu_millicores": {"limit": 10}}}}
    budgets = {"a": found["hosts"]["a"]["budgets"]}
    assert find(triage.Asked(budgets=budgets), a=[lowered])["within"] == ["a"], "15 is within 20, though not within 10"
    assert find(triage.Asked(), a=[lowered])["confirmed"] == ["a"]
    unknown = find(triage.Asked(), a=[measured(), measured()])
    assert "feature_cpu (exec_events)" in unknown["hosts"]["a"]["unjudged"]


def test_limits_of_the_operator_are_the_gates_and_a_wrong_one_is_refused() -> None:
    tight = triage.Asked(CONTRACTS, {"loader_cpu_millicores": 0})
    assert find(tight, a=[measured(), measured()])["confirmed"] == ["a"]
    with pytest.raises(FleetError, match="loader_cpu_milicores"):
        find(triage.Asked(CONTRACTS, {"loader_cpu_milicores": 0}), a=[measured()])


def test_a_reduction_is_half_of_what_was_measured_or_of_the_limit() -> None:
    (budget,) = [one["budget"]["cpu_millicores"] for one in CONTRACTS if one["feature"] == "exec_events"]
    found = find(a=[heavy(), heavy()])["hosts"]["a"]
    assert found["reduce"]["exec_events"]["cpu_millicores"] == min(90, budget) // 2
    only_loader = find(triage.Asked(CONTRACTS, {"loader_cpu_millicores": 0}), a=[heavy(), heavy()])["hosts"]["a"]
    assert set(only_loader["reduce"]) == {"exec_events"}
    tiny = triage.Asked(CONTRACTS, {"loader_cpu_millicores": 0})
    assert find(tiny, a=[measured(), measured()])["hosts"]["a"]["reduce"] == {}, "one millicore has no half"


def test_a_lowered_policy_keeps_all_else_and_never_raises_a_limit() -> None:
    given = {"schema": "ebpf.fleet/policy/v1", "host": {"cpu_millicores": 10}, "sink": {"kind": "count"},
             "features": {"runqlat": {"cpu_millicores": 3},
                          "exec_events": {"cpu_millicores": 4, "map_fill_ppm": 5}}}  # fmt: skip
    slurped = {"content": base64.b64encode(json.dumps(given).encode()).decode()}
    made = json.loads(
        triage_policy(slurped, {"exec_events": {"cpu_millicores": 9}, "oom_kills": {"map_memory_bytes": 7}})["text"]
    )
    assert made == {**given, "features": {**given["features"], "oom_kills": {"map_memory_bytes": 7}}}
    assert json.loads(triage_policy({"failed": True}, {"a": {"cpu_millicores": 1}})["text"])["features"] == {
        "a": {"cpu_millicores": 1}}  # fmt: skip
    for bad in (b"{", b"[]", b'{"host": {"cpu_millicores": 0}}'):
        told = triage_policy({"content": base64.b64encode(bad).decode()}, {"a": {"cpu_millicores": 1}}, told=True)
        assert told["fault"].startswith("EF_HOST_POLICY_MALFORMED: ")


# ---- what goes first ----


def row(feature: str, spent: int | None, unmeasured: int = 0) -> dict[str, Any]:
    return {"feature": feature, "ns_per_second": spent, "hosts": ["h"], "unmeasured": ["h"] * unmeasured}


def test_run_time_is_of_the_kernel_and_unknown_where_it_does_not_count() -> None:
    assert find(a=[heavy(), heavy()])["hosts"]["a"]["costs"] == {"exec_events": 90_000_000}
    off = measured(programs_ns=900_000_000, counts=False)
    assert find(a=[off, off])["hosts"]["a"]["costs"] == {"exec_events": None}
    lying = heavy()
    lying["end"]["status"]["features"]["exec_events"]["programs"][0]["run_time_ns"] = 1
    assert find(a=[lying, lying])["hosts"]["a"]["costs"] == {"exec_events": 90_000_000}, "the larger of both"


def test_a_clock_that_went_back_gives_no_cost_and_never_less_than_nothing() -> None:
    """Such an observation is refused before; whoever asks for costs alone is held to the same."""
    back = heavy()
    back["end"]["witness"]["boottime_ns"] = back["start"]["witness"]["boottime_ns"] - 1
    back["end"]["status"]["boottime_ns"] = back["start"]["status"]["boottime_ns"]
    inputs = Inputs({"a": {"before": None, "after": back}}, {}, {}, {}, {}, None, {}, [], None)
    assert cost.of_host(Pair("a", None, back, inputs)) == {"exec_events": None}
    assert find(a=[back, back])["hosts"]["a"]["costs"] == {}


def test_the_costliest_goes_first_and_what_is_equal_or_unknown_is_said() -> None:
    found = cost.choice([row("b", 9), row("a", 5)])
    assert (found["feature"], found["hosts"]) == ("b", ["h"])
    assert "9 ns of run time a second" in found["lines"][0] and len(found["lines"]) == 1
    tie = cost.choice([row("a", 5), row("b", 5), row("c", None, 1)])
    assert tie["feature"] == "a" and "a, b cost the same" in tie["lines"][0] and "not measured: c" in tie["lines"][1]
    none = cost.choice([row("c", None, 1)])
    assert none["feature"] is None and "ebpf_fleet_triage_feature" in none["lines"][0]
    assert cost.choice([row("c", None, 1)], "c")["feature"] == "c" and cost.choice([])["feature"] is None
    with pytest.raises(FleetError, match="did you mean 'runqlat'"):
        cost.choice([row("runqlat", 1)], "runqlt")


def test_costs_are_summed_over_hosts_and_only_suspects_have_one() -> None:
    host = {"checks": [{"check": "map_fill", "feature": "b"}], "costs": {"a": 9, "b": 1}}
    whole = {"checks": [{"check": "bpf_cpu", "feature": None}], "costs": {"a": 9, "b": None}}
    assert cost.suspects(host) == ["b"] and cost.suspects(whole) == ["a", "b"]
    found = cost.ranked({"x": host, "y": whole, "z": whole})
    assert [(one["feature"], one["ns_per_second"], one["unmeasured"]) for one in found] == [
        ("a", 18, []), ("b", 1, ["y", "z"])]  # fmt: skip


# ---- how far it reaches ----


def test_the_radius_is_by_kernel_and_version_and_loses_no_host() -> None:
    other = measured()
    other["end"]["status"]["kernel"]["family"] = "5.10"
    first = find(a=[heavy(), heavy()], b=[measured(), measured()], c=[None], d=[other, other], e=[None])
    found = blast.radius(
        first, [{"step": "reduce", "outcome": "did it"}], find(a=[measured()]), {"c": "6.1", "e": "\x1b"}, "t"
    )
    groups = {(one["kernel"], one["version"]): one for one in found["groups"]}
    assert groups["6.1", "1.2.0"]["confirmed"] == ["a"] and groups["6.1", "1.2.0"]["within"] == ["b"]
    assert groups["6.1", "unknown"]["unmeasured"] == ["c"] and groups["5.10", "1.2.0"]["confirmed"] == []
    assert sum(len(one[state]) for one in found["groups"] for state in blast.STATES) == found["hosts"] == 5
    assert groups["6.1", "1.2.0"]["checks"]["feature_cpu"]["worst"] == 90 and found["still_over"] == []
    said = blast.lines(found)
    assert said[0] == "blast radius: 1 of 5 hosts" and said[1].startswith("kernel 6.1, release 1.2.0: 1 of 2: ")
    assert (
        "step reduce: did it" in said
        and said[-1] == "within every limit now"
        and all(one.isprintable() for one in said)
    )
    assert blast.radius(first, [], first, {}, "t")["still_over"] == ["a"]
    assert blast.lines(blast.radius(first, [], first, {}, "t"))[-1] == "STILL OVER: 1 hosts"
    assert blast.radius(first, [], None, {}, "t")["still_over"] is None
