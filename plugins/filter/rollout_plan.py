# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""The filter rollout_plan."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils import plan


def rollout_plan(hosts, stages=None, max_batch=None, until=None, partial=False):
    """Stages, batches and sizes for `serial`; see the filter's documentation."""
    try:
        return plan.plan(hosts, stages, max_batch, until, partial)
    except plan.PlanError as error:
        raise AnsibleFilterError(f"rollout_plan: {error}") from error


class FilterModule:
    def filters(self):
        return {"rollout_plan": rollout_plan}
