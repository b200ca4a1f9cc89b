# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages and batches of a rollout."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan import PlanError, plan


def host(name: str, cell: str = "c1", region: str = "r1", stratum: str = "k6", **more: Any) -> dict[str, Any]:
    return {"name": name, "cell": cell, "region": region, "stratum": stratum, **more}


FLEET = [
    host("a1", "c1", "r1", "k6"),
    host("a2", "c1", "r1", "k5"),
    host("a3", "c1", "r1", "k6"),
    host("b1", "c2", "r1", "k6"),
    host("b2", "c2", "r1", "k5"),
    host("b3", "c2", "r1", "k6"),
    # The only one of its stratum, for which the inventory vouches.
    host("z1", "c3", "r2", "k7", expected="k7"),
    host("z2", "c3", "r2", "k6"),
]


def stages_of(found: dict[str, Any]) -> dict[str, list[str]]:
    return {stage["name"]: stage["hosts"] for stage in found["stages"]}


def test_the_default_goes_from_canary_to_fleet() -> None:
    assert stages_of(plan(FLEET)) == {
        "canary": ["a1", "a2", "z1"],  # one of each stratum
        "cell": ["a3"],  # the rest of the first canary's cell
        "region": ["b1", "b2"],  # half of the rest of its region, mixed
        "fleet": ["b3", "z2"],
    }


def test_every_host_is_in_exactly_one_stage_and_serial_adds_up() -> None:
    found = plan(FLEET, max_batch=2)
    assert sorted(found["hosts"]) == sorted(one["name"] for one in FLEET)
    assert sum(found["serial"]) == len(FLEET)
    assert max(found["serial"]) == 2
    assert found["left"] == []
    flat = itertools.chain.from_iterable(batch["hosts"] for batch in found["batches"])
    assert list(flat) == found["hosts"]
    assert [batch["number"] for batch in found["batches"]] == list(range(1, len(found["serial"]) + 1))


def test_a_batch_never_spans_two_stages() -> None:
    found = plan(FLEET, max_batch=2)
    stage_of = {name: stage["name"] for stage in found["stages"] for name in stage["hosts"]}
    for batch in found["batches"]:
        assert {stage_of[name] for name in batch["hosts"]} == {batch["stage"]}


def test_the_order_of_the_input_does_not_matter() -> None:
    assert plan(FLEET) == plan(FLEET[::-1]) == plan(FLEET[3:] + FLEET[:3])


def test_priority_goes_first() -> None:
    fleet = [*FLEET, host("y9", "c2", "r1", "k6", priority=1)]
    found = plan(fleet)
    assert stages_of(found)["canary"][0] == "y9"
    assert stages_of(found)["cell"] == ["b1", "b2", "b3"]


def test_a_count_of_canaries_is_mixed() -> None:
    found = plan(FLEET, [{"stage": "canary", "count": 2}, {"stage": "fleet"}])
    assert stages_of(found)["canary"] == ["a2", "a1"]


def test_canaries_of_one_cell() -> None:
    found = plan(FLEET, [{"stage": "canary", "cell": "c2"}, {"stage": "fleet"}])
    assert stages_of(found)["canary"] == ["b1", "b2"]


@pytest.mark.parametrize(("percent", "size"), [(1, 1), (50, 2), (51, 3), (100, 4)])
def test_percent_is_rounded_up(percent: int, size: int) -> None:
    stages = [{"stage": "canary"}, {"stage": "region", "percent": percent}, {"stage": "fleet"}]
    assert len(stages_of(plan(FLEET, stages))["region"]) == size


def test_own_batch_size_of_a_stage() -> None:
    found = plan(FLEET, [{"stage": "canary", "max_batch": 1}, {"stage": "fleet"}], max_batch=4)
    assert found["serial"] == [1, 1, 1, 4, 1]


def test_a_stage_without_hosts_is_dropped_and_said() -> None:
    found = plan([host("only", expected="k6")])
    assert list(stages_of(found)) == ["canary"]
    assert any("cell is dropped" in note for note in found["notes"])
    assert found["serial"] == [1]


def test_until_stops_and_names_who_is_left() -> None:
    found = plan(FLEET, until="cell")
    assert list(stages_of(found)) == ["canary", "cell"]
    assert found["left"] == ["b1", "b2", "b3", "z2"]
    assert "4 hosts are in no stage" in found["notes"]


def test_until_a_dropped_stage_ends_there() -> None:
    found = plan([host("a", "c1"), host("b", "c2")], until="cell")
    assert found["hosts"] == ["a"]


