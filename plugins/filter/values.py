# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that read what people set: one value, and the faults of all."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import variables
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

TRIAGE_OTHERS = ("ebpf_fleet_bundle", "ebpf_fleet_gate_limits", "ebpf_fleet_policy", "ebpf_fleet_report")
GROUPS = {
    "rollout": (variables.ROLLOUT, variables.ROLES, variables.KILL, ("ebpf_fleet_fallbacks",)),
    "capabilities": (variables.CAPABILITIES, ("ebpf_fleet_bundle", "ebpf_fleet_features", "ebpf_fleet_bcc_fallback")),
    "inventory": (variables.INVENTORY, ("ebpf_fleet_report",)),
    "kill_list": (variables.KILL_LIST,),
    "ledger": (variables.LEDGER, variables.KILL, ("ebpf_fleet_ledger", "ebpf_fleet_hooks")),
    "prepare": (variables.ROLES,),
    "release": (variables.RELEASE,),
    "rollback": (variables.KILL,),
    "sampling": (variables.SAMPLING, ("ebpf_fleet_features",)),
    "forensics": (variables.FORENSICS, variables.KILL),
    "gameday": (variables.GAMEDAY, variables.KILL, ("ebpf_fleet_report", "ebpf_fleet_ledger")),
    "triage": (variables.TRIAGE, variables.FORENSICS, variables.KILL, TRIAGE_OTHERS),
}


def value(given, name):
    """Return what the value means for that variable; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: variables.read(name, given))


def value_faults(hostvars, group):
    """Return a sentence for each value that its variable does not take; see the filter's documentation."""
    known = attempt(AnsibleFilterError, lambda: _variables_of(group))
    return variables.faults(list(hostvars), known)


def _variables_of(group):
    if group not in GROUPS:
        raise FleetError("EF_ARGUMENT", f"value_faults: {group!r} is not a group; give one of {', '.join(GROUPS)}")
    return [name for part in GROUPS[group] for name in part]


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"value": value, "value_faults": value_faults}
