# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages and batches of a rollout."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan import PlanError, Wishes
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan import plan as plan_of
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_holdback import Holdback, read_holdback
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.timing import BAKES

ROOT = Path(__file__).resolve().parents[2]


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


def plan(hosts: Any, stages: Any = None, max_batch: Any = None, **more: Any) -> dict[str, Any]:
    return plan_of(hosts, Wishes(stages, max_batch, **more))


# As without shares: what else makes the batches is tested by itself.
WHOLE = {"fleet_percent": 100, "cell_percent": 100, "growth": 1000}


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
    found = plan(FLEET, max_batch=2, **WHOLE)
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
    assert stages_of(found)["canary"] == ["a1", "a2"]


def test_canaries_of_one_cell() -> None:
    found = plan(FLEET, [{"stage": "canary", "cell": "c2"}, {"stage": "fleet"}])
    assert stages_of(found)["canary"] == ["b1", "b2"]


@pytest.mark.parametrize(("percent", "size"), [(1, 1), (50, 2), (51, 3), (100, 4)])
def test_percent_is_rounded_up(percent: int, size: int) -> None:
    stages = [{"stage": "canary"}, {"stage": "region", "percent": percent}, {"stage": "fleet"}]
    assert len(stages_of(plan(FLEET, stages))["region"]) == size


def test_own_batch_size_of_a_stage() -> None:
    found = plan(FLEET, [{"stage": "canary", "max_batch": 1}, {"stage": "fleet"}], max_batch=4, **WHOLE)
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
    assert "4 hosts in no stage" in found["notes"]


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
        (FLEET, [{"stage": "fleet", "name": 5}], {}, r"stages\[0\].name: 5 must be of letters"),
        (FLEET, [{"stage": "fleet", "name": "a b"}], {}, r"stages\[0\].name: 'a b' must be of letters"),
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


def work_of(count: int, stratum: str, cells: int = 20) -> int:
    fleet = [
        host(
            Counted(f"h{i:05}"),
            Counted(f"c{i % cells}"),
            f"r{i % 4}",
            Counted(stratum.format(i % 5 if "shared" in stratum else i)),
        )
        for i in range(count)
    ]
    Counted.work = 0
    assert len(plan(fleet, [{"stage": "canary"}, {"stage": "region"}, {"stage": "fleet"}], 50)["hosts"]) == count
    return Counted.work


@pytest.mark.parametrize("stratum", ["shared{}", "own{}"])
@pytest.mark.parametrize("cells", [1, 20, 100_000])
def test_the_work_of_a_plan_grows_with_the_fleet_and_not_with_its_square(stratum: str, cells: int) -> None:
    small, large = work_of(400, stratum, cells), work_of(3_200, stratum, cells)
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
    assert stages_of(found)["canary"] == ["h003", "h001", "h002"]
    assert any("1 host claims" in line and "h000 (6.0/x86_64/debian, not 5.10" in line for line in found["sentences"])
    upgraded = plan([{**one, "before": "5.10/x86_64/debian"} for one in HONEST])
    assert stages_of(upgraded)["canary"] == ["h000", "h001", "h002"] and len(upgraded["doubts"]) == 60


def test_canaries_come_a_few_at_a_time_unless_the_operator_says_otherwise() -> None:
    fleet = [host(f"h{i:03}", stratum=f"k{i % 12}") for i in range(48)]
    assert plan(fleet, **WHOLE)["serial"][:3] == [5, 5, 2]
    assert plan(fleet)["serial"][:3] == [4, 4, 4], "nor above their share of the fleet"
    assert plan(fleet, max_batch=3, **WHOLE)["serial"][:4] == [3, 3, 3, 3]
    assert plan(fleet, [{"stage": "canary", "max_batch": 12}, {"stage": "fleet"}], **WHOLE)["serial"] == [12, 36]


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


# --- waves ---------------------------------------------------------------------------------------


def random_fleet(seed: int) -> list[dict[str, Any]]:
    """A fleet of 1 to 400 hosts, of cells and strata of every size, with claims that are taken and that are not."""
    chance = random.Random(seed)
    cells, strata = chance.randint(1, 30), chance.randint(1, 20)
    return [
        host(
            f"h{index:03}",
            f"c{int(chance.random() ** 2 * cells)}",
            f"r{chance.randint(0, 3)}",
            f"k{int(chance.random() ** 3 * strata)}",
            priority=chance.choice([100, 100, 100, 5]),
            expected=chance.choice(["", "", "k0", "*"]),
            before=chance.choice(["", "", "k9"]),
        )
        for index in range(chance.choice([1, 2, 3, 4, 9, 10, 11, 19, 20, 21, 40, 100, 400]))
    ]


