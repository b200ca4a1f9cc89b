# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of cell controllers, kept on the coordinator until the task of that host takes them: each once.

A module's action on the coordinator asks here first. Where the host's cell has a controller, the job of that step has
run already, and the task's result is what the host answered there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction, is_internal
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

VARIABLE = "ebpf_fleet_cell_work"


def put(folder, host, module, result):
    """Keep the result of one host's module."""
    path = _path(folder, host, module)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({name: value for name, value in result.items() if not is_internal(name)}, file)


def taken(task_vars, module):
    """The result of this task where its host's cell has a controller, else None: the host is asked directly."""
    work = (task_vars or {}).get(VARIABLE)
    host = (task_vars or {}).get("inventory_hostname")
    if not isinstance(work, dict) or host not in (work.get("by_cell") or []):
        return None
    path = _path(str(work["folder"]), host, module)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
    except (OSError, ValueError):
        problem = f"{host}: its cell's controller was not asked for {module} in this step, or the answer is taken"
        return failed(FleetError("EF_CELL_ANSWER", problem))
    return result


class CellAction(GuardedAction):
    """A module that runs on the host, or has run there already by the host's cell controller."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp=None, task_vars=None):
        answer = taken(task_vars, self._task.action.rsplit(".", 1)[-1])
        if answer is not None:
            return answer
        result = super().run(tmp, task_vars)
        return {**result, **self.on_host(task_vars)}

    def on_host(self, task_vars):
        """What the module answers on the host."""
        return self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)


def _path(folder, host, module):
    return Path(folder) / f"{hashlib.sha256(str(host).encode()).hexdigest()}.{module}.json"
