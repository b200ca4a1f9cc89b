# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put one host of the inventory into a group for the plays that follow, by its exact name."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {"name": {"type": "str", "required": True}, "group": {"type": "str", "required": True}}


class ActionModule(ControllerAction):
    """The name is never read as an address: add_host makes another host, `db`, of one that is called `db:5432`."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        name = arguments["name"]
        if name not in task_vars["hostvars"]:
            known = task_vars["groups"]["all"]
            problem = f"name: {hostnames.some_of([name])} is not in the inventory; {hostnames.nearest(name, known)}"
            return {**result, **failed(FleetError("EF_HOSTS", problem))}
        result["add_host"] = {"host_name": name, "groups": [arguments["group"]], "host_vars": {}}
        return result