def test_several_cells_with_names() -> None:
    stages = [{"stage": "canary"}, {"stage": "cell"}, {"stage": "cell", "cell": "c2", "name": "c2"}, {"stage": "fleet"}]
    assert stages_of(plan(FLEET, stages))["c2"] == ["b1", "b2", "b3"]


def test_partial_leaves_hosts_out_on_purpose() -> None:
    found = plan(FLEET, [{"stage": "canary"}], partial=True)
    assert len(found["left"]) == 5


@pytest.mark.parametrize(
    ("hosts", "stages", "more", "message"),
    [
        ([], None, {}, "hosts: the list is empty"),
        (None, None, {}, "hosts: the list is empty"),
        ([{}], None, {}, r"hosts\[0\]: has no name"),
        ([{"name": "a", "region": "r", "stratum": "s"}], None, {}, "host a: cell is missing; set ebpf_fleet_cell"),
        ([host("a", region="")], None, {}, "host a: region is missing"),
        ([host("a"), host("a")], None, {}, "a named more than once"),
        ([host("a", priority="high")], None, {}, "host a: priority: is 'high'"),
        (FLEET, [], {}, "stages: the list is empty"),
        (FLEET, [{}], {}, r"stages\[0\]: has no `stage`"),
        (FLEET, [{"stage": "canry"}], {}, "did you mean canary"),
        (FLEET, [{"stage": "canary", "precent": 5}], {}, "unknown 'precent'"),
        (FLEET, [{"stage": "canary", "percent": 5}], {}, "unknown 'percent'"),
        (FLEET, [{"stage": "region", "percent": 0}, {"stage": "fleet"}], {}, "percent: is 0"),
        (FLEET, [{"stage": "region", "percent": 101}, {"stage": "fleet"}], {}, "percent: is 101"),
        (FLEET, [{"stage": "region", "percent": True}, {"stage": "fleet"}], {}, "percent: is True"),
        (FLEET, [{"stage": "canary", "count": 0}, {"stage": "fleet"}], {}, "count: is 0"),
        (FLEET, [{"stage": "canary", "count": 1, "per_stratum": 1}, {"stage": "fleet"}], {}, "not both"),
        (FLEET, [{"stage": "cell", "cell": "c9"}, {"stage": "fleet"}], {}, "no host is in cell 'c9'; there are c1, c2"),
        (FLEET, [{"stage": "region", "region": "r9"}, {"stage": "fleet"}], {}, "no host is in region 'r9'"),
        (FLEET, [{"stage": "cell"}, {"stage": "canary"}, {"stage": "fleet"}], {}, "canary after cell"),
        (FLEET, [{"stage": "fleet"}, {"stage": "fleet"}], {}, "stages: fleet more than once; one is enough"),
        (FLEET, [{"stage": "fleet"}, {"stage": "fleet", "name": "x"}], {}, "stages: fleet more than once; one"),
        (FLEET, [{"stage": "canary"}, {"stage": "canary", "name": "x"}, {"stage": "fleet"}], {},
         "stages: canary more than once; one is enough"),
        (FLEET, [{"stage": "fleet"}, {"stage": "alone"}, {"stage": "alone", "name": "x"}], {},
         "stages: alone more than once; one is enough"),
        (FLEET, [{"stage": "cell"}, {"stage": "cell"}, {"stage": "fleet"}], {}, "name cell more than once"),
        (FLEET, [{"stage": "canary"}], {}, "the last is not fleet"),
        (FLEET, [{"stage": "fleet"}, {"stage": "alone", "count": 1}], {}, "unknown 'count'"),
        (FLEET, [{"stage": "alone"}, {"stage": "fleet"}], {}, "fleet after alone"),
        (FLEET, [{"stage": "cell", "name": "alone"}, {"stage": "fleet"}], {}, "alone is the stage of hosts that"),
        ([host("a", expected=7)], None, {}, "host a: expected is not text"),
        (FLEET, None, {"max_batch": 0}, "max_batch: is 0"),
        (FLEET, None, {"until": "regoin"}, "did you mean region"),
    ],
)  # fmt: skip
def test_impossible_plans_are_refused(hosts: Any, stages: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(hosts, stages, **more)


def test_a_thousand_hosts_are_planned_at_once() -> None:
    fleet = [host(f"h{i:04}", f"c{i % 20}", f"r{i % 4}", f"k{i % 5}") for i in range(1000)]
    found = plan(fleet, max_batch=50)
    assert sum(found["serial"]) == 1000
    assert stages_of(found)["canary"] == ["h0000", "h0001", "h0002", "h0003", "h0004"]


class Counted(str):
    """Text that counts how often it is hashed or compared: the work of a plan, whatever the machine."""

    work = 0

    def __hash__(self) -> int:
        Counted.work += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.work += 1
        return str.__eq__(self, other)

    def __lt__(self, other: str) -> bool:
        Counted.work += 1
        return str.__lt__(self, other)


def work_of(count: int, stratum: str) -> int:
    fleet = [
        host(
            Counted(f"h{i:05}"), f"c{i % 20}", f"r{i % 4}", Counted(stratum.format(i % 5 if "shared" in stratum else i))
        )
        for i in range(count)
    ]
    Counted.work = 0
    assert len(plan(fleet, [{"stage": "canary"}, {"stage": "region"}, {"stage": "fleet"}], 50)["hosts"]) == count
    return Counted.work


@pytest.mark.parametrize("stratum", ["shared{}", "own{}"])
def test_the_work_of_a_plan_grows_with_the_fleet_and_not_with_its_square(stratum: str) -> None:
    small, large = work_of(400, stratum), work_of(3_200, stratum)
    # Eight times the hosts: sorting has a logarithm more, a square would be sixty-four times the work.
    assert small > 400 and large < 14 * small


def test_each_host_finds_its_batch_without_a_search() -> None:
    found = plan(FLEET, max_batch=2)
    assert sorted(found["batch_of"]) == sorted(found["hosts"])
    assert all(name in found["batches"][number - 1]["hosts"] for name, number in found["batch_of"].items())


@pytest.mark.parametrize("field", ["cell", "region"])
@pytest.mark.parametrize("value", [None, ""])
def test_all_hosts_without_a_place_are_told_at_once_with_the_variable(field: str, value: Any) -> None:
    fleet = [{**host(f"h{i:03}"), **({field: value} if i % 2 else {})} for i in range(100)]
    with pytest.raises(PlanError) as caught:
        plan(fleet)
    named = ", ".join(f"h{i:03}" for i in range(1, 80, 2))
    assert str(caught.value) == (
        f"50 hosts ({named} and 10 more): {field} is missing; set ebpf_fleet_{field} in the inventory"
    )


def test_hosts_that_lack_different_things_are_told_of_each() -> None:
    fleet = [*FLEET, host("x1", cell=""), host("x2", region=""), host("x3", cell="", region="")]
    with pytest.raises(PlanError) as caught:
        plan(fleet)
    assert str(caught.value) == (
        "2 hosts (x1, x3): cell is missing; set ebpf_fleet_cell in the inventory; "
        "2 hosts (x2, x3): region is missing; set ebpf_fleet_region in the inventory"
    )


@pytest.mark.parametrize(
    ("stages", "more"),
    [
        ([{"stage": "canary", "count": "2"}, {"stage": "fleet"}], {}),
        ([{"stage": "canary", "per_stratum": "1"}, {"stage": "fleet"}], {"max_batch": "2"}),
        ([{"stage": "canary"}, {"stage": "region", "percent": "40", "max_batch": "1"}, {"stage": "fleet"}], {}),
    ],
)
def test_numbers_as_text_are_the_numbers(stages: Any, more: dict[str, Any]) -> None:
    def as_numbers(one: Any) -> Any:
        return {key: int(value) if str(value).isdigit() else value for key, value in one.items()}

    assert plan(FLEET, stages, **more) == plan(FLEET, [as_numbers(one) for one in stages], **as_numbers(more))


def test_a_cell_that_is_a_number_is_its_digits_and_a_truth_value_is_refused_with_the_remedy() -> None:
    fleet = [host("a1", cell=12), host("a2", cell="12"), host("a3", cell="c1")]  # type: ignore[arg-type]
    assert stages_of(plan(fleet, [{"stage": "cell", "cell": 12}], partial=True)) == {"cell": ["a1", "a2"]}
    with pytest.raises(PlanError, match=r"host n1: region: is False \(a truth value\); .*quote it"):
        plan([*FLEET, host("n1", region=False)])  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"host n1: cell: is 1.1 \(a number\); .*quote it"):
        plan([*FLEET, host("n1", cell=1.10)])  # type: ignore[arg-type]


