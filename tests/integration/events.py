# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks by ansible-runner, the programmatic way in, and what its events say of every task and host."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ansible_runner

from tests.integration.scripted import ROOT, collection

RESULTS = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable", "runner_on_skipped")


class Run(NamedTuple):
    """How a playbook ended: exit status, its events in their order, and its output as words with one blank between."""

    status: int
    events: list[dict[str, Any]]
    said: str

    def results(self, task: str) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """{host: (what became of it, its result)} of every time that a task ran."""
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for event in self.events:
            data = event.get("event_data", {})
            if event["event"] in RESULTS and data.get("task") == task:
                kind = event["event"].rsplit("_", 1)[-1]
                found.setdefault(data["host"], []).append((kind, data.get("res") or {}))
        return found

    def tasks(self) -> list[str]:
        """Names of the tasks in the order in which they began."""
        return [one["event_data"]["task"] for one in self.events if one["event"] == "playbook_on_task_start"]


def run(
    folder: Path, playbook: str, hosts: Mapping[str, Any], script: Mapping[str, Any] | None = None, *,
    options: str = "", environment: Mapping[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], Any] | None = None, timeout: int = 300, **variables: Any,
) -> Run:  # fmt: skip
    """Run one of the collection's playbooks to its end; with a script, hosts and modules are those of scripted.py.

    `hosts` is an inventory, `variables` go in with -e. `on_event` gets every event when it comes.
    """
    place = folder / "scripted"
    if script is not None:
        if not place.exists():
            collection(place)
        (place / "script.json").write_text(json.dumps(script))
    (folder / "runner").mkdir(exist_ok=True)
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps(hosts))
    done = ansible_runner.run(
        private_data_dir=str(folder / "runner"), project_dir=str(folder), playbook=f"ebpf.fleet.{playbook}",
        inventory=str(inventory), extravars=variables, cmdline=options, quiet=True, timeout=timeout,
        event_handler=on_event,
        envvars={
            "ANSIBLE_COLLECTIONS_PATH": str(place if script is not None else ROOT / "collections"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PWD": str(folder),
            "ANSIBLE_LOCALHOST_WARNING": "false", "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "collections")]),
            "EBPF_FLEET_SCRIPT": str(place), **(environment or {}),
        },
    )  # fmt: skip
    events = list(done.events)
    return Run(int(done.rc), events, " ".join("".join(one.get("stdout", "") + "\n" for one in events).split()))
