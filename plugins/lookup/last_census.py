# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the census that capabilities.yml wrote."""

from __future__ import annotations

DOCUMENTATION = r"""
name: last_census
short_description: Read the census that capabilities wrote
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Reads C(census.json) on the controller. A relative path is meant from where the command was typed.
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
- name: The last census
  ansible.builtin.set_fact:
    last: "{{ lookup('ebpf.fleet.last_census', 'census.json') }}"
"""

RETURN = r"""
_raw:
  description: The census, one for each path.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.plugin_utils.json_file import Kind, read_object
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

CENSUS = Kind(
    "the last census", "census", "EF_CENSUS", "write it with capabilities.yml", "write it again with capabilities.yml"
)


class LookupModule(LookupBase):
    """Returns one document for each path."""

    def run(self, terms, variables=None, told=False, **kwargs):
        return [attempt(AnsibleLookupError, lambda term=term: read_object(term, CENSUS), told) for term in terms]
