# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which hosts a playbook of this collection addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
short_description: Name the hosts of a play so that none is left out
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Returns what a play's C(hosts) is to be. A text that is exactly the name of a host means that host, whatever
    signs of patterns the name holds; every other text is a pattern and is handed on as it is.
  - It is an error when no host is addressed.
options:
  _terms:
    description: One pattern or name, or a list of them.
    required: true
  exactly:
    description: Whether the terms are names, and it is an error unless exactly these hosts are addressed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Address exactly these two hosts
  hosts: "{{ query('ebpf.fleet.hosts', ['web, blue', 'db: primary']) }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: Patterns for C(hosts).
  type: list
  elements: str
"""

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.plugin_utils.early import load_filters
from ansible_collections.ebpf.fleet.plugins.plugin_utils.inventory_answer import InventoryAnswer, texts_of
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

NO_HOST = "no host is addressed: check the inventory (-i), ebpf_fleet_hosts and --limit"


class LookupModule(LookupBase):
    """Returns the patterns of each term."""

    def run(self, terms, variables=None, **kwargs):
        # A play's hosts are found before its first worker is forked.
        load_filters()
        answer = InventoryAnswer(self._loader, variables)
        asked = texts_of(terms)
        self.set_options(var_options=variables, direct=kwargs)
        attempt(AnsibleLookupError, lambda: refuse(answer, asked, self.get_option("exactly")))
        return answer.patterns(asked)


def refuse(answer, asked, exactly):
    """FleetError where no host is addressed, or not exactly those that were asked for."""
    try:
        names = answer.names(asked)
        unmatched = [] if names else answer.unmatched(asked)
    except AnsibleError as error:
        raise FleetError("EF_HOSTS", f"{NO_HOST}; {error}") from error
    if exactly and sorted(names) != sorted(asked):
        raise FleetError("EF_HOSTS", " ".join(hostnames.difference(asked, names)))
    if not names:
        raise FleetError("EF_HOSTS", "; ".join([NO_HOST, *unmatched]))