def above_shares(found: dict[str, Any], fleet: list[dict[str, Any]], percent: int, of_cell: int) -> list[str]:
    """Batches with more hosts than a share of the fleet or of a cell; a share of less than one host is one host."""
    cells = Counter(one["cell"] for one in fleet)
    cell_of = {one["name"]: one["cell"] for one in fleet}
    wrong = []
    for batch in found["batches"]:
        used = Counter(cell_of[name] for name in batch["hosts"])
        if len(batch["hosts"]) > 1 and len(batch["hosts"]) * 100 > len(fleet) * percent:
            wrong.append(f"batch {batch['number']} has {len(batch['hosts'])} of {len(fleet)}")
        wrong += [f"{batch['number']}: {count} of {cells[cell]} of {cell}" for cell, count in used.items()
                  if count > 1 and count * 100 > cells[cell] * of_cell]  # fmt: skip
    return wrong


@pytest.mark.parametrize("seed", range(150))
def test_no_default_plan_has_a_batch_above_its_shares_or_grows_faster(seed: int) -> None:
    fleet = random_fleet(seed)
    found = plan(fleet)
    assert above_shares(found, fleet, 10, 25) == []
    assert sorted(found["hosts"]) == sorted(one["name"] for one in fleet)
    assert sum(found["serial"]) == len(fleet) and min(found["serial"]) >= 1
    largest = 0
    kinds = {stage["name"]: stage["type"] for stage in found["stages"]}
    for batch in found["batches"]:
        small = kinds[batch["stage"]] in ("canary", "alone")
        assert len(batch["hosts"]) <= (5 if small else 2 * (largest or 5)), batch["number"]
        largest = max(largest, len(batch["hosts"]))


@pytest.mark.parametrize("seed", range(150))
def test_every_stratum_has_met_its_canary_before_a_second_host_of_it_is_changed(seed: int) -> None:
    fleet = random_fleet(seed)
    stratum_of = {one["name"]: one["stratum"] for one in fleet}
    stages = [{"stage": "canary", "per_stratum": 1 + seed % 3}, {"stage": "cell"}, {"stage": "region"}]
    found = plan(fleet, [*stages, {"stage": "fleet"}])
    aside = {one["host"] for one in found["doubts"] if one["kind"] != "changed"}
    met: set[str] = set()
    for batch in found["batches"]:
        claims = Counter(stratum_of[name] for name in batch["hosts"] if name not in aside)
        assert all(count == 1 for stratum, count in claims.items() if stratum not in met), batch
        met |= set(claims)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(("percent", "of_cell", "growth"), [(1, 100, 1), (33, 7, 1.5), (100, 1, 1000), (50, 50, 3)])
def test_other_shares_hold_too(seed: int, percent: int, of_cell: int, growth: float) -> None:
    fleet = random_fleet(seed)
    found = plan(fleet, fleet_percent=percent, cell_percent=of_cell, growth=growth)
    assert above_shares(found, fleet, percent, of_cell) == []
    assert sorted(found["hosts"]) == sorted(one["name"] for one in fleet)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_hosts_in_any_sequence_give_the_same_plan(seed: int) -> None:
    fleet = random_fleet(seed)
    held = Holdback(20, "2027-01-01", "2026-12-01")
    mixed = random.Random(seed + 1).sample(fleet, len(fleet))
    assert json.dumps(plan(mixed, holdback=held)) == json.dumps(plan(fleet, holdback=held))


def test_another_process_with_other_hashes_makes_the_same_plan() -> None:
    script = "import sys; sys.path[:0] = ['.', 'collections']\nfrom tests.unit import test_plan as t\n" \
             "print(t.json.dumps(t.plan(t.random_fleet(7), holdback=t.HELD)))"  # fmt: skip
    made = {
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("0", "1")
    }  # fmt: skip
    assert len(made) == 1 and json.loads(made.pop()) == plan(random_fleet(7), holdback=HELD)


