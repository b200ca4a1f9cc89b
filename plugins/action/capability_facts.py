# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module capability_facts, and hand on only what its format knows.

What a host returns is judged before Ansible stores it: a document that is not one never becomes a
variable, and neither do facts, hosts or warnings that a hostile host adds to its result.
"""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document
from ansible_collections.ebpf.fleet.plugins.plugin_utils.believed import BelievedAction, no_answer
from ansible_collections.ebpf.fleet.plugins.plugin_utils.cell_answers import taken
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import failure_of

UNPRIVILEGED = "Not privileged: the kernel answers few questions; use become to have them all answered"


class ActionModule(BelievedAction):
    """Thin: the module's result goes through `believed`."""

    def found(self, host, task_vars):
        answer = taken(task_vars, "capability_facts")
        # Of a cell controller it is still what a host said.
        return super().found(host, task_vars) if answer is None else self.believe(host, answer)

    def believe(self, host, answer):
        return believed(host, answer, asked_about(self._task.args.get("contracts")))


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
