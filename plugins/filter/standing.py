# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter standing_orders."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import standing


def standing_orders(hostvars, contracts):
    """Sentences of the kill orders that would keep a rollout off; see the filter's documentation."""
    return standing.sentences(standing.standing_orders(list(hostvars), contracts))


class FilterModule:
    """The filter's name."""

    def filters(self):
        return {"standing_orders": standing_orders}
