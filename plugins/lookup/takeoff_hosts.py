# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which hosts of a play the scope of others' programs means."""

from __future__ import annotations

DOCUMENTATION = r"""
name: takeoff_hosts
short_description: Name the hosts of a play that a scope of others' programs means
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Chooses by C(cell=) and C(host=) of the scope among the hosts of the play. Without these it is all of them.
options:
  _terms:
    description: The scope, as P(ebpf.fleet.takeoff_refusal#filter) takes it.
    required: true
"""

EXAMPLES = r"""
- name: Whom does it mean?
  ansible.builtin.debug:
    msg: "{{ (query('ebpf.fleet.takeoff_hosts', 'unit=net-agent.service,cell=a') | first).hosts }}"
  run_once: true
"""

RETURN = r"""
_raw:
  description:
    - One mapping with C(target) (C(unit=) or C(program=) alone), C(hosts) (names in the order of the play) and C(lost)
      (a sentence for each thing that the scope names and that is not there).
    - Where it means no host, a mapping with C(fault) alone.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import plain
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope
from ansible_collections.ebpf.fleet.plugins.plugin_utils import order_hosts
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


class LookupModule(LookupBase):
    """Returns one mapping."""

    def run(self, terms, variables=None, **kwargs):
        return [attempt(AnsibleLookupError, lambda: self.chosen(plain(terms[0]), variables), told=True)]

    def chosen(self, given, variables):
        wanted = scope.read_foreign(given)
        found = order_hosts.choose(wanted, variables["ansible_play_hosts_all"], variables, self._loader)
        return {"target": wanted.foreign, "hosts": list(found.hosts), "lost": found.lost}
