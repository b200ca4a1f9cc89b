# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the kill_switch module puts an order and where it does not, without a loader: the kernel is asked for real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.release_host import run_module

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="orders and the kernel's list of programs need root")

# A feature that no bundle has and a kernel family that no host has: whatever runs here is not touched.
FEATURE, FAMILY = "feature.none_such", "family.0.1"
SCOPES = {FEATURE: "feature=none_such", FAMILY: "kernel_family=0.1"}


class Place:
    """The folders of one host below a temporary one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        names = ("etc_dir", "run_dir", "state_dir", "collector_state_dir", "lib_dir")
        self.folders = {name: str(root / name) for name in names}
        # A list of the loader's, so that programs of other loaders on this kernel are known as other features'.
        (root / "state_dir").mkdir()

    def run(self, order: str, state: str = "engaged", check: bool = False, **more: Any) -> dict[str, Any]:
        given = {**self.folders, "scopes": [SCOPES[order]], "state": state, "wait": 0, **more}
        result, done = run_module("kill_switch", given, check)
        assert result is not None, done.stderr
        return result

    def orders(self) -> dict[str, list[str]]:
        found = {}
        for name in ("etc", "run"):
            folder = self.root / f"{name}_dir/kill.d"
            found[name] = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(("persistent", "etc"), [(True, [FAMILY]), (False, [])])
def test_an_order_lies_in_etc_only_where_it_is_to_persist(place: Place, persistent: bool, etc: list[str]) -> None:
    expected = {"etc": etc, "run": [FAMILY]}
    planned = place.run(FAMILY, check=True, persistent=persistent)
    assert place.orders() == {"etc": [], "run": []}, "check mode placed an order"
    result = place.run(FAMILY, persistent=persistent)
    assert place.orders() == result["orders"] == planned["orders"] == expected
    assert (planned["changed"], result["changed"]) == (True, True)
    assert planned["diff"] == result["diff"] == {"before": {"etc": [], "run": []}, "after": expected}
    again = place.run(FAMILY, persistent=persistent)
    assert (again["changed"], again["orders"]) == (False, expected)


def test_an_order_persists_when_nothing_is_said(place: Place) -> None:
    place.run(FAMILY)
    assert place.orders() == {"etc": [FAMILY], "run": [FAMILY]}


@pytest.mark.parametrize("persistent", [True, False])
def test_taken_back_is_taken_back_everywhere(place: Place, persistent: bool) -> None:
    """An order that stayed in etc would hold again after a reboot."""
    place.run(FAMILY)
    planned = place.run(FAMILY, "released", check=True, persistent=persistent)
    assert place.orders() == {"etc": [FAMILY], "run": [FAMILY]}, "check mode took an order back"
    result = place.run(FAMILY, "released", persistent=persistent)
    assert place.orders() == planned["orders"] == result["orders"] == {"etc": [], "run": []}
    assert (planned["changed"], result["changed"]) == (True, True)
    assert result["diff"]["before"] == {"etc": [FAMILY], "run": [FAMILY]}
    assert (result["programs_left"], result["time_to_off_ms"]) == (None, None)
    assert place.run(FAMILY, "released")["changed"] is False


def test_other_orders_stay(place: Place) -> None:
    place.run(FAMILY)
    place.run(FEATURE, persistent=False)
    assert place.orders() == {"etc": [FAMILY], "run": [FAMILY, FEATURE]}
    place.run(FAMILY, "released")
    assert place.orders() == {"etc": [], "run": [FEATURE]}


def test_a_query_places_nothing_and_takes_nothing_back(place: Place) -> None:
    for check in (False, True):
        assert place.run(FAMILY, "query", check=check)["changed"] is False
        assert place.orders() == {"etc": [], "run": []}
    place.run(FAMILY)
    found = place.run(FAMILY, "query")
    assert (found["changed"], found["orders"]) == (False, {"etc": [FAMILY], "run": [FAMILY]})


def test_an_order_for_another_family_does_not_apply_and_is_not_looked_for(place: Place) -> None:
    result = place.run(FAMILY)
    assert (result["applies"], result["programs_left"], result["time_to_off_ms"]) == (False, None, None)
    assert "evidence" not in result


@pytest.mark.parametrize("broken", ["etc", "run"])
def test_a_folder_that_refuses_is_said_and_the_other_has_the_order(place: Place, broken: str) -> None:
    (place.root / f"{broken}_dir").write_text("a file in the way")
    result = place.run(FAMILY)
    assert result["failed"] is True and f"{broken}_dir" in result["msg"]
    assert "an order is not as it should be" in result["msg"]
    other = "etc" if broken == "run" else "run"
    assert os.listdir(place.root / f"{other}_dir/kill.d") == [FAMILY]
    assert (result["orders"][other], result["changed"]) == ([FAMILY], True)


@pytest.mark.parametrize(("wait", "fine"), [(-0.1, False), (0, True), (600, True), (600.5, False)])
def test_the_wait_has_two_ends(place: Place, wait: float, fine: bool) -> None:
    result = place.run(FAMILY, wait=wait)
    assert bool(result.get("failed")) is not fine
    assert place.orders()["run"] == ([FAMILY] if fine else [])
