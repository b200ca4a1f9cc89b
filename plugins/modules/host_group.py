#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin host_group, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_group
short_description: Put a host of the inventory into a group by its exact name
version_added: 0.1.0
description:
  - Puts one host that the inventory has into a group, for the plays that follow. The group is made if need be, and
    keeps the order in which hosts are put into it.
  - Unlike M(ansible.builtin.add_host) it never reads the name as an address with a port, so a host that is called
    C(db:5432) stays that host, and it never makes a host that the inventory does not have.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  name:
    description: The host's exact name in the inventory.
    type: str
    required: true
  group:
    description: The group.
    type: str
    required: true
attributes:
  check_mode:
    description: Does the same in check mode, as it changes nothing on any host.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
seealso:
  - module: ansible.builtin.add_host
"""

EXAMPLES = r"""
- name: Queue the hosts batch by batch
  ebpf.fleet.host_group:
    name: "{{ item }}"
    group: ebpf_fleet_rollout
  loop: ["web, blue", "db:5432"]
  run_once: true
"""

RETURN = r"""
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
