#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List every BPF object on a host, whoever's it is."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bpf_inventory_info
short_description: List every eBPF program, link, map and pin on a host, whoever's it is
version_added: 0.1.0
description:
  - Asks the kernel for every eBPF program, link, map and pin with what it is attached to, who holds it (process,
    systemd unit, container), which user loaded it and when, what it cost, and how much memory it has.
  - Finds programs at interfaces (XDP, tc, tcx, netkit) in every network namespace by netlink, those at cgroups by
    asking each cgroup, those of perf events by asking each process, and pins by reading every bpffs.
  - What the kernel refuses to tell, and what was left out for want of time or room, stands in C(unknown). A cost
    that was not measured is null, never 0. Whose a program is, is a guess only where C(guess) is true.
  - Changes nothing, loads nothing, and leaves no descriptor open. Needs root; without it the lists are null.
author: The ebpf.fleet authors (@ebpf-fleet)
options: {}
attributes:
  check_mode:
    description: Asks the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: Never changes a host.
    support: full
seealso:
  - module: ebpf.fleet.capability_facts
"""

EXAMPLES = r"""
- name: What eBPF is on this host?
  ebpf.fleet.bpf_inventory_info:
  register: found

- name: Show who holds what
  ansible.builtin.debug:
    msg: "{{ item.name }} at {{ item.points | join(', ') }}: {{ item.owner.name }} ({{ item.owner.why }})"
  loop: "{{ found.inventory.programs }}"
  loop_control:
    label: "{{ item.id }}"
"""

RETURN = r"""
inventory:
  description: What is on the host; the format is in docs/formats/bpf-inventory.md.
  returned: success
  type: dict
  sample:
    schema: ebpf.fleet/bpf-inventory/v1
    time: "2026-11-27T16:00:00Z"
    privileged: true
    unknown: []
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

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError


def main():
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    if platform.system() != "Linux":
        problem = f"{platform.system()}: eBPF is the Linux kernel's; take this host out of the play"
        module.fail_json(**FleetError("EF_UNSUPPORTED_HOST", problem).as_result())
    # Only Linux has what these import.
    from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import ask, host

    found = host.assemble(ask.ask())
    if not found["privileged"]:
        module.warn("Not privileged: the kernel lists nothing; use become")
    module.exit_json(changed=False, inventory=found)


if __name__ == "__main__":
    main()
