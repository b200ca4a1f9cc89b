# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn what hosts answered into what a plan or a person needs."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils import census


def rollout_hosts(hostvars):
    """Return what a rollout plan needs of each host."""
    return [census.rollout_host(host) for host in hostvars]


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "rollout_hosts": rollout_hosts,
            "capability_census": census.capability_census,
        }
