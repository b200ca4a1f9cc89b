# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that fails says every check that failed and what to do next, by the real playbook on a real host."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.sysfleet import Release, SysFleet
from tests.support.syshost import SysHost

# Nothing costs so little.
STRICT = {
    "loader_cpu_millicores": 0, "bpf_cpu_millicores": 0, "total_cpu_millicores": 0,
    "map_memory_bytes": 0, "status_age_ns": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def first(sysfleet: SysFleet) -> Release:
    return sysfleet.release("1.0.0", 1)


def test_a_failed_rollout_names_every_failed_check_and_the_next_step(
    syshost: SysHost, sysfleet: SysFleet, first: Release, tmp_path: Path
) -> None:
    variables = {
        "ebpf_fleet_bundle": str(first.bundle), "ebpf_fleet_allowed_signers": sysfleet.trust,
        "ebpf_fleet_cell": "c1", "ebpf_fleet_region": "r1", "ebpf_fleet_bake": 0, "ebpf_fleet_window_before": 1,
        "ebpf_fleet_window_after": 4, "ebpf_fleet_gate_limits": STRICT, "ebpf_fleet_report_dir": str(tmp_path),
    }  # fmt: skip
    played = sysfleet.play("rollout", variables)
    assert played.rc == 2, played.text
    (path,) = tmp_path.glob("batch-*.json")
    record = json.loads(path.read_text())
    failed = [check for check in record["checks"] if check["verdict"] == "fail"]
    assert record["outcome"] == "rolled_back" and len(failed) >= 5, record["sentence"]
    told = played.text.replace('\\"', '"')
    last = told[told.index("TASK [Stop the rollout]") :]
    for check in failed:
        assert told.count(check["sentence"]) >= 2, f"at once, and at the end: {check['sentence']}"
        assert check["sentence"] in last
        assert check["sentence"] in record["sentence"]
    assert re.search(rf"{len(record['checks'])} checks of this batch stand in the way", last)
    assert "Next: " in last and "ebpf_fleet_gate_limits; then lift the quarantine" in last
    assert "and run the same rollout again." in last
    assert "It now: this was the first release: nothing runs now." in last
    assert syshost.run("systemctl is-active ebpf-fleet-loader").stdout.strip() != "active"