@pytest.mark.parametrize(("hosts", "size"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3)])
def test_a_share_is_rounded_down_and_one_host_at_least(hosts: int, size: int) -> None:
    fleet = [host(f"h{index:02}", f"c{index}") for index in range(hosts)]
    stages = [{"stage": "fleet"}]
    assert plan(fleet, stages, growth=1000)["serial"][0] == size if hosts > 1 else True
    assert max(plan(fleet, growth=1000)["serial"]) == size


@pytest.mark.parametrize(("hosts", "size"), [(3, 1), (4, 1), (7, 1), (8, 2), (11, 2), (12, 3)])
def test_a_cell_is_changed_a_quarter_at_a_time(hosts: int, size: int) -> None:
    fleet = [host(f"h{index:02}") for index in range(hosts)]
    assert max(plan(fleet, fleet_percent=100)["serial"]) == size


PAGE = (ROOT / "docs/rollout.md").read_text(encoding="utf-8")


def test_the_pages_example_of_stages_and_its_figures_are_so() -> None:
    (example,) = re.findall(r"^```yaml\n(ebpf_fleet_stages:.*?)^```", PAGE, re.M | re.S)
    assert [stage["bake"] for stage in plan(MANY, yaml.safe_load(example)["ebpf_fleet_stages"])["stages"]] == [
        3600, 900, 30]  # fmt: skip
    fleet = [host(f"h{i:05}", f"c{i % 100}", f"r{i % 10}", f"k{i % 40}") for i in range(50_000)]
    told = {one["name"]: [len(batch) for batch in one["batches"]] for one in plan(fleet)["stages"]}
    assert told.pop("canary") == [5] * 8 and told["fleet"][:4] == [2000, 4000, 5000, 5000]
    flat = " ".join(PAGE.split())
    assert "canaries 8 times 5" in flat and "the fleet 2000, 4000, then 5000 at a time" in flat
    assert f"their cell {', '.join(map(str, told['cell']))}; the region {', '.join(map(str, told['region']))};" in flat


def test_the_page_has_the_bakes_of_the_stages() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| .* \| (\d+) s \|$", PAGE, re.M)) == {
        name: str(seconds) for name, seconds in BAKES.items()}  # fmt: skip


def test_strata_with_most_hosts_behind_them_meet_a_canary_first() -> None:
    sizes = {"few": 2, "most": 40, "many": 9, "also": 9, "four": 4}
    fleet = [host(f"{stratum}{index}", stratum=stratum) for stratum, count in sizes.items() for index in range(count)]
    assert stages_of(plan(fleet))["canary"] == ["most0", "also0", "many0", "four0", "few0"]
    first = plan([*fleet, host("urgent1", stratum="few", priority=1)])
    assert stages_of(first)["canary"][0] == "urgent1", "but the operator's own word on a host comes before"


def test_canaries_of_forty_strata_come_in_single_digits() -> None:
    fleet = [host(f"h{index:03}", f"c{index % 20}", stratum=f"k{index % 40:02}") for index in range(800)]
    found = plan(fleet)
    canaries = [len(batch["hosts"]) for batch in found["batches"] if batch["stage"] == "canary"]
    assert canaries == [5] * 8


def test_a_second_canary_waits_until_the_first_of_its_stratum_was_judged() -> None:
    fleet = [host(f"h{index}", f"c{index}", stratum=f"k{index % 2}") for index in range(8)]
    found = plan(fleet, [{"stage": "canary", "per_stratum": 2}, {"stage": "fleet"}], fleet_percent=100)
    assert found["stages"][0]["batches"] == [["h0", "h1"], ["h2", "h3"]]


@pytest.mark.parametrize(
    ("growth", "sizes"),
    [(None, [1, 2, 4, 8, 15]), (1, [1] * 30), (3, [1, 3, 9, 17]), (1.5, [1, 2, 3, 5, 8, 11]), ("1.1", [1, 2, 3, 4, 5]),
     (1000, [1, 29])],
)  # fmt: skip
def test_waves_grow_by_the_factor_rounded_up(growth: Any, sizes: list[int]) -> None:
    fleet = [host(f"h{index:02}") for index in range(30)]
    assert plan(fleet, fleet_percent=100, cell_percent=100, growth=growth)["serial"][: len(sizes)] == sizes


