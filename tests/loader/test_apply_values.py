# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of a feature that is put to rest: nothing that would attach it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loader.drivers import ask, build

pytestmark = pytest.mark.apart

NEEDED = [f"{folder}/*.c" for folder in ("base", "bundle", "control", "events", "feature", "kernel", "run", "tell")]
OFF, ATTACHED, KILLED, DISABLED, SHED = "01234"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("apply"), "apply", NEEDED)


@pytest.mark.parametrize("state", [OFF, KILLED, DISABLED, SHED])
def test_it_is_not_due_and_waits_for_nothing(driver: Path, state: str) -> None:
    """It was disabled, about to be attached, after three shortages."""
    assert ask(driver, "rest", state, "EF_X") == f"1 {state} 0 0 0 EF_X"


@pytest.mark.parametrize(
    ("state", "code", "changed"),
    [(KILLED, "EF_KILLED_GLOBAL", 0), (KILLED, "EF_KILLED_FEATURE", 1), (OFF, "EF_KILLED_GLOBAL", 1)],
)
def test_another_state_or_another_reason_is_a_change(driver: Path, state: str, code: str, changed: int) -> None:
    found = ask(driver, "twice", KILLED, "EF_KILLED_GLOBAL", state, code).split()
    assert found[:2] == ["1", str(changed)] and found[-1] == code
