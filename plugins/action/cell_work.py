# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the cell controllers do one step of a rollout on their hosts, and keep what the hosts answered there."""

from __future__ import annotations

import os

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cells, ledger
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.variables import read
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_steps
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_steps import whole
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "step": {"type": "str", "required": True, "choices": [name for name in cells.STEPS if name != "command"]},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "only": {"type": "raw"},
    "arguments": {"type": "raw", "default": {}},
    "bundle": {"type": "str", "default": ""},
    "digest": {"type": "str", "default": ""},
    "plan": {"type": "raw", "default": {}},
    "batch": {"type": "int", "default": 0},
    "rollout": {"type": "str", "default": ""},
    "activation": {"type": "raw", "default": 60},
    "check": {"type": "bool"},
}


class ActionModule(ControllerAction):
    """One task for all hosts; a cell that is lost never fails the task: its hosts are unreachable, and it is named."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        result.update(changed=False, by_cell=[], lost={}, cells={}, folder="")
        hostvars, hosts = task_vars["hostvars"], arguments["hosts"]
        try:
            if not cell_steps.any_controller(hostvars, hosts):
                return result
            done = cell_steps.do(self.step(arguments), hostvars, hosts, arguments["only"], self._display.warning)
        except FleetError as error:
            return {**result, **failed(error)}
        return {**result, "by_cell": done.by_cell, "lost": done.lost, "cells": done.cells, "folder": done.folder}

    def step(self, arguments):
        """What the task asks for."""
        name = arguments["step"]
        return cell_steps.Step(
            name,
            values.plain(arguments["arguments"]),
            self._task.check_mode if arguments["check"] is None else arguments["check"],
            os.path.abspath(self._loader.path_dwim(arguments["bundle"])) if name == "deploy" else "",
            arguments["digest"],
            ledger.digest_of_document(whole(arguments["plan"])),
            arguments["batch"],
            arguments["rollout"],
            read("ebpf_fleet_activation_timeout", arguments["activation"]),
        )