def test_without_a_batch_before_it_a_wave_is_the_factor_times_a_small_batch() -> None:
    fleet = [host(f"h{index:02}") for index in range(60)]
    whole = {"fleet_percent": 100, "cell_percent": 100}
    assert plan(fleet, [{"stage": "fleet"}], **whole)["serial"] == [10, 20, 30]
    assert plan(fleet, [{"stage": "fleet"}], growth=1, **whole)["serial"] == [5] * 12


def test_growth_goes_on_over_stages_and_from_the_largest_batch() -> None:
    fleet = [host(f"a{index}", "c1") for index in range(9)] + [host(f"b{index:02}", "c2") for index in range(31)]
    found = plan(fleet, [{"stage": "canary"}, {"stage": "cell"}, {"stage": "fleet"}], fleet_percent=100)
    # 9 hosts of a cell: 2 at once; then 4, and 31 hosts of a cell: 7.
    assert [(one["name"], [len(batch) for batch in one["batches"]]) for one in found["stages"]] == [
        ("canary", [1]), ("cell", [2, 2, 2, 2]), ("fleet", [4, 7, 7, 7, 6])]  # fmt: skip


def test_a_stages_own_word_is_for_that_stage() -> None:
    fleet = [host(f"h{index:02}", f"c{index % 2}") for index in range(40)]
    stages = [{"stage": "canary"}, {"stage": "cell", "cell_percent": "50", "fleet_percent": 100, "growth": 100},
              {"stage": "fleet", "max_batch": 3}]  # fmt: skip
    found = plan(fleet, stages)
    assert found["serial"] == [1, 10, 9, *[3] * 6, 2]
    assert plan(fleet, stages, max_batch=2)["serial"][:4] == [1, 2, 2, 2], (
        "what is for all bounds a stage that is silent"
    )


def test_a_bound_never_makes_a_batch_larger_than_its_share() -> None:
    fleet = [host(f"h{index:02}", f"c{index % 10}") for index in range(40)]
    assert max(plan(fleet, [{"stage": "canary", "max_batch": 40}, {"stage": "fleet", "max_batch": 40}])["serial"]) == 4
    assert max(plan(fleet, max_batch=40)["serial"]) == 4


def test_hosts_of_a_full_cell_wait_and_keep_their_sequence() -> None:
    fleet = [host(f"a{index}", "c1") for index in range(4)] + [host(f"b{index}", "c2") for index in range(4)]
    found = plan(fleet, [{"stage": "fleet"}], fleet_percent=100)
    assert [batch["hosts"] for batch in found["batches"]] == [["a0", "b0"], ["a1", "b1"], ["a2", "b2"], ["a3", "b3"]]
    assert found["hosts"] == stages_of(found)["fleet"] == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]


# --- bake ----------------------------------------------------------------------------------------


def bakes(found: dict[str, Any]) -> dict[str, int]:
    assert all(batch["bake"] == stage["bake"] for stage in found["stages"] for batch in found["batches"]
               if batch["stage"] == stage["name"])  # fmt: skip
    return {stage["name"]: stage["bake"] for stage in found["stages"]}


def test_bake_is_longer_early_a_stages_own_word_counts_and_the_fleets_is_for_all() -> None:
    fleet = [*FLEET, host("x", stratum="rare")]
    assert bakes(plan(fleet)) == {"canary": 120, "cell": 60, "region": 60, "fleet": 30, "alone": 120}
    own = [{"stage": "canary", "bake": "3600"}, {"stage": "cell", "bake": 0}, {"stage": "fleet"}]
    assert bakes(plan(fleet, own)) == {"canary": 3600, "cell": 0, "fleet": 30, "alone": 120}
    assert set(bakes(plan(fleet, own, bake=7)).values()) == {7}
    assert set(bakes(plan(fleet, own, bake="0")).values()) == {0}


# --- what is said --------------------------------------------------------------------------------


def test_two_hundred_batches_do_not_fill_the_screen() -> None:
    fleet = [host(f"h{index:04}", f"c{index % 40}", stratum=f"k{index % 6}") for index in range(1000)]
    found = plan(fleet, max_batch=5)
    assert len(found["serial"]) > 200
    assert all(len(line) < 200 for line in found["sentences"]) and len(found["sentences"]) < 8
    assert found["sentences"][0] == (
        f"1000 hosts in {len(found['serial'])} batches, 5 at once at most; "
        "shares: 10 % of the fleet and 25 % of each cell"
    )
    assert found["sentences"][1] == (
        "canary: 6 hosts in batches of 5, 1: h0000, h0001, h0002, h0003, h0004, …; 120 s of bake"
    )
    assert any(line.startswith("fleet: ") and "in batches of 5 (" in line and " times)" in line
               for line in found["sentences"])  # fmt: skip


