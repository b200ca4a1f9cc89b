# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the fleet's ledger on the controller: verify its chain, list rollouts, explain one."""

from __future__ import annotations

import os

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable_document
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder, ledger_requests, rollout_report
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {"folder": {"type": "str", "default": ""}, "rollout": {"type": "str", "default": ""},
             "records": {"type": "str", "default": ""}}  # fmt: skip


class ActionModule(ControllerAction):
    """Runs on the controller, once for all hosts, and changes nothing."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        path = ledger_folder.folder_of(arguments["folder"], os.environ)
        folder = ledger_folder.Folder(path, writes=False)
        try:
            here = ledger_folder.owner_of(os.getppid(), os.environ, ledger_folder.now())
            rollout = str(arguments["rollout"])
            answer = ledger_requests.told(folder, here, rollout)
            page = self.page(folder, here, rollout, arguments["records"]) if arguments["records"] and rollout else ""
        except FleetError as error:
            return {**result, **failed(error)}
        limit = ledger_folder.TEXT_LIMIT
        return {**result, "changed": False, "folder": str(path), **printable_document(answer, limit), "page": page}

    def page(self, folder, here, rollout, records):
        """The report of a rollout, of what the ledger has up to a break."""
        return rollout_report.page_of(rollout, folder.read_all().entries, records, folder.runs(here, rollout))