HONEST = [host(f"h{i:03}", stratum=f"6.{i % 3}/x86_64/debian") for i in range(60)]


def liars(count: int) -> list[dict[str, Any]]:
    """Hosts of which each claims a stratum of its own, with names and cells that come first."""
    return [host(f"a{i:02}", cell="a0", stratum=f"9.{i}/x86_64/evil") for i in range(count)]


def test_thirty_hosts_with_strata_of_their_own_do_not_become_canaries() -> None:
    found = plan(HONEST + liars(30))
    stages = stages_of(found)
    assert stages["canary"] == ["h000", "h001", "h002"]
    assert "a0" not in {one["cell"] for one in HONEST} and not any(name < "h" for name in stages["cell"])
    assert list(stages)[-1] == "alone" and stages["alone"] == [one["name"] for one in liars(30)]
    assert [len(batch["hosts"]) for batch in found["batches"] if batch["stage"] == "alone"] == [5] * 6
    (line,) = [one for one in found["sentences"] if one.startswith("30 hosts claim a stratum that no other host has")]
    assert all(f"{one['name']} ({one['stratum']})" in line for one in liars(30))
    assert [one["kind"] for one in found["doubts"]] == ["alone"] * 30
    assert sorted(found["hosts"]) == sorted(one["name"] for one in HONEST + liars(30))


