# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module bpf_takeoff, and hand on only what its format knows."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import answer
from ansible_collections.ebpf.fleet.plugins.plugin_utils.believed import BelievedAction, no_answer
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import failure_of


class ActionModule(BelievedAction):
    """Thin: the module's result goes through `believed`."""

    def believe(self, host, answer):
        return believed(host, answer)


def believed(host, found):
    """The part of a module's result that its format knows, or a failure that says why it is not believed."""
    failure = failure_of(found)
    if failure is not None:
        return failure
    read = answer.read(host, found)
    if read.document is None:
        return no_answer(read.problem)
    answer_of = {"changed": found.get("changed") is True, "takeoff": read.document}
    return {**answer_of, "diff": answer.diff(read.document)} if found.get("diff") else answer_of
