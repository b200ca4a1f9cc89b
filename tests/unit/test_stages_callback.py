# SPDX-License-Identifier: GPL-3.0-or-later
"""Of which results the callback tells more than that they came: those of a rollout's own plays, when they are good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.callback.stages import CallbackModule
from ansible_collections.ebpf.fleet.plugins.module_utils.report import stage_view
from ansible_collections.ebpf.fleet.plugins.plugin_utils import stage_tasks

CHECK = {"check": "loader_cpu", "verdict": "pass", "measured": 1, "limit": 50, "unit": "millicores", "host": "a"}
VERDICT = {"verdict": "pass", "checks": [CHECK], "reasons": [], "next": [], "changed": False}
BATCH = {"number": 1, "stage": "canary", "hosts": ["a"], "bake": 0}


@pytest.fixture
def callback() -> Any:
    return CallbackModule()


@pytest.mark.parametrize(
    ("staged", "state", "told"),
    [(True, stage_view.OK, True), (True, stage_view.CHANGED, True), (True, stage_view.FAILED, False),
     (False, stage_view.OK, False), (False, stage_view.FAILED, False)],
)  # fmt: skip
def test_a_verdict_is_told_where_it_is_a_rollouts_own(callback: Any, staged: bool, state: str, told: bool) -> None:
    lines: list[str] = []
    callback.tell = lambda found: lines.extend(one.text for one in found)
    callback.staged = staged
    task = SimpleNamespace(action="ebpf.fleet.gate", args={}, get_name=lambda: "Judge the batch", _uuid="u")
    callback.view.batch = BATCH
    callback.view.task_begins(stage_view.Task("Judge the batch", 0.0, ""))
    result = SimpleNamespace(host=SimpleNamespace(get_name=lambda: "a"), task=task, result=dict(VERDICT))
    callback.end_host(result, state)
    assert any("checks: pass (1 pass" in line for line in lines) is told, lines


@pytest.mark.parametrize(
    ("result", "told"),
    [({"msg": "one\ntwo", "changed": False}, ["one", "two"]), ({"msg": ["a", "b"], "changed": False}, ["a", "b"])],
)
def test_what_a_task_prints_is_its_message(callback: Any, result: dict[str, Any], told: list[str]) -> None:
    task = SimpleNamespace(action="ansible.builtin.debug")
    assert stage_tasks.message_of(callback, SimpleNamespace(result=result, task=task)) == told


@pytest.mark.parametrize(("staged", "verbosity", "told"), [(True, 0, False), (True, 1, True), (False, 0, True)])
def test_ansibles_own_lines_are_told_where_they_are_wanted(
    callback: Any, monkeypatch: pytest.MonkeyPatch, staged: bool, verbosity: int, told: bool
) -> None:
    ends = ("v2_runner_on_failed", "v2_runner_on_unreachable", "v2_runner_on_skipped", "v2_runner_on_ok")
    seen: list[str] = []
    for name in ends:
        monkeypatch.setattr(CallbackModule.__mro__[1], name, lambda self, *_, name=name, **__: seen.append(name))
    monkeypatch.setattr(callback._display, "verbosity", verbosity)
    monkeypatch.setattr(callback, "staged", staged)
    for name in ("lost", "end_host", "_handle_warnings"):
        monkeypatch.setattr(callback, name, lambda *_: None)
    task = SimpleNamespace(action="ebpf.fleet.release", args={}, ignore_unreachable=False)
    for name in ends:
        getattr(callback, name)(SimpleNamespace(result={}, task=task))
    assert seen == (list(ends) if told else [])
