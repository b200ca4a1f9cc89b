# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say whom a play left out."""

from __future__ import annotations

DOCUMENTATION = r"""
name: left_out
short_description: Compare the hosts of a play with the inventory's own answer
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Asks the inventory again which hosts the terms and C(--limit) mean, and compares that with the hosts of the play.
  - Also names every term that matches no host and no group, with the nearest name.
options:
  _terms:
    description: What was given to P(ebpf.fleet.hosts#lookup).
    required: true
"""

EXAMPLES = r"""
- name: Fail when a host was left out
  ansible.builtin.assert:
    that: left_out | length == 0
    fail_msg: "{{ left_out | join(' ') }}"
  vars:
    left_out: "{{ query('ebpf.fleet.left_out', ebpf_fleet_hosts | default('all')) }}"
  run_once: true
"""

RETURN = r"""
_raw:
  description: One sentence for each fault; empty when exactly the hosts that were meant are addressed.
  type: list
  elements: str
"""

from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.plugin_utils.inventory_answer import InventoryAnswer, texts_of


class LookupModule(LookupBase):
    """Returns sentences."""

    def run(self, terms, variables=None, **kwargs):
        answer = InventoryAnswer(self._loader, variables)
        asked = texts_of(terms)
        found = hostnames.difference(answer.names(asked), variables["ansible_play_hosts_all"])
        return found + answer.unmatched(asked)
