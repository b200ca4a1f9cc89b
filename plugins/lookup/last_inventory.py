# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the inventory that inventory.yml wrote."""

from __future__ import annotations

DOCUMENTATION = r"""
name: last_inventory
short_description: Read the eBPF inventory that inventory wrote
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Reads the document on the controller. A relative path is meant from where the command was typed.
options:
  _terms:
    description: Path of the file; empty gives an empty mapping.
    required: true
  told:
    description: Whether a file that cannot be used is returned as a mapping with C(fault), instead of an error.
    type: bool
    default: false
  absent:
    description: Whether a file that is not there gives an empty mapping.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: The last inventory
  ansible.builtin.set_fact:
    last: "{{ lookup('ebpf.fleet.last_inventory', 'inventory.json') }}"
"""

RETURN = r"""
_raw:
  description: The inventory, one for each path.
  type: list
  elements: dict
"""

import os

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.document import fleet_faults
from ansible_collections.ebpf.fleet.plugins.plugin_utils.json_file import Kind, read_object
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

INVENTORY = Kind(
    "the last inventory", "inventory", "EF_LAST_INVENTORY", "write it with inventory.yml, or name none",
    "name another, or write it again with inventory.yml",
)  # fmt: skip


def read_inventory(path, absent):
    """The document at ``path``, judged; FleetError names file, host and field."""
    full = os.path.join(os.environ.get("PWD", os.getcwd()), os.path.expanduser(path)) if path else path
    if absent and full and not os.path.lexists(full):
        return {}
    found = read_object(path, INVENTORY)
    faults = fleet_faults(found) if path else None
    if faults:
        raise FleetError(INVENTORY.code, f"the last inventory {full}: {faults}; {INVENTORY.again}", full)
    return found


class LookupModule(LookupBase):
    """Returns one document for each path."""

    def run(self, terms, variables=None, told=False, absent=False, **kwargs):
        return [attempt(AnsibleLookupError, lambda term=term: read_inventory(term, absent), told) for term in terms]
