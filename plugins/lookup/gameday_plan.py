# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which hosts of a play meet which drills."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gameday_plan
short_description: Name the hosts of a play that take part in a game day
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - A host takes part only where the inventory has C(ebpf_fleet_gameday) true for it. Given with C(-e) it would be true
    for all hosts at once, and is refused.
options:
  _terms:
    description: The names of the drills, or C(all).
    required: true
  rollouts:
    description: The C(rollouts) of M(ebpf.fleet.ledger_info). While one runs no host takes part.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Who takes part?
  ansible.builtin.debug:
    msg: "{{ (query('ebpf.fleet.gameday_plan', 'crash_loop') | first).hosts }}"
  run_once: true
"""

RETURN = r"""
_raw:
  description:
    - One mapping with C(drills), C(hosts) (names in the order of the play) and C(left_out) (C(host) and C(why)).
    - Where no host takes part, a mapping with C(fault) alone.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import plain
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import plan
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


class LookupModule(LookupBase):
    """Returns one mapping."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        rollouts = plain(self.get_option("rollouts"))
        return [attempt(AnsibleLookupError, lambda: self.planned(plain(terms[0]), rollouts, variables), told=True)]

    def planned(self, names, rollouts, variables):
        hostvars = variables["hostvars"]
        if plan.MARK in hostvars._variable_manager.extra_vars:
            problem = f"{plan.MARK} is given with -e, which marks every host: set it in the inventory of those hosts"
            raise FleetError("EF_ARGUMENT", problem)
        hosts = [hostvars[name] for name in variables["ansible_play_hosts_all"]]
        return plan.plan(hosts, names, rollouts)
