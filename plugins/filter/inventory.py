# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that put together what BPF the hosts of a fleet have, and that print it."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import document, fleet
from ansible_collections.ebpf.fleet.plugins.module_utils.report import inventory as report
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def fleet_inventory(answers, last=None, time=None):
    """Return the fleet's inventory; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: fleet.fleet_inventory(answers, _usable(last), time))


def inventory_lines(found):
    """Return the inventory in lines; see the filter's documentation."""

    def lines():
        faults = document.fleet_faults(found)
        if faults:
            raise FleetError("EF_UNREADABLE", f"inventory_lines: the document cannot be used: {faults}; write it again")
        return report.inventory_lines(found)

    return attempt(AnsibleFilterError, lines)


def _usable(last):
    if not last:
        return None
    faults = document.fleet_faults(last)
    if faults:
        problem = f"the last inventory cannot be used: {faults}; write it again with inventory.yml"
        raise FleetError("EF_LAST_INVENTORY", problem)
    return last


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"fleet_inventory": fleet_inventory, "inventory_lines": inventory_lines}
