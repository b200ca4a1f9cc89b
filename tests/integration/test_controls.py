# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls over the real fan_out: this machine as a control at four moments, and what the gate makes of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner import run_tasks
from tests.unit.test_gate import CONTRACTS, SECOND, observation

pytestmark = pytest.mark.apart

MOMENTS = ("before_start", "before_end", "after_start", "after_end")


def test_a_control_is_measured_by_sh_alone_and_judged(tmp_path: Path) -> None:
    path = tmp_path / "it's latency.json"
    path.write_text(json.dumps({"p95_ms": 1.5, "p99_ms": 2}))
    source = {"localhost": {"source": "file", "path": str(path), "max_age": 600}}
    asked: list[dict[str, Any]] = [
        {"ebpf.fleet.fan_out": {"command": "{{ source | ebpf.fleet.control_script }}", "hosts": ["localhost"]},
         "vars": {"source": source}, "register": name}
        for name in MOMENTS
    ]  # fmt: skip
    answers = "{" + ", ".join(f"'{name}': {name}.hosts" for name in MOMENTS) + "}"
    pair = {"before": observation(50 * SECOND), "after": observation()}
    judge = {"changed": {"h1": pair}, "controls": "{{ answers | ebpf.fleet.control_observations(source) }}",
             "contracts": CONTRACTS, "expected": {"*": {"exec_events": "full"}}}  # fmt: skip
    tasks = [*asked, {"ebpf.fleet.gate": judge, "vars": {"source": source, "answers": "{{ " + answers + " }}"},
                      "register": "gate"},
             {"ansible.builtin.set_fact": {"seen": "{{ answers | ebpf.fleet.control_observations(source) }}"},
              "vars": {"source": source, "answers": "{{ " + answers + " }}"}, "register": "kept"}]  # fmt: skip
    begun = time.time()
    status, results, said = run_tasks(tmp_path, tasks)
    assert status == 0, said
    seen = results["kept"]["ansible_facts"]["seen"]["localhost"]
    for when in ("before", "after"):
        assert 0 < seen[when]["window_ns"] < (time.time() - begun) * SECOND
        assert seen[when]["end"]["application"] == {"p95_ns": 1_500_000, "p99_ns": 2_000_000}
        first, last = (seen[when][end]["host"]["cpu_total_ns"] for end in ("start", "end"))
        assert last > first
    (found,) = [one for one in results["gate"]["checks"] if one["check"] == "host_cpu_delta"]
    assert "less the median of 1 controls" in found["sentence"] and found["verdict"] == "pass", found
    (found,) = [one for one in results["gate"]["checks"] if one["check"] == "host_cpu_shift"]
    assert "1 changed hosts and 1 controls, 5 of each at least" in found["sentence"]
