# SPDX-License-Identifier: GPL-3.0-or-later
"""When a status document confirms a restart, and when it only looks like it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.release.service import TICK_NS, judge_status
from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import MAX_STATUS, read_status_of

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


@pytest.mark.parametrize("kind", ["fifo", "endless", "deep", "large", "list", "absent"])
def test_a_status_that_cannot_be_used_counts_as_absent_and_holds_nothing_up(tmp_path: Path, kind: str) -> None:
    """The folder belongs to the loader's user, who may put anything there."""
    path = tmp_path / "status.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind != "absent":
        path.write_text({"deep": "[" * 10**6, "large": " " * (MAX_STATUS + 1), "list": "[]"}[kind])
    signal.alarm(20)  # a reader that blocks ends the test
    try:
        assert read_status_of(path) is None
        path.unlink(missing_ok=True)
        path.write_text('{"state": "running"}')
        assert read_status_of(path) == {"state": "running"}
    finally:
        signal.alarm(0)
