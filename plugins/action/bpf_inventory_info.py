# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module bpf_inventory_info, and hand on only what its format knows.

A process on the host chooses its name, a program its name, and whoever pins one its path: what comes
back is judged and made printable before Ansible stores or shows it.
"""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import document
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import failure_of
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

UNPRIVILEGED = "Not privileged: the kernel lists nothing; use become"


class ActionModule(GuardedAction):
    """Thin: the module's result goes through `believed`."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "this host")
        try:
            answer = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
        except AnsibleConnectionFailure as error:
            words = printable(" ".join(str(error).split()), 1000)
            return {"unreachable": True, "changed": False, "msg": words}
        except RecursionError:
            # ansible-core's own reader of a module's JSON, on a document of thousands of levels.
            problem = f"no usable answer from {host}: the answer: is nested too deep"
            return failed(FleetError("EF_NO_ANSWER", problem))
        if self._task.async_val:
            return {**result, **answer}
        return {**result, **believed(host, answer)}


def believed(host, answer):
    """The part of a module's result that its format knows, or a failure that says why it is not believed."""
    failure = failure_of(answer)
    if failure is not None:
        return failure
    read = document.read(host, answer)
    if read.inventory is None:
        return failed(
            FleetError("EF_NO_ANSWER", read.problem or f"no usable answer from {host}: inventory: is missing")
        )
    unprivileged = {} if read.inventory["privileged"] else {"warnings": [UNPRIVILEGED]}
    return {"changed": False, "inventory": read.inventory, **unprivileged}