# --- hosts that do not take part ------------------------------------------------------------------


def out(name: str, reason: str = "maintenance", why: str = "new disks") -> dict[str, str]:
    return {"host": name, "reason": reason, "why": why}


def test_each_host_that_is_left_out_is_in_the_document_and_in_a_sentence_with_its_reason() -> None:
    gone = [out("m1"), out("m2"), out("d1", "disabled", "no variant")]
    found = plan(FLEET, left_out=gone)
    assert found["left_out"] == gone
    assert "left out, maintenance: 2 hosts (m1, m2): new disks" in found["sentences"]
    assert "left out, disabled: host d1: no variant" in found["sentences"]
    assert not {"m1", "m2", "d1"} & {*found["hosts"], *found["left"]}
    assert plan(FLEET)["left_out"] == []


def test_no_host_that_is_left_is_never_all() -> None:
    with pytest.raises(PlanError, match="hosts: every one is left out; left out, maintenance: host m1: new disks"):
        plan([], left_out=[out("m1")])


HELD = Holdback(10, "2027-01-31", "2027-01-31")
MANY = [host(f"h{index:03}", f"c{index % 5}", stratum=f"k{index % 3}") for index in range(90)]


def test_a_holdback_keeps_a_share_of_every_stratum_and_is_named() -> None:
    found = plan(MANY, holdback=HELD)
    held = found["holdback"]["hosts"]
    assert found["holdback"] == {"percent": 10, "until": "2027-01-31", "hosts": sorted(held)} and len(held) == 9
    assert Counter(one["stratum"] for one in MANY if one["name"] in held) == {"k0": 3, "k1": 3, "k2": 3}
    assert not set(held) & set(found["hosts"]) and len(found["hosts"]) == 81 and found["left"] == []
    named = ", ".join(sorted(held))
    sentence = f"held back until 2027-01-31 on the release that they have, 10 % of the hosts: 9 hosts ({named})"
    assert sentence in found["sentences"]
    assert max(found["serial"]) == 8, "a share is of the hosts that may change"


def test_what_rounding_takes_from_strata_is_held_of_those_that_lost_most() -> None:
    sizes = {"five": 5, "seven": 7, "eight": 8}
    fleet = [host(f"{stratum}{index}", stratum=stratum) for stratum, count in sizes.items() for index in range(count)]
    held = plan(fleet, holdback=HELD)["holdback"]["hosts"]
    # 10 % of 20 are two, and of each stratum less than one.
    assert sorted(name[:-1] for name in held) == ["eight", "seven"]
    assert sorted(name[:-1] for name in plan(fleet, holdback=HELD._replace(percent=50))["holdback"]["hosts"]) == [
        *["eight"] * 4, *["five"] * 3, *["seven"] * 3]  # fmt: skip


def test_the_same_hosts_are_held_from_one_rollout_to_the_next() -> None:
    held = set(plan(MANY, holdback=HELD)["holdback"]["hosts"])
    again = set(
        plan([one for one in MANY if one["name"] in held or one["name"] > "h010"], holdback=HELD)["holdback"]["hosts"]
    )
    assert again <= held
    assert held != {one["name"] for one in MANY[:9]}, "which have nothing to do with the sequence of names"


def test_a_cell_of_which_all_hosts_are_held_back_is_there_and_has_no_host_to_change() -> None:
    fleet = [host(f"h{index}", f"c{index}") for index in range(10)]
    (held,) = plan(fleet, holdback=HELD)["holdback"]["hosts"]
    found = plan(fleet, [{"stage": "cell", "cell": f"c{held[1:]}"}, {"stage": "fleet"}], holdback=HELD)
    assert list(stages_of(found)) == ["fleet"] and "stage cell is dropped: no host is left for it" in found["notes"]


def test_a_host_that_is_to_go_early_is_not_held() -> None:
    held = plan(MANY, holdback=HELD)["holdback"]["hosts"]
    early = [{**one, "priority": 1} if one["name"] in held else one for one in MANY]
    assert not set(held) & set(plan(early, holdback=HELD)["holdback"]["hosts"])


