"""When a status document confirms a restart, and when it only looks like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils import release_store
from ansible_collections.ebpf.fleet.plugins.module_utils.release_service import TICK_NS, judge_status

from tests.integration.killplace import HOSTILE_FILES

DIGEST, SINCE, BOOT = "a" * 64, 5_000_000_000, "boot"
GOOD: dict[str, Any] = {
    "boot_id": BOOT,
    "started_boottime_ns": SINCE,
    "state": "running",
    "reason": "fine",
    "desired_error": None,
    "bundle": {"digest": DIGEST},
}


def verdict(**changes: Any) -> str:
    return judge_status({**GOOD, **changes}, DIGEST, SINCE, BOOT).verdict


@pytest.mark.parametrize("state", ["running", "idle", "killed"])
def test_a_fresh_loader_with_the_bundle_confirms(state: str) -> None:
    assert verdict(state=state) == "confirmed"


def test_a_start_is_known_to_the_tick() -> None:
    assert verdict(started_boottime_ns=SINCE - TICK_NS) == "confirmed"
    assert verdict(started_boottime_ns=SINCE - TICK_NS - 1) == "waiting"


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "other"},
        {"boot_id": None},
        {"started_boottime_ns": None},
        {"bundle": {"digest": "b" * 64}},
        {"bundle": None},
        {"state": "starting"},
        {"state": None},
    ],
)
def test_anything_less_is_waited_for(changes: dict[str, Any]) -> None:
    assert verdict(**changes) == "waiting"


def test_no_document_is_waited_for() -> None:
    assert judge_status(None, DIGEST, SINCE, BOOT).verdict == "waiting"


def test_a_refusal_is_final_and_keeps_the_loaders_reason() -> None:
    status = {**GOOD, "state": "refused", "bundle": None, "reason_code": "EF_SIG_BAD", "reason": "the sentence"}
    found = judge_status(status, DIGEST, SINCE, BOOT)
    assert (found.verdict, found.code) == ("refused", "EF_SIG_BAD") and "the sentence" in found.sentence
    assert judge_status({**status, "boot_id": "other"}, DIGEST, SINCE, BOOT).verdict == "waiting"


def test_a_desired_state_that_the_loader_does_not_take_is_a_refusal() -> None:
    found = judge_status({**GOOD, "desired_error": "line 1"}, DIGEST, SINCE, BOOT)
    assert (found.verdict, found.code) == ("refused", "EF_DESIRED_MALFORMED")


@pytest.mark.parametrize("hostile", HOSTILE_FILES)
def test_a_status_that_is_a_trap_is_as_if_there_were_none(tmp_path: Path, hostile: Callable[[Path], None]) -> None:
    """The loader's user can put anything in its place; the release module reads it as root."""
    hostile(tmp_path / "status.json")
    assert release_store.read_status_of(tmp_path / "status.json") is None


def test_a_status_of_many_brackets_is_as_if_there_were_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("[" * 100_000)
    assert release_store.read_status_of(tmp_path / "status.json") is None
