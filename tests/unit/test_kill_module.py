# SPDX-License-Identifier: GPL-3.0-or-later
"""The module kill_switch and its evidence without a kernel: orders as they were and will be, whose program is whose."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import evidence, orders
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript
from ansible_collections.ebpf.fleet.plugins.modules import kill_switch

from tests.integration.release_host import run_module

FOLDERS = ("run_dir", "etc_dir", "state_dir", "collector_state_dir", "lib_dir")
SCOPES = orders.parse_scopes(["global", "feature=probe"])
NAMES = ["feature.probe", "global"]


def switch(folder: Path, *scopes: str) -> kill_switch.Switch:
    parameters = {
        name: str(folder / name) for name in ("run_dir", "etc_dir", "state_dir", "collector_state_dir", "lib_dir")
    }
    return kill_switch.Switch(parameters, orders.parse_scopes(scopes or ["global", "feature=probe"]))


def planned(state: str, persistent: bool, run: Any, etc: Any) -> dict[str, Any]:
    asked = SimpleNamespace(scopes=SCOPES)
    return dict(kill_switch.planned({"run": run, "etc": etc}, asked, state, persistent))


@pytest.mark.parametrize(
    ("state", "persistent", "run", "etc"),
    [
        ("engaged", True, ["feature.other", *NAMES], NAMES),
        ("engaged", False, ["feature.other", *NAMES], None),
        ("released", True, ["feature.other"], []),
        ("query", True, ["feature.other", "global"], None),
    ],
)
def test_orders_as_they_will_be(state: str, persistent: bool, run: Any, etc: Any) -> None:
    """With one order of others and one of these in run, and an etc that cannot be read."""
    assert planned(state, persistent, ["feature.other", "global"], None) == {"run": run, "etc": etc}


@pytest.mark.parametrize(
    ("state", "moved", "run"),
    [
        ("engaged", {"run": ["global"]}, ["feature.other"]),
        ("engaged", {}, ["feature.other", "global"]),
        ("released", {"run": ["feature.probe"]}, ["feature.other", "feature.probe", "global"]),
    ],
)
def test_orders_as_they_were(state: str, moved: dict[str, list[str]], run: list[str]) -> None:
    found = kill_switch.as_before({"run": ["feature.other", "global"], "etc": None}, moved, state)
    assert found == {"run": run, "etc": None}


@pytest.mark.parametrize(("persistent", "etc"), [(True, NAMES), (False, [])])
def test_orders_are_placed_and_removed_and_what_moved_is_told(tmp_path: Path, persistent: bool, etc: list[str]) -> None:
    asked = switch(tmp_path)
    assert asked.orders() == {"run": [], "etc": []}
    moved, refused = kill_switch.act(asked, "engaged", persistent)
    assert ({name: sorted(new) for name, new in moved.items()}, refused) == (
        {"run": NAMES, **({"etc": NAMES} if persistent else {})}, [])  # fmt: skip
    assert asked.orders() == {"run": NAMES, "etc": etc}
    assert kill_switch.act(asked, "engaged", persistent)[0] == {name: [] for name in moved}
    assert sorted(kill_switch.act(asked, "released", persistent)[0]["etc"]) == etc
    assert asked.orders() == {"run": [], "etc": []}


def test_a_folder_that_refuses_keeps_the_order_from_no_other(tmp_path: Path) -> None:
    (tmp_path / "run_dir").write_text("no folder")
    moved, refused = kill_switch.act(switch(tmp_path), "engaged", True)
    assert sorted(moved) == ["etc"] and len(refused) == 1
    assert refused[0].startswith(str(tmp_path / "run_dir")) and refused[0].endswith(": Not a directory")


def test_an_order_of_a_feature_or_of_this_family_applies_here(tmp_path: Path) -> None:
    family, named = kill_switch.host_families()
    assert family == ".".join(os.uname().release.split(".")[:2]) and named.endswith(f"-{family}")
    for scope, applies, whole in (("global", True, True), ("feature=probe", True, False),
                                  (f"kernel_family={family}", True, True), (f"kernel_family={named}", True, True),
                                  ("kernel_family=9.99", False, False)):  # fmt: skip
        asked = switch(tmp_path, scope)
        asked.prepare_search()
        assert (bool(asked.applies), asked.whole) == (applies, whole), scope


def test_programs_of_a_feature_are_named_by_both_releases_contracts(tmp_path: Path) -> None:
    for release, contract in (("current", {"variants": [{"programs": ["ef_a", 7]}], "bcc": {"programs": ["ef_b"]}}),
                              ("previous", {"programs": ["ef_c"]})):  # fmt: skip
        folder = tmp_path / release / "bundle/features/probe"
        folder.mkdir(parents=True)
        (folder / "contract.json").write_text(json.dumps(contract))
    assert evidence.contract_programs(tmp_path, ["probe"]) == {"ef_a", "ef_b", "ef_c"}
    assert evidence.contract_programs(tmp_path, ["other"]) == evidence.contract_programs(tmp_path, []) == set()
    (tmp_path / "current/bundle/features/probe/contract.json").write_text("{")
    assert evidence.contract_programs(tmp_path, ["probe"]) == {"ef_c"}


def program(number: int, name: str, tag: str = "aa") -> SimpleNamespace:
    return SimpleNamespace(id=number, name=name, tag=tag)


LISTED = evidence.parse_programs("1 aa probe ef_one\n2 bb other long_name_of_a_third\nrubbish\n3 cc probe x")


def test_the_lists_lines_are_read_and_rubbish_is_left_out(tmp_path: Path) -> None:
    assert [one.id for one in LISTED] == [1, 2, 3] and LISTED[1].feature == "other"
    (tmp_path / "one").write_text("1 aa probe ef_one\n")
    (tmp_path / "two").write_text("x" * (evidence.LIST_LIMIT_BYTES + 1))
    assert evidence.read_listed([tmp_path / "one", tmp_path / "none"]) == LISTED[:1]
    assert evidence.read_listed([tmp_path / "none", tmp_path / "two"]) is None
    (tmp_path / "empty").write_text("")
    assert evidence.read_listed([tmp_path / "empty"]) == []


def test_ours_is_what_has_our_name_or_what_a_list_had_by_tag_and_name() -> None:
    """The kernel keeps 15 letters of a name."""
    ours = [program(9, "ef_more"), program(2, "long_name_of_a_", "bb"), program(3, "x", "cc")]
    others = [program(4, "long_name_of_a_", "aa"), program(5, "y", "cc"), program(6, "EF_x")]
    assert evidence.ours([*ours, *others], LISTED) == ours


def test_left_of_a_feature_is_what_it_had_or_what_no_other_is_known_to_have() -> None:
    every = [program(1, "ef_one"), program(2, "ef_two"), program(7, "ef_seven")]

    def left(names: set[str], has_list: bool) -> list[int]:
        return [one.id for one in evidence.remaining_of(every, ["probe"], names, LISTED if has_list else [], has_list)]

    assert left(set(), True) == [1, 7]
    assert left({"ef_seven"}, True) == [1, 7]
    assert left({"ef_one"}, True) == [1]
    assert left({"ef_two"}, False) == [2]
    assert left(set(), False) == [1, 2, 7]


def test_descriptors_of_programs_are_found_under_every_process(tmp_path: Path) -> None:
    for place, text in (("7/fdinfo/3", "pos:\t0\nprog_id:\t42\n"), ("7/fdinfo/4", "pos:\t0\n"),
                        ("8/fdinfo/5", "link_id:\t1\nprog_id:\t42\n"), ("self/fdinfo/6", "prog_id:\t9\n")):  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    found = evidence.held_programs(tmp_path)
    assert {number: sorted(pids) for number, pids in found.items()} == {42: [7, 8]}
    assert evidence.parse_fdinfo("pos:\t0\n") is None and evidence.parse_fdinfo("prog_id:\t0\n") == 0


@pytest.mark.parametrize(
    ("grace", "deadline", "good"),
    [(0, 1, True), (599, 600, True), (0, 600, True), (0, 601, False), (-1, 5, False), (5, 5, False), (True, 5, False),
     (0, 1.0, False)],
)  # fmt: skip
def test_the_times_of_the_script_at_both_ends(grace: Any, deadline: Any, good: bool) -> None:
    def render() -> str:
        return killscript.render(["global"], grace_seconds=grace, deadline_seconds=deadline)

    if good:
        assert f"\ndeadline={deadline}\n" in render()
    else:
        with pytest.raises(FleetError, match="_seconds .*give ") as caught:
            render()
        assert caught.value.code == "EF_ARGUMENT"


@pytest.mark.skipif(os.geteuid() != 0, reason="orders are root's; run as root")
def test_check_mode_says_what_an_order_would_change_and_places_none(tmp_path: Path) -> None:
    """The module itself, with the defaults of what is not said."""
    folders = {name: str(tmp_path / name) for name in FOLDERS}
    result, done = run_module("kill_switch", {"scopes": ["feature=probe", "feature=probe"], **folders}, check=True)
    assert result is not None, done.stderr
    after = {"run": ["feature.probe"], "etc": ["feature.probe"]}
    assert (result["changed"], result["applies"], result["orders"]) == (True, True, after)
    assert result["diff"] == {"before": {"run": [], "etc": []}, "after": after}
    assert (result["programs_left"], result["time_to_off_ms"]) == (None, None) and list(tmp_path.iterdir()) == []
    for arguments, words in (({}, "missing required arguments: scopes"), ({"scopes": ["globl"]}, "did you mean global"),
                             ({"scopes": ["global"], "wait": 601}, "wait: 601.0 is out of range; give 0 to 600"),
                             ({"scopes": ["global"], "wait": -1}, "out of range"),
                             ({"scopes": ["global"], "state": "off"}, "value of state must be one of")):  # fmt: skip
        result, _done = run_module("kill_switch", {**arguments, **folders}, check=True)
        assert result is not None and result["failed"] and words in result["msg"]


def test_a_script_engages_and_persists_unless_something_else_is_said() -> None:
    assert killscript.render(["global"]) == killscript.render(["global"], "engaged", True)
    different = {killscript.render(["global"], state, persistent)
                 for state in killscript.STATES for persistent in (True, False)}  # fmt: skip
    assert len(different) >= 3
