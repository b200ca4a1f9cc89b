# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module bpf_takeoff, and hand on only what its format knows."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import answer
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import failure_of
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed


class ActionModule(GuardedAction):
    """Thin: the module's result goes through `believed`."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "this host")
        try:
            found = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
        except AnsibleConnectionFailure as error:
            words = printable(" ".join(str(error).split()), 1000)
            return {"unreachable": True, "changed": False, "msg": words}
        if self._task.async_val:
            return {**result, **found}
        return {**result, **believed(host, found)}


def believed(host, found):
    """The part of a module's result that its format knows, or a failure that says why it is not believed."""
    failure = failure_of(found)
    if failure is not None:
        return failure
    read = answer.read(host, found)
    if read.document is None:
        return failed(FleetError("EF_NO_ANSWER", read.problem))
    answer_of = {"changed": found.get("changed") is True, "takeoff": read.document}
    return {**answer_of, "diff": answer.diff(read.document)} if found.get("diff") else answer_of
