# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action that runs its module on the host and hands on only what is believed of the answer."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import MESSAGE_LIMIT, one_line
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed


class BelievedAction(GuardedAction):
    """Its own is `believe(host, answer)`: the part of a module's answer that its format knows, or a failed result."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        return {**result, **self.found((task_vars or {}).get("inventory_hostname", "this host"), task_vars)}

    def found(self, host, task_vars):
        """Ask the host, and believe what its format knows."""
        try:
            answer = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "changed": False, "msg": printable(one_line(str(error)), MESSAGE_LIMIT)}
        except RecursionError:
            # ansible-core's own reader of a module's JSON, on a document of thousands of levels.
            return no_answer(f"no usable answer from {host}: the answer: is nested too deep")
        return answer if self._task.async_val else self.believe(host, answer)


def no_answer(message):
    """A failed result; the message is printable."""
    return failed(FleetError("EF_NO_ANSWER", message))
