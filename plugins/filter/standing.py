# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter standing_orders."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import standing


def standing_orders(hostvars, contracts, lacking=None):
    """Sentences of the kill orders that would keep a rollout off; see the filter's documentation."""
    hosts = list(hostvars)
    found = standing.sentences(standing.standing_orders(hosts, contracts))
    return found + standing.lacking([str(host["inventory_hostname"]) for host in hosts], lacking or {})


class FilterModule:
    """The filter's name."""

    def filters(self):
        return {"standing_orders": standing_orders}
