#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take others' eBPF off a host, prove it, and put back exactly that."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bpf_takeoff
short_description: Take others' eBPF off a host, prove from the kernel that it is off, and put back exactly that
version_added: 0.1.0
description:
  - Finds what belongs to a systemd unit, or every program of one tag, as M(ebpf.fleet.bpf_inventory_info) does it.
    What is only a guess is told and left.
  - Stops and masks the units that hold it, ends other processes that do, and detaches what outlives them, which is
    links, XDP, tc filters, tcx, netkit and programs at cgroups. Each is taken off only if it still is that program.
  - Writes down before it changes anything what it will do and what puts that back, in
    C(/var/lib/ebpf-fleet/foreign), and goes on there where it was interrupted.
  - Asks the kernel again. C(off) is said only where no program of it is attached or held by a process.
  - Never touches what is of ebpf.fleet, systemd, sshd, D-Bus, or the unit in which the module itself runs.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  scope:
    description: C(unit=NAME) of a systemd unit by its full name, or C(program=TAG) with a tag of 16 hex digits.
    type: str
    required: true
  state:
    description:
      - V(engaged) takes it off.
      - V(released) puts back what the record says was taken off, each thing only where its place is free.
    type: str
    default: engaged
    choices: [engaged, released]
  confirm:
    description:
      - C(takeoff-unit=NAME) or C(takeoff-program=TAG), just as O(scope) has it; for V(released) C(release).
      - Without it the task fails, but in check mode.
    type: str
    default: ""
  reason:
    description: Why, kept in the record. Without it the task fails, but in check mode.
    type: str
    default: ""
  remove_pins:
    description: Whether pins of these programs and their links are removed, too. Else they are told.
    type: bool
    default: false
  wait:
    description: Seconds until the kernel must show that it is off, 0 to 600.
    type: float
    default: 10
attributes:
  check_mode:
    description: Says exactly what would be done, and changes nothing.
    support: full
  diff_mode:
    description: Shows the steps.
    support: full
  idempotent:
    description: What is off already is proved again and is not a change.
    support: full
seealso:
  - module: ebpf.fleet.bpf_inventory_info
  - module: ebpf.fleet.kill_switch
notes:
  - A process that is in no unit, and one of a container or a login session, is ended and cannot be started by this.
"""

EXAMPLES = r"""
- name: What would be done about this agent?
  ebpf.fleet.bpf_takeoff:
    scope: unit=net-agent.service
  check_mode: true
  register: planned

- name: Take it off
  ebpf.fleet.bpf_takeoff:
    scope: unit=net-agent.service
    confirm: takeoff-unit=net-agent.service
    reason: it halves the throughput
  register: found
  failed_when: found.takeoff.status != 'off'

- name: Put it back
  ebpf.fleet.bpf_takeoff:
    scope: unit=net-agent.service
    state: released
    confirm: release
    reason: the vendor has repaired it
"""

RETURN = r"""
takeoff:
  description: What was found, done and proved; the format is in docs/formats/takeoff.md.
  returned: success
  type: dict
  sample:
    schema: ebpf.fleet/takeoff/v1
    target: unit=net-agent.service
    status: "off"
    left: []
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

LONGEST_WAIT_SECONDS = 600


def run(module):
    """The answer; FleetError for what is refused."""
    # Only Linux has what these import.
    from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import host, target

    asked = module.params
    refused = target.refusal(asked["scope"], asked["state"], asked["confirm"], asked["reason"], module.check_mode)
    if refused:
        raise FleetError("EF_ARGUMENT", refused)
    if not 0 <= asked["wait"] <= LONGEST_WAIT_SECONDS:
        raise FleetError("EF_ARGUMENT", f"wait: is {asked['wait']}; give seconds from 0 to {LONGEST_WAIT_SECONDS}")
    wish = host.Wish(
        target.parse(asked["scope"]), asked["reason"], asked["remove_pins"], module.check_mode, asked["wait"]
    )
    try:
        return host.release(wish) if asked["state"] == target.RELEASED else host.take_off(wish)
    except OSError as error:
        raise host.explained(error) from error


def diff_of(answer):
    """The steps as a difference: nothing was planned before."""
    from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.answer import diff

    return diff(answer["takeoff"])


def main():
    module = AnsibleModule(
        argument_spec={
            "scope": {"type": "str", "required": True},
            "state": {"type": "str", "default": "engaged", "choices": ["engaged", "released"]},
            "confirm": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
            "remove_pins": {"type": "bool", "default": False},
            "wait": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    if platform.system() != "Linux":
        problem = f"{platform.system()}: eBPF is the Linux kernel's; take this host out of the play"
        module.fail_json(**FleetError("EF_UNSUPPORTED_HOST", problem).as_result())
    try:
        answer = run(module)
    except FleetError as error:
        module.fail_json(**error.as_result())
    if module._diff:
        answer["diff"] = diff_of(answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
