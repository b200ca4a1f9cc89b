# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's own actions, whose hosts answer by a script: the road to a host is real, what it says is not.

Used by fleet.py in a copy of the collection. Each runs the real action, with its real module's payload over real SSH,
and then takes an answer of a healthy host for the host's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_answers

ROOT = Path(__file__).resolve().parents[2]


def real(name: str) -> Any:
    """The collection's own action of that name."""
    path = ROOT / "plugins/action" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"ebpf_fleet_bench_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ActionModule


def answered_by_script(name: str) -> type:
    """The real action, with what script.json has for it in place of what the host said."""

    class ActionModule(real(name)):  # type: ignore[misc]
        def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
            taken = cell_answers.taken(task_vars, name) if name != "gate" else None
            if taken is not None:
                return dict(taken)
            result = super().run(tmp, task_vars)
            if result.get("unreachable") or "needs_archive" in result:
                return dict(result)
            canned = json.loads((Path(os.environ["EBPF_FLEET_SCRIPT"]) / "script.json").read_text()).get(name, {})
            # A refusal of the gate is an error of the benchmark, and so is what a host could not run.
            failed = bool(result.get("failed")) and name not in ("capability_facts", "gate")
            return {**result, **canned, "failed": failed}

    return ActionModule
