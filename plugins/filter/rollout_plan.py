# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter rollout_plan."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import plan
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_holdback import read_holdback
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt, fault_of


def rollout_plan(
    hosts, stages=None, max_batch=None, until=None, partial=False, told=False, growth=None, fleet_percent=None,
    cell_percent=None, bake=None, holdback=None, holdback_until=None, today=None, left_out=(),
):  # fmt: skip
    """Stages, batches and sizes for `serial`; see the filter's documentation."""
    if told and fault_of(hosts):
        return hosts

    def ask():
        held = read_holdback(holdback, holdback_until, today)
        wishes = plan.Wishes(
            stages, max_batch, until, partial, growth, fleet_percent, cell_percent, bake, held, list(left_out)
        )
        return plan.plan(hosts, wishes)

    return attempt(AnsibleFilterError, ask, told)


class FilterModule:
    def filters(self):
        return {"rollout_plan": rollout_plan}