def test_a_claim_of_its_own_changes_nothing_for_the_others() -> None:
    without, beside = plan(HONEST), plan(HONEST + liars(7))
    assert [one for one in beside["stages"] if one["name"] != "alone"] == without["stages"]


def test_a_genuine_host_of_a_rare_kernel_meets_the_release_last_and_with_few() -> None:
    rare = host("rare", stratum="7.9/riscv64/debian")
    found = plan([*HONEST, rare])
    assert found["batches"][-1]["hosts"] == ["rare"] and found["batches"][-1]["stage"] == "alone"
    vouched = plan([*HONEST, {**rare, "expected": "7.9/*/debian"}])
    assert "rare" in stages_of(vouched)["canary"] and vouched["doubts"] == []


def test_a_host_that_contradicts_the_inventory_is_named_with_both_and_comes_last() -> None:
    fleet = [{**one, "expected": "*/x86_64/debian"} for one in HONEST]
    fleet[0] = {**fleet[0], "expected": "5.10/x86_64/debian"}
    found = plan(fleet)
    assert stages_of(found)["alone"] == ["h000"] and stages_of(found)["canary"] == ["h001", "h002", "h003"]
    assert any("h000 (6.0/x86_64/debian, not 5.10/x86_64/debian)" in line for line in found["sentences"])
    assert found["doubts"] == [
        {"kind": "disputed", "host": "h000", "claims": "6.0/x86_64/debian", "against": "5.10/x86_64/debian"}
    ]


def test_a_disputed_claim_gives_no_company_to_a_host_that_stands_alone() -> None:
    fleet = [*HONEST, host("x1", stratum="9.9/x86_64/evil"), host("x2", stratum="9.9/x86_64/evil", expected="6.1/*/*")]
    assert stages_of(plan(fleet))["alone"] == ["x1", "x2"]


def test_a_host_that_left_its_stratum_of_the_last_census_is_named_and_its_canary_only_where_all_did() -> None:
    fleet = [dict(one) for one in HONEST]
    fleet[0]["before"] = "5.10/x86_64/debian"
    found = plan(fleet)
    assert stages_of(found)["canary"] == ["h001", "h002", "h003"]
    assert any("1 host claims" in line and "h000 (6.0/x86_64/debian, not 5.10" in line for line in found["sentences"])
    upgraded = plan([{**one, "before": "5.10/x86_64/debian"} for one in HONEST])
    assert stages_of(upgraded)["canary"] == ["h000", "h001", "h002"] and len(upgraded["doubts"]) == 60


def test_canaries_come_a_few_at_a_time_unless_the_operator_says_otherwise() -> None:
    fleet = [host(f"h{i:03}", stratum=f"k{i % 12}") for i in range(48)]
    assert plan(fleet)["serial"][:3] == [5, 5, 2]
    assert plan(fleet, max_batch=3)["serial"][:4] == [3, 3, 3, 3]
    assert plan(fleet, [{"stage": "canary", "max_batch": 12}, {"stage": "fleet"}])["serial"] == [12, 36]


def test_where_each_host_stands_alone_there_is_no_canary_and_an_end_at_it_is_refused_with_the_remedy() -> None:
    fleet = liars(7)
    assert [(one["name"], len(one["hosts"])) for one in plan(fleet)["stages"]] == [("alone", 7)]
    with pytest.raises(PlanError, match=r"no host is in a stage up to canary; 7 hosts .* ebpf_fleet_expected_stratum"):
        plan(fleet, until="canary")


def test_many_doubts_are_counted_and_the_first_named() -> None:
    (line,) = [one for one in plan(HONEST + liars(200))["sentences"] if "no other host has" in one]
    assert "and 160 more" in line and len(line) < 3000


def test_a_claim_paints_nothing() -> None:
    found = plan([*HONEST, host("x", stratum="\x1b[2J\u202e")])
    assert all(line.isprintable() for line in found["sentences"])
