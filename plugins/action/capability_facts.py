# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module capability_facts, and hand on only what its format knows.

What a host returns is judged before Ansible stores it: a document that is not one never becomes a
variable, and neither do facts, hosts or warnings that a hostile host adds to its result.
"""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document
from ansible_collections.ebpf.fleet.plugins.plugin_utils.cell_answers import taken
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import MESSAGE_LIMIT, failure_of, one_line
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

UNPRIVILEGED = "Not privileged: the kernel answers few questions; use become to have them all answered"


class ActionModule(GuardedAction):
    """Thin: the module's result goes through `believed`."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "this host")
        features = asked_about(self._task.args.get("contracts"))
        answer = taken(task_vars, "capability_facts")
        if answer is not None:
            # Of a cell controller it is still what a host said.
            return {**result, **believed(host, answer, features)}
        try:
            answer = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "changed": False, "msg": printable(one_line(str(error)), MESSAGE_LIMIT)}
        except RecursionError:
            # ansible-core's own reader of a module's JSON, on a document of thousands of levels.
            return no_answer(f"no usable answer from {host}: the answer: is nested too deep")
        if self._task.async_val:
            return {**result, **answer}
        return {**result, **believed(host, answer, features)}


def asked_about(contracts):
    """Names of the features that were asked about; none where the argument is not a list of contracts."""
    if not isinstance(contracts, (list, tuple)):
        return []
    return [one["feature"] for one in contracts if isinstance(one, dict) and isinstance(one.get("feature"), str)]


def believed(host, answer, features):
    """The part of a module's result that its format knows, or a failure that says why it is not believed."""
    failure = failure_of(answer)
    if failure is not None:
        return failure
    read = capability_document.read(host, answer, features)
    if read.capabilities is None:
        return no_answer(read.problem or f"no usable answer from {host}: capabilities: is missing")
    return {
        "changed": False,
        "capabilities": read.capabilities,
        "profiles": read.profiles,
        "ansible_facts": {"ebpf_fleet_capabilities": read.capabilities},
        **({"warnings": [UNPRIVILEGED]} if read.capabilities.get("privileged") is False else {}),
    }


def no_answer(message):
    """A failed result; the message is printable."""
    return failed(FleetError("EF_NO_ANSWER", message))
