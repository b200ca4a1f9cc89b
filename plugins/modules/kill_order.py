#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin kill_order, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kill_order
short_description: Choose the hosts of a kill order, and keep it on the controller until it is taken back
version_added: 0.1.0
description:
  - Keeps kill orders in the folder C(orders) beside the fleet's ledger (C(ebpf_fleet_ledger)), each with its scope, who
    gave it, when, why, who confirmed and who has yet to. It stands there until it is taken back.
  - A host that was off when the order came gets it from the next playbook that touches it, before any program may
    attach there.
  - An order that cannot be kept, as on a full disk, is told loudly and goes to the hosts all the same.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  step:
    description:
      - V(begin) chooses the hosts that O(scope) means and keeps the order, before any host is asked. With
        O(state=released) it keeps that the order is to be taken back. With C(previous) as the scope, it gives hosts the
        orders that stand for them.
      - V(end) keeps who confirmed.
      - V(give) gives O(hosts) the orders that stand for them.
      - V(list) reads the orders that stand, and changes nothing.
    type: str
    required: true
    choices: [begin, end, give, list]
  scope:
    description: What goes off and where, as P(ebpf.fleet.kill_refusal#filter) takes it.
    type: raw
    default: global
  state:
    description: V(engaged), or V(released) to take the order back.
    type: str
    default: engaged
    choices: [engaged, released]
  reason:
    description: Why, kept with the order.
    type: raw
    default: ""
  hosts:
    description: Inventory names of the play's hosts.
    type: raw
    default: []
  id:
    description: For V(end), what V(begin) returned.
    type: str
    default: ""
  answers:
    description: For V(end), each host's answer, as P(ebpf.fleet.kill_census#filter) has it.
    type: dict
    default: {}
  by_cell:
    description: For V(give), as of M(ebpf.fleet.fan_out).
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is written and no host is asked.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: An order that stands already stays the order that it is.
    support: full
seealso:
  - module: ebpf.fleet.fan_out
  - plugin: ebpf.fleet.kill_script
    plugin_type: filter
notes:
  - Put C(run_once) and C(delegate_to) C(localhost) on the task; no connection is opened to that host.
"""

EXAMPLES = r"""
- name: List the orders that stand
  ebpf.fleet.kill_order:
    step: list
  register: orders
  run_once: true
  delegate_to: localhost

- name: Give hosts what stands for them, before anything is done there
  ebpf.fleet.kill_order:
    step: give
    hosts: "{{ ansible_play_hosts_all }}"
  register: given
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
hosts:
  description: Those that are to be asked, in the order of the play.
  returned: success
  type: list
  elements: str
answers:
  description: Results, as M(ebpf.fleet.fan_out) gives them, of hosts that need not or may not be asked.
  returned: success
  type: dict
id:
  description: Id of the order on the controller; empty where it could not be kept or none is known.
  returned: success
  type: str
lost:
  description: A sentence for each thing that the scope names and that is not there.
  returned: success
  type: list
  elements: str
told:
  description: What a person must know of the order on the controller, a sentence each.
  returned: success
  type: list
  elements: str
refused:
  description: "Why a host does not have an order that stands for it: C({host: sentence})."
  returned: success
  type: dict
list:
  description: The orders that stand, a line each.
  returned: success
  type: list
  elements: str
orders:
  description: The same, with the fields of docs/formats/standing-order.md.
  returned: success
  type: list
  elements: dict
reason_code:
  description: Why it was refused or failed, a code of docs/reason-codes.md.
  returned: failure
  type: str
remedy:
  description: What docs/reason-codes.md says to do.
  returned: failure
  type: str
file:
  description: The file that the reason is about, or null.
  returned: failure
  type: str
"""
