# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of every module that `scripted.py` replaces: notes what it was asked, answers what was written before.

EBPF_FLEET_SCRIPT is a folder with script.json, {task: {host: answer}}, where "*" means any host and a list gives
one answer after the other; calls.jsonl gets a line for each call. "hold" in an answer makes the call say that it is
reached (a file at-NAME) and wait until it may go on (go-NAME). With "fake_hosts", a digest, the hosts have a state
that modules change: fake_hosts.py.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cells
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_answers

from tests.integration.fake_hosts import FakeHosts


def plain(value: Any) -> Any:
    """Without Ansible's own kinds of dict, list and text."""
    return json.loads(json.dumps(value, default=str))


def answer_of(folder: Path, task: str, host: str) -> dict[str, Any]:
    """What was written for this call; an empty answer where nothing was."""
    hosts = json.loads((folder / "script.json").read_text()).get(task, {})
    given = hosts.get(host, hosts.get("*", {}))
    if not isinstance(given, list):
        return dict(given)
    calls = folder / "calls.jsonl"
    lines = calls.read_text().splitlines() if calls.exists() else []
    asked = sum((one["task"], one["host"]) == (task, host) for one in map(json.loads, lines))
    return dict(given[min(asked, len(given) - 1)])


def hold(folder: Path, name: str) -> None:
    (folder / f"at-{name}").touch()
    until = time.monotonic() + 120
    while not (folder / f"go-{name}").exists() and time.monotonic() < until:
        time.sleep(0.05)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        module = self._task.action.rsplit(".", 1)[-1]
        taken = cell_answers.taken(task_vars, module) if any(module in each for each in cells.STEPS.values()) else None
        if taken is not None:
            return {**result, **taken}
        folder, task = Path(os.environ["EBPF_FLEET_SCRIPT"]), str(self._task.name)
        host = str(task_vars["inventory_hostname"])
        answer = answer_of(folder, task, host)
        call = {"task": task, "module": self._task.action.rsplit(".", 1)[-1], "host": host,
                "check": self._task.check_mode, "arguments": plain(self._task.args)}  # fmt: skip
        with (folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps(call) + "\n")
        held = answer.pop("hold", None)
        if held:
            hold(folder, held)
        digest = json.loads((folder / "script.json").read_text()).get("fake_hosts")
        # A host that fails does what it does, or cannot even begin: then it tells nothing.
        if digest and answer.pop("told", True):
            result.update(FakeHosts(folder, digest).answer(call))
        result.update(answer)
        return dict(result)


class OnceForAll(ActionModule):
    """As fan_out is: one call for all hosts."""

    BYPASS_HOST_LOOP = True
