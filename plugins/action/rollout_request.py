# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask something of a rollout by its id, on the controller where its ledger is."""

from __future__ import annotations

import os

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger, ledger_history
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder, ledger_requests
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

REQUESTS = {"pause": ledger_requests.pause, "promote": ledger_requests.promote, "abort": ledger_requests.abort}
ARGUMENTS = {
    "request": {"type": "str", "required": True, "choices": sorted([*REQUESTS, "lift"])},
    "folder": {"type": "str", "default": ""},
    "rollout": {"type": "str", "default": ""},
    "release": {"type": "str", "default": ""},
    "wait": {"type": "float", "default": 0},
}


class ActionModule(ControllerAction):
    """Runs on the controller, once for all hosts; in check mode only says what would be asked."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if self._task.check_mode:
            return {**result, "skipped": True, "changed": False, "msg": "check mode asks nothing of a rollout"}
        try:
            answer = self.asked(arguments)
        except FleetError as error:
            return {**result, **failed(error)}
        return {**result, "changed": True, **answer}

    def asked(self, arguments):
        folder = ledger_folder.Folder(ledger_folder.folder_of(arguments["folder"], os.environ))
        here = ledger_folder.owner_of(os.getppid(), os.environ, ledger_folder.now())
        with folder:
            if arguments["request"] == "lift":
                return {"list": ledger_requests.lift(folder, here, arguments["release"])[1]}
            answer = REQUESTS[arguments["request"]](folder, here, str(arguments["rollout"]))
            if arguments["request"] == "abort" and not answer["live"]:
                self.take_over(folder, here, answer)
        if answer.get("live") and arguments["wait"]:
            answer["state"] = self.waited(folder, here, answer, arguments["wait"])
        return answer

    def take_over(self, folder, here, answer):
        """Of a rollout whose process is gone: that it is to end, and its end where nothing is in hand."""
        folder.append(answer["rollout"], ledger.ABORTED, {"who": here.user})
        if answer["batch"] is None:
            data = {"outcome": ledger_history.ABORTED, "sentence": "with no batch in hand; what was promoted stays"}
            folder.append(answer["rollout"], ledger.ENDED, data)
            folder.forget(answer["rollout"])
            folder.release(here)

    def waited(self, folder, here, answer, seconds):
        """Its state once it has ended; FleetError where it has not in time."""
        self._display.display(f"ledger: {answer['sentence']}; waiting for its end, {seconds:.0f} s at most")
        state = ledger_requests.wait_for_end(folder, here, answer["rollout"], seconds)
        if state in (ledger_history.RUNNING, ledger_history.HELD):
            problem = (
                f"rollout {answer['rollout']} was asked to end and has not within {seconds:.0f} s: its hosts may be in "
                "a bake or a way back; wait for it, or run this again"
            )
            raise FleetError("EF_ROLLOUT_RUNNING", problem)
        return state
