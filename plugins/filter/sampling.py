# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters sampling_plan and sampling_hosts."""

from __future__ import annotations

import functools

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import sampling
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def sampling_plan(hosts, feature, per_hour, told=False):
    """The sampling of each host; see the filter's documentation."""
    return attempt(AnsibleFilterError, functools.partial(sampling.sampling_plan, hosts, feature, per_hour), told)


def sampling_hosts(hostvars):
    """What sampling_plan needs of each host, in their order; see the filter's documentation."""
    return [
        {
            "observation": (host.get("ebpf_fleet_observed") or {}).get("observation"),
            "features": host.get("ebpf_fleet_features"),
        }
        for host in hostvars
    ]


class FilterModule:
    def filters(self):
        return {"sampling_plan": sampling_plan, "sampling_hosts": sampling_hosts}
