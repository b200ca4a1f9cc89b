# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one command on many hosts at once from the controller, each within its own bound."""

from __future__ import annotations

import time

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import output
from ansible_collections.ebpf.fleet.plugins.plugin_utils import fan_out_run
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "command": {"type": "str", "required": True},
    "hosts": {"type": "raw", "required": True},
    "connect_timeout": {"type": "raw", "default": fan_out_run.CONNECT_SECONDS},
    "timeout": {"type": "raw", "default": fan_out_run.SECONDS},
    "logins": {"type": "raw", "default": 0},
    "kex_algorithms": {"type": "str", "default": fan_out_run.KEX_ALGORITHMS},
    "by_cell": {"type": "bool", "default": False},
    "stdout_bytes": {"type": "raw", "default": output.HEAD_BYTES},
    "save_to": {"type": "str", "default": ""},
}


class ActionModule(ControllerAction):
    """One task for all hosts; what a host does is that host's result and never fails the task."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            hosts = names(arguments["hosts"])
            arguments.update(bounds(arguments))
        except FleetError as error:
            return {**result, **failed(error)}
        if self._task.check_mode:
            asked = {host: {"skipped": True, "seconds": None} for host in hosts}
            result.update(changed=False, skipped=True, hosts=asked, seconds=0.0, msg="check mode asks no host")
            return result
        begun = time.monotonic()
        try:
            answers = fan_out_run.answers_of(self, arguments, task_vars, hosts)
        except FleetError as error:
            return {**result, **failed(error)}
        result.update(changed=True, hosts=answers, seconds=round(time.monotonic() - begun, 3))
        return result


def names(hosts):
    """The exact names, each once; a text would have to be split, and a name may hold any separator."""
    if isinstance(hosts, str) or not isinstance(hosts, (list, tuple)):
        raise FleetError(
            "EF_ARGUMENT", "hosts: give a list of inventory names, as ansible_play_hosts_all is, not a text"
        )
    found = list(dict.fromkeys(str(host) for host in hosts))
    if not found:
        raise FleetError("EF_HOSTS", "hosts: the list is empty; name at least one host for the command")
    return found


READERS = {
    "connect_timeout": values.decimal(1, 3600),
    "timeout": values.decimal(1, 3600),
    "logins": values.whole(0, 4096),
    "stdout_bytes": values.whole(1024, output.FLOOD_BYTES),
}


def bounds(arguments):
    """Times and numbers, also as text; what cannot be meant is refused by name."""
    return {name: read(name, arguments[name]) for name, read in READERS.items()}
