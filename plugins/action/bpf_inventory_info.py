# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module bpf_inventory_info, and hand on only what its format knows.

A process on the host chooses its name, a program its name, and whoever pins one its path: what comes
back is judged and made printable before Ansible stores or shows it.
"""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import document
from ansible_collections.ebpf.fleet.plugins.plugin_utils.believed import BelievedAction, no_answer
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import failure_of

UNPRIVILEGED = "Not privileged: the kernel lists nothing; use become"


class ActionModule(BelievedAction):
    """Thin: the module's result goes through `believed`."""

    def believe(self, host, answer):
        return believed(host, answer)


def believed(host, answer):
    """The part of a module's result that its format knows, or a failure that says why it is not believed."""
    failure = failure_of(answer)
    if failure is not None:
        return failure
    read = document.read(host, answer)
    if read.inventory is None:
        return no_answer(read.problem or f"no usable answer from {host}: inventory: is missing")
    unprivileged = {} if read.inventory["privileged"] else {"warnings": [UNPRIVILEGED]}
    return {"changed": False, "inventory": read.inventory, **unprivileged}
