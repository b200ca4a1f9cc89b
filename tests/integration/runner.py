# SPDX-License-Identifier: GPL-3.0-or-later
"""Run tasks by the real ansible-playbook on this machine, and read what they returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def run_written(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """How play.yml of this folder ended on hosts.yml of it, with the settings of this checkout."""
    return subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", "play.yml", *options],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PWD": str(folder)},
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def run_tasks(
    folder: Path,
    tasks: list[dict[str, Any]],
    *options: str,
) -> tuple[int, dict[str, Any], str]:
    """(exit status, {name: registered result}, what was printed).

    Each task is registered as its `register`, failures are kept as results, and nothing about
    the inventory or the collection but the checkout itself is known.
    """
    names = [task["register"] for task in tasks if "register" in task]
    keep = {
        "ansible.builtin.copy": {
            "content": "{{ lookup('ansible.builtin.vars', name, default={}) | to_json }}",
            "dest": str(folder / "result-{{ inventory_hostname }}-{{ name }}.json"),
            "mode": "0600",
        },
        "loop": names,
        "loop_control": {"loop_var": "name"},
        "check_mode": False,
        "diff": False,
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "connection": "local",
        # Of the play and not of the command line, so that a task may have an interpreter of its own.
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [*({"ignore_errors": True, **task} for task in tasks), keep],
    }
    playbook = folder / "play.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,"]
    done = subprocess.run(
        [*command, *options, str(playbook)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, _results(folder, names), done.stdout + done.stderr


def _results(folder: Path, names: list[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        path = folder / f"result-localhost-{name}.json"
        found[name] = json.loads(path.read_text()) if path.exists() else None
    return found


def run_one(folder: Path, module: str, *options: str, **arguments: Any) -> dict[str, Any]:
    """The result of one task of one module of the collection."""
    task = {f"ebpf.fleet.{module}": arguments, "register": "result"}
    _status, results, said = run_tasks(folder, [task], *options)
    assert results["result"] is not None, said
    result: dict[str, Any] = results["result"]
    result["_said"] = said
    return result
