# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of scripted playbooks with a state of their own, a file each: what runs, what ran before, and the lease.

What modules do to it is what the real ones do, as far as a rollout that is killed and resumed can tell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback

OLD = "0" * 64


class FakeHosts:
    """The hosts below a folder; `digest` is the release that rollouts bring and ways back take away."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder / "hosts"
        self.digest = digest
        self.folder.mkdir(exist_ok=True)

    def state(self, host: str) -> dict[str, Any]:
        path = self.folder / f"{host}.json"
        return (
            dict(json.loads(path.read_text())) if path.exists() else {"current": OLD, "previous": None, "lease": False}
        )

    def put(self, host: str, **state: Any) -> None:
        path = self.folder / f"{host}.json"
        path.with_suffix(".new").write_text(json.dumps({**self.state(host), **state}))
        path.with_suffix(".new").rename(path)

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        """What the called module answers, after it did what it does."""
        does = getattr(self, f"do_{call['module']}", None)
        return dict(does(call["host"], call["arguments"], call["check"])) if does else {}

    def do_observation_info(self, host: str, _arguments: dict[str, Any], _check: bool) -> dict[str, Any]:
        state = self.state(host)
        status = {"bundle": {"digest": state["current"]}, "lease": {"expired": False} if state["lease"] else None}
        return {"observation": {"end": {"witness": {"installed_digest": state["current"]}, "status": status}}}

    def do_release(self, host: str, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
        state, wanted = self.state(host), arguments["digest"]
        if state["current"] == wanted and not state["lease"]:
            return {"changed": False, "lease": None}
        if state["current"] != wanted and not check:
            self.put(host, current=wanted, previous=state["current"], lease=True)
        return {"changed": True, "lease": arguments["lease"]}

    def do_lease(self, host: str, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
        state, wanted = self.state(host), arguments.get("state", "present") == "present"
        concerned = state["current"] == arguments["digest"]
        if concerned and not check:
            self.put(host, lease=wanted)
        return {"changed": concerned and state["lease"] != wanted, "left_seconds": 100 if state["lease"] else None}

    def do_fan_out(self, _host: str, arguments: dict[str, Any], _check: bool) -> dict[str, Any]:
        # The other commands of a rollout only measure.
        back = rollback.MARK in arguments["command"]
        for host in arguments["hosts"] if back else []:
            state = self.state(host)
            if state["current"] == self.digest:
                self.put(host, current=state["previous"], previous=None, lease=False)
        told = rollback.MARK + json.dumps({"ok": True, "changed": True, "detail": "the previous release runs"})
        return {"changed": True, "hosts": {host: {"rc": 0, "stdout": told + "\n"} for host in arguments["hosts"]}}
