# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn what hosts answered into what a plan or a person needs."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils import census


def rollout_hosts(hostvars):
    """Return what a rollout plan needs of each host."""
    return [census.rollout_host(host) for host in hostvars]


def batch_sentence(batch):
    """Return which hosts a batch changes, in one sentence."""
    return "batch %d (%s): %s" % (batch["index"], batch["stage"], ", ".join(batch["hosts"]))


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "batch_sentence": batch_sentence,
            "rollout_hosts": rollout_hosts,
            "capability_census": census.capability_census,
        }
