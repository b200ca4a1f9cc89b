# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a cell's job for the tasks that come, by real files: each answer, and that there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cells
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.cell_stream import Answers
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_answers, cell_steps

HOSTS = ("a1", "a2")
PAGE = Path(__file__).resolve().parents[2] / "docs/variables.md"
MEASURED = [step for step, modules in cells.STEPS.items() if "observation_info" in modules][0]


def job(step: str, answers: Answers | None, sentence: str = "") -> Any:
    binding = cells.Binding("id", "rollout", "a", 1, step, "", "", HOSTS)
    return SimpleNamespace(binding=binding, answers=answers, sentence=sentence)


def taken(folder: Path, host: str, module: str) -> Any:
    work = {"folder": str(folder), "by_cell": list(HOSTS)}
    return cell_answers.taken({cell_answers.VARIABLE: work, "inventory_hostname": host}, module)


def test_what_a_command_did_is_returned_by_host_and_nothing_is_kept(tmp_path: Path) -> None:
    said = {"a1": {"rc": 0}, "a2": {"rc": 1}}
    assert cell_steps.kept(tmp_path, job("command", Answers({}, {}, said))) == said
    assert cell_steps.kept(tmp_path, job("command", None, "lost")) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", cells.STEPS[MEASURED])
def test_a_hosts_answer_is_taken_once_and_one_that_said_nothing_is_unreachable(tmp_path: Path, module: str) -> None:
    answers = Answers({"a1": {module: {"changed": False, "x": 7}}}, {}, {"a1": {"rc": 0}})
    assert cell_steps.kept(tmp_path, job(MEASURED, answers)) == {}
    assert taken(tmp_path, "a1", module) == {"changed": False, "x": 7}
    again = taken(tmp_path, "a1", module)
    assert again["failed"] and again["reason_code"] == "EF_CELL_ANSWER"
    silent = taken(tmp_path, "a2", module)
    assert (silent["unreachable"], silent["changed"]) == (True, False)
    assert silent["msg"] == "cell a: its controller has no answer of this host for this step"


def test_of_a_job_that_was_lost_every_host_is_unreachable_with_its_sentence(tmp_path: Path) -> None:
    assert cell_steps.kept(tmp_path, job(MEASURED, None, "EF_CELL_LOST: why")) == {}
    for host in HOSTS:
        for module in cells.STEPS[MEASURED]:
            assert taken(tmp_path, host, module) == {"unreachable": True, "changed": False, "msg": "EF_CELL_LOST: why"}


def test_a_controller_may_be_silent_for_as_long_as_the_page_of_variables_says() -> None:
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{cell_steps.SILENCE}` |")]
    assert row.split("|")[2].strip() == str(cell_steps.SILENCE_SECONDS)
