# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch that still bakes: what is plain enough to end it before its time, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import CHECKS

from tests.unit.test_gate import SECOND, judge, judge_all, observation, spend, spoil

PLAIN = {
    "loader_cpu": spend(observation(), 500_000_001, 1),
    "feature_cpu": spend(observation(), 1, 200_000_001),
    "loader_active": spoil("unit/active_state", "failed"),
    "loader_restarts": spoil("unit/n_restarts", 1),
    "features_attached": spoil("status/features/exec_events/state", "shed"),
    "map_memory": spoil("status/features/exec_events/maps", [{"name": "m", "type": "array", "memory_bytes": 1001}]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_fails_plainly_ends_the_bake(name: str) -> None:
    verdict = judge(PLAIN[name], early=True)
    assert verdict["verdict"] == "fail" and name in {one["check"] for one in verdict["reasons"]}
    assert {one["verdict"] for one in verdict["checks"]} == {"fail"} and verdict["next"]
    assert judge(PLAIN[name], early=True, dry_run=[one["check"] for one in verdict["checks"]])["verdict"] == "pass"


def test_what_is_well_bakes_on() -> None:
    verdict = judge(observation(), early=True)
    assert (verdict["verdict"], verdict["checks"], verdict["reasons"]) == ("pass", [], [])
    assert verdict["sentence"] == "nothing failed plainly on 1 host so far; the batch bakes on"


@pytest.mark.parametrize(
    "after",
    [
        None,
        spoil("status", None),
        spoil("status_age_ns", 10**12),
        spoil("status/loader/cpu_ns", None),
        spoil("host/cpu_busy_ns", 20 * SECOND),
        spoil("host/memory_available_bytes", 0),
    ],
)
def test_what_varies_by_itself_or_was_not_measured_waits_for_the_end(after: Any) -> None:
    """A host that is lost for a moment, a neighbour's load, a status that is late: judged when the bake is over."""
    assert judge(after, early=True)["verdict"] == "pass"
    changed = {"h1": {"before": observation(50 * SECOND), "after": after}}
    assert judge_all(changed)["verdict"] in ("fail", "inconclusive")


def test_no_host_is_not_well() -> None:
    assert judge_all({}, early=True)["verdict"] == "inconclusive"


def test_checks_that_vary_or_compare_with_root_are_not_plain() -> None:
    early = {one.name for one in CHECKS if one.early}
    assert set(PLAIN) <= early
    assert not [name for name in early if "shift" in name or "delta" in name or name.startswith(("witness", "app"))]
