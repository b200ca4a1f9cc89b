# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a rollout's steps into the fleet's ledger on the controller, and honour there what people asked for."""

from __future__ import annotations

import os
import time

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import hooks, ledger
from ansible_collections.ebpf.fleet.plugins.plugin_utils import (
    ledger_folder,
    ledger_hooks,
    ledger_steps,
    rollout_report,
)
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

STEPS = (
    "lock",
    "resume",
    "start",
    "batch",
    "measured",
    "verdict",
    "check",
    "hold",
    "promoted",
    "changed",
    "rolled_back",
    "report",
)
ARGUMENTS = {
    "step": {"type": "str", "required": True, "choices": list(STEPS)},
    "folder": {"type": "str", "default": ""},
    "hooks": {"type": "raw", "default": []},
    "resume": {"type": "str", "default": ""},
    "plan": {"type": "dict", "default": {}},
    "bundle": {"type": "dict", "default": {}},
    "digest": {"type": "str", "default": ""},
    "batch": {"type": "dict", "default": {}},
    "frozen": {"type": "list", "elements": "str", "default": []},
    "before_var": {"type": "str", "default": "ebpf_fleet_before"},
    "after_var": {"type": "str", "default": "ebpf_fleet_after"},
    "verdict": {"type": "dict", "default": {}},
    "seconds": {"type": "float", "default": 0},
    "who": {"type": "str", "default": ""},
    "last": {"type": "bool", "default": False},
    "returned": {"type": "dict", "default": {}},
    "returned_all": {"type": "dict", "default": {}},
    "strata": {"type": "list", "elements": "dict", "default": []},
    "rollout": {"type": "str", "default": ""},
    "report": {"type": "str", "default": ""},
    "record": {"type": "raw", "default": {}},
}
# What is read by itself; everything else is for a document.
OWN = ("hooks", "seconds", "record")
# Steps after which a ledger that cannot be written changes nothing: what was done is done, and is told.
AFTERWARDS = ("promoted", "changed", "rolled_back", "report")


class ActionModule(ControllerAction):
    """Runs on the controller, once for all hosts; check mode takes no lock and writes nothing."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if self._task.check_mode:
            folder = ledger_folder.Folder(ledger_folder.folder_of(arguments["folder"], os.environ), writes=False)
            where = {"folder": str(folder.path), "quarantine_file": str(folder.quarantine)}
            return {**result, "skipped": True, "changed": False, "msg": "check mode writes no ledger", **where}
        arguments = {name: value if name in OWN else ledger_steps.whole(value) for name, value in arguments.items()}
        step = arguments["step"]
        try:
            if arguments["record"]:
                rollout_report.write_record(values.plain(arguments["record"]), arguments["report"])
        except FleetError as error:
            return {**result, **failed(error)}
        try:
            told = hooks.read("hooks", arguments["hooks"])
            answer = self.stepped(step, arguments, task_vars["hostvars"], told)
        except FleetError as error:
            if step not in AFTERWARDS:
                return {**result, **failed(error)}
            self._display.warning(f"the ledger does not say so: {printable(error.as_line(), 1000)}")
            answer = {"hosts": [], "unwritten": error.as_line()}
        return {**result, "changed": False, **answer}

    def stepped(self, step, arguments, hostvars, told):
        """Do a step, and a wait that belongs to it, and tell the hooks what was written."""
        folder = ledger_folder.Folder(ledger_folder.folder_of(arguments["folder"], os.environ))
        here = ledger_folder.owner_of(os.getppid(), os.environ, ledger_folder.now())
        with folder:
            steps = ledger_steps.Steps(folder, here, arguments, hostvars)
            owner, _state = folder.held_by(here)
            if owner is not None and owner.is_process(here):
                steps.here = here._replace(since=owner.since)
            answer = steps.run(step)
        for note in steps.notes:
            self._display.display(f"ledger: {printable(note, 1000)}")
        self.tell(folder, steps.written, told)
        answer = {**answer, **self.report(folder, here, steps, answer)}
        if step == "hold":
            answer = self.held(folder, answer, arguments, hostvars, told)
        return {"folder": str(folder.path), **answer}

    def held(self, folder, answer, arguments, hostvars, told):
        """Wait for a person, and take what they say."""
        wish, end = ledger_steps.wait_for_person(folder, answer["rollout"], arguments["seconds"])
        if end:
            return self.stepped("check", arguments, hostvars, told)
        if wish is None:
            return answer
        who = ledger_steps.who_of(wish)
        self._display.display(f"ledger: {who} promotes batch {arguments['batch']['number']}")
        return {**answer, "promote": True, "who": who}

    def report(self, folder, here, steps, answer):
        """Write the report where it was asked for, or a rollout stands still; what goes wrong changes nothing."""
        arguments = steps.arguments
        still = steps.written and (arguments["step"] == "hold" or answer.get("failed"))
        rollout = steps.written[-1].rollout if still else arguments["rollout"] if arguments["step"] == "report" else ""
        if not rollout or not arguments["report"]:
            return {}
        try:
            with folder:
                entries, alive = folder.entries(rollout), folder.runs(here, rollout)
            return {"report": rollout_report.write(rollout, entries, arguments["report"], alive)}
        except FleetError as error:
            self._display.warning(f"the report was not written: {printable(error.as_line(), 1000)}")
            return {}

    def tell(self, folder, written, told):
        """Give each entry to the hooks that want it. What they do wrong is said and written, and changes nothing.

        All of a step together have MOST_SECONDS: meanwhile leases run.
        """
        until = time.monotonic() + hooks.MOST_SECONDS
        for entry in written:
            for hook in told:
                if hook.wants(entry.kind, str(entry.data.get("action", ""))):
                    seconds = min(hook.timeout, until - time.monotonic())
                    late = "was not told: the hooks before it took too long"
                    why = ledger_hooks.tell(hook._replace(timeout=seconds), entry) if seconds > 0 else late
                    if why:
                        self.hook_failed(folder, hook, entry, why)

    def hook_failed(self, folder, hook, entry, why):
        kind = entry.data.get("action", entry.kind)
        self._display.warning(f"hook {hook.name} failed on {kind} {entry.sequence}: {why}")
        data = {"hook": hook.name, "kind": kind, "sequence": entry.sequence, "why": why}
        try:
            with folder:
                folder.append(entry.rollout, ledger.HOOK_FAILED, data)
        except FleetError as error:
            self._display.warning(f"the ledger does not say so: {printable(error.as_line(), 1000)}")
