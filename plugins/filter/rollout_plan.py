# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter rollout_plan."""

from __future__ import annotations

import functools

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import plan
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt, fault_of


def rollout_plan(hosts, stages=None, max_batch=None, until=None, partial=False, told=False):
    """Stages, batches and sizes for `serial`; see the filter's documentation."""
    if told and fault_of(hosts):
        return hosts
    ask = functools.partial(plan.plan, hosts, stages, max_batch, until, partial)
    return attempt(AnsibleFilterError, ask, told)


class FilterModule:
    def filters(self):
        return {"rollout_plan": rollout_plan}
