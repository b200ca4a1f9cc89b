# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a batch as a file beside the report, which is made of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.plugin_utils import rollout_report

RECORD = {"number": 7, "stage": "canary", "checks": [{"name": "c", "measured": 1.5, "limit": None}], "hosts": ["w1"]}


def test_a_record_is_whole_readable_by_all_and_found_for_the_report(tmp_path: Path) -> None:
    path = Path(rollout_report.write_record(RECORD, str(tmp_path)))
    assert path == tmp_path / "batch-07.json" and json.loads(path.read_text()) == RECORD
    assert path.stat().st_mode & 0o777 == 0o644 and os.listdir(tmp_path) == ["batch-07.json"]
    rollout_report.write_record({**RECORD, "stage": "fleet"}, str(tmp_path))
    assert [one["stage"] for one in rollout_report.records_in(tmp_path)] == ["fleet"]


def test_a_record_that_cannot_be_written_is_said_and_leaves_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="give it as report"):
        rollout_report.write_record(RECORD, "")
    with pytest.raises(FleetError, match="gone") as refused:
        rollout_report.write_record(RECORD, str(tmp_path / "gone"))
    assert refused.value.code == "EF_ARGUMENT"
    (tmp_path / "batch-07.json").mkdir()
    with pytest.raises(FleetError, match="batch-07.json"):
        rollout_report.write_record(RECORD, str(tmp_path))
    assert os.listdir(tmp_path) == ["batch-07.json"]
