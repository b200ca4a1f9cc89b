# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the quarantine that earlier rollouts wrote."""

from __future__ import annotations

DOCUMENTATION = r"""
name: quarantine
short_description: Read the strata that releases may not go to
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Reads a quarantine file on the controller. A relative path is meant from where the command was typed.
  - A file that is named and not there is an error: what cannot be read must not be taken for an empty quarantine.
options:
  _terms:
    description: Path of the file; empty gives an empty mapping.
    required: true
  told:
    description: Whether a file that cannot be used is returned as a mapping with C(fault), instead of an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: The quarantine
  ansible.builtin.set_fact:
    kept_off: "{{ lookup('ebpf.fleet.quarantine', 'quarantine.json') }}"
"""

RETURN = r"""
_raw:
  description: The document, one for each path.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.plugin_utils.json_file import Kind, read_object
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

QUARANTINE = Kind(
    "the quarantine", "quarantine", "EF_UNREADABLE",
    "correct ebpf_fleet_quarantine_file; an empty one has the entries []",
    "correct it, or take the variable away to plan without it",
)  # fmt: skip


class LookupModule(LookupBase):
    """Returns one document for each path."""

    def run(self, terms, variables=None, told=False, **kwargs):
        return [attempt(AnsibleLookupError, lambda term=term: read_object(term, QUARANTINE), told) for term in terms]