@pytest.mark.parametrize(
    ("today", "over"), [("2027-01-30", False), ("2027-01-31", False), ("2027-02-01", True), ("2028-01-01", True)]
)
def test_after_its_day_a_holdback_is_over_and_its_hosts_are_in_the_plan(today: str, over: bool) -> None:
    found = plan(MANY, holdback=HELD._replace(today=today))
    assert (len(found["hosts"]) == 90) is over and (found["holdback"]["hosts"] == []) is over
    said = "the holdback of 10 % ended on 2027-01-31: its hosts are in the plan"
    assert (said in found["sentences"]) is over


@pytest.mark.parametrize(
    ("hosts", "percent", "count"),
    [(9, 10, 0), (10, 10, 1), (19, 10, 1), (20, 10, 2), (1, 50, 0), (2, 50, 1), (3, 50, 1), (100, 1, 1), (99, 1, 0)],
)  # fmt: skip
def test_a_holdback_is_rounded_down_and_never_all_of_a_stratum(hosts: int, percent: int, count: int) -> None:
    fleet = [host(f"h{index:03}", expected="k6") for index in range(hosts)]
    found = plan(fleet, holdback=Holdback(percent, "2027-01-31", "2027-01-01"))
    assert len(found["holdback"]["hosts"]) == count
    assert any(line.startswith("held back: no host") for line in found["sentences"]) is (count == 0)


@pytest.mark.parametrize("seed", range(100))
def test_a_holdback_of_any_fleet_is_its_share_and_leaves_each_stratum_a_canary(seed: int) -> None:
    fleet = random_fleet(seed)
    percent = 1 + seed % 50
    found = plan(fleet, holdback=Holdback(percent, "2027-01-31", "2027-01-01"))
    held = set(found["holdback"]["hosts"])
    aside = {one["host"] for one in found["doubts"] if one["kind"] != "changed"}
    sizes = Counter(one["stratum"] for one in fleet if one["name"] not in aside)
    of = Counter(one["stratum"] for one in fleet if one["name"] in held)
    assert not held & aside and len(held) <= sum(sizes.values()) * percent // 100
    assert all(of[stratum] <= -(-count * percent // 100) and of[stratum] < count for stratum, count in sizes.items())
    assert held | set(found["hosts"]) == {one["name"] for one in fleet}


@pytest.mark.parametrize(
    ("percent", "until", "today", "message"),
    [
        (10, None, "2027-01-01", "ebpf_fleet_holdback: is 10 without ebpf_fleet_holdback_until"),
        (51, "2027-01-31", "2027-01-01", "ebpf_fleet_holdback: is 51"),
        (10, "31.1.2027", "2027-01-01", "ebpf_fleet_holdback_until: is '31.1.2027'"),
        (10, "2027-02-30", "2027-01-01", "ebpf_fleet_holdback_until: is '2027-02-30'"),
        (10, "2027-01-31", None, "today's date is not given"),
    ],
)
def test_a_holdback_that_does_not_say_until_when_is_refused(percent: Any, until: Any, today: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_holdback(percent, until, today)


def test_no_percent_is_no_holdback() -> None:
    assert read_holdback(None, "2027-01-31", "2027-01-01") is None is read_holdback(0, None, None)
    assert read_holdback("50", "2027-01-31", "2027-01-01") == Holdback(50, "2027-01-31", "2027-01-01")


@pytest.mark.parametrize(
    ("stages", "more", "message"),
    [
        (None, {"growth": 0.9}, "growth: is 0.9"), (None, {"growth": 1001}, "growth: is 1001"),
        (None, {"fleet_percent": 0}, "fleet_percent: is 0"), (None, {"fleet_percent": 101}, "fleet_percent: is 101"),
        (None, {"cell_percent": "x"}, "cell_percent: is 'x'"), (None, {"bake": -1}, "bake: is -1"),
        ([{"stage": "fleet", "growth": "many"}], {}, r"stages\[0\].growth: is 'many'"),
        ([{"stage": "fleet", "bake": 86401}], {}, r"stages\[0\].bake: is 86401"),
        ([{"stage": "fleet", "cell_percent": 0}], {}, r"stages\[0\].cell_percent: is 0"),
        ([{"stage": "canary", "growth": 2}, {"stage": "fleet"}], {}, "unknown 'growth'"),
    ],
)  # fmt: skip
def test_bounds_that_cannot_be_are_refused_with_their_place(stages: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(FLEET, stages, **more)
