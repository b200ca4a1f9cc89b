# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module gameday_drill, and hand on only what its format knows."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import answer as answers
from ansible_collections.ebpf.fleet.plugins.plugin_utils.believed import BelievedAction, no_answer
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_failure import failure_of


class ActionModule(BelievedAction):
    """Thin: the module's result goes through the format's own reader."""

    def believe(self, host, answer):
        failure = failure_of(answer)
        if failure is not None:
            return failure
        document, problem = answers.read(host, answer)
        return no_answer(problem) if document is None else {"changed": answer.get("changed") is True, **document}
