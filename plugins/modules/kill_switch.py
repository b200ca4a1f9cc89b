#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn eBPF features off, and prove from the kernel that they are."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kill_switch
short_description: Turn eBPF features off, and prove from the kernel that they are
version_added: 0.1.0
description:
  - Places or removes kill orders and waits until the kernel shows that they took effect.
  - An order holds until it is released, also when the loader restarts or the host boots.
  - This module needs Python on the host. In an emergency use the playbook C(rollback.yml), whose script
    needs none and also kills a loader that does not obey.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  scopes:
    description:
      - What to turn off. C(global) is everything, C(feature=NAME) one feature, C(kernel_family=6.1) (or
        C(debian-6.1)) everything on hosts of that kernel family.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(engaged) places the orders and confirms that they took effect.
      - V(released) removes them; the loader then attaches again what is wanted.
      - V(query) only looks.
    type: str
    choices: [engaged, released, query]
    default: engaged
  persistent:
    description: Also place the orders in O(etc_dir), so that they hold across a reboot.
    type: bool
    default: true
  wait:
    description: Seconds until the orders must have taken effect, 0 to 600; then the task fails.
    type: float
    default: 10
  etc_dir:
    description: Folder of the persistent control files.
    type: path
    default: /etc/ebpf-fleet
  run_dir:
    description: Folder of the volatile control files.
    type: path
    default: /run/ebpf-fleet
  state_dir:
    description: The loader's state directory.
    type: path
    default: /run/ebpf-fleet-loader
  collector_state_dir:
    description: The BCC collector's state directory.
    type: path
    default: /run/ebpf-fleet-bcc
  lib_dir:
    description: Folder of the releases, whose contracts say which programs a feature has.
    type: path
    default: /var/lib/ebpf-fleet
attributes:
  check_mode:
    description: Says what would change and changes nothing; confirms nothing.
    support: full
  diff_mode:
    description: Shows the orders before and after.
    support: full
  idempotent:
    description: An order that lies there already is not a change. It is confirmed again.
    support: full
seealso:
  - plugin: ebpf.fleet.kill_script
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Turn one feature off
  ebpf.fleet.kill_switch:
    scopes: [feature=exec_events]

- name: Everything off until someone releases it
  ebpf.fleet.kill_switch:
    scopes: [global]

- name: Take the order back
  ebpf.fleet.kill_switch:
    scopes: [global]
    state: released

- name: What holds here, and what runs?
  ebpf.fleet.kill_switch:
    scopes: [global]
    state: query
  register: query
"""

RETURN = r"""
orders:
  description: Names of all orders on the host, by folder, after the task; null where that cannot be read.
  returned: success
  type: dict
  sample: {etc: [global], run: [global]}
programs_left:
  description:
    - Programs that the orders turn off and that are still in the kernel, as C(id) and C(name).
    - With O(state=query), those that the scopes name.
    - Null where it was not looked, as in check mode and when releasing.
  returned: always
  type: list
  elements: dict
time_to_off_ms:
  description: Milliseconds from the order until the kernel showed nothing of it; null if not confirmed.
  returned: always
  type: int
applies:
  description: Whether the scopes concern this host, by its kernel family.
  returned: success
  type: bool
evidence:
  description: By what the kernel was asked.
  returned: when it was asked
  type: str
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

import os
import platform
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import (
    kernel_family,
    read_os_release,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import evidence, orders

POLL_SECONDS = 0.02
NOTED_LIMIT = 5000
LONGEST_WAIT_SECONDS = 600


class Switch:
    """The orders of one task on one host."""

    def __init__(self, parameters, scopes):
        self.scopes = scopes
        self.folders = {
            "run": Path(parameters["run_dir"]) / "kill.d",
            "etc": Path(parameters["etc_dir"]) / "kill.d",
        }
        self.lists = [Path(parameters[name]) / "programs" for name in ("state_dir", "collector_state_dir")]
        self.lib_dir = Path(parameters["lib_dir"])
        self.features = orders.features_of(scopes)
        self.whole = None
        self.names = set()
        self.noted = []

    def prepare_search(self):
        """What must be read to tell what is left; after the order, as whatever is read can be made to hang."""
        self.whole = orders.concerns_all(self.scopes, host_families())
        self.names = evidence.contract_programs(self.lib_dir, self.features)

    @property
    def applies(self):
        return self.whole or bool(self.features)

    def orders(self):
        """{folder: names}; null for a folder that cannot be read, which must not hold up a kill."""
        return {name: readable_orders(folder) for name, folder in self.folders.items()}

    def remaining(self):
        """Programs in the kernel that the scopes turn off."""
        try:
            everything = bpfsys.own_programs("")
        except (OSError, bpfsys.UnsupportedMachineError) as error:
            raise FleetError(
                "EF_KILL_UNCONFIRMED",
                "the orders are placed, but nothing is confirmed: the kernel does not list its programs: "
                f"{error}; run playbooks/rollback.yml",
            ) from error
        listed = evidence.read_listed(self.lists)
        # The loader takes off its list what it detaches, so what it once had is kept.
        self.noted = list(dict.fromkeys([*self.noted, *(listed or [])]))[:NOTED_LIMIT]
        own = evidence.ours(everything, self.noted)
        if self.whole:
            return own
        return evidence.remaining_of(own, self.features, self.names, self.noted, listed is not None)


def readable_orders(folder):
    try:
        return orders.orders_in(folder)
    except OSError:
        return None


def host_families():
    """The two kernel families of this host."""
    family = kernel_family(platform.release())
    distro = read_os_release(Path("/"))["id"]
    return [family, f"{distro}-{family}"]


def planned(orders, switch, state, persistent):
    """The orders as they will be, for check mode."""
    names = {scope.order for scope in switch.scopes}
    if state == "query":
        return orders
    if state == "released":
        return {folder: sorted(set(held or ()) - names) for folder, held in orders.items()}
    folders = ("run", "etc") if persistent else ("run",)
    return {folder: sorted(set(held or ()) | names) if folder in folders else held for folder, held in orders.items()}


def as_before(orders, moved, state):
    """The orders as they were: what was placed taken away again, what was removed put back."""
    if state == "released":
        return {name: None if held is None else sorted({*held, *moved.get(name, ())}) for name, held in orders.items()}
    return {name: None if held is None else sorted({*held} - {*moved.get(name, ())}) for name, held in orders.items()}


def act(switch, state, persistent):
    """Place or remove the orders; returns {folder: names that changed} and what a folder refused, as sentences.

    One folder is enough to turn off, so a full disk must not keep the order from the other.
    """
    refused, moved = [], {}
    for name, folder in switch.folders.items():
        try:
            if state == "released":
                moved[name] = [path.name for path in orders.remove(folder, switch.scopes)]
            elif name == "run" or persistent:
                moved[name] = [path.name for path in orders.place(folder, switch.scopes)]
        except OSError as error:
            refused.append(f"{error.filename or folder}: {error.strerror}")
    return moved, refused


def confirm(switch, wait):
    """(programs left, milliseconds or None): looks until nothing is left or the time is over."""
    start = time.monotonic()
    while True:
        left = switch.remaining()
        spent = time.monotonic() - start
        if not left:
            return left, int(spent * 1000)
        if spent >= wait:
            return left, None
        time.sleep(POLL_SECONDS)


def described(programs):
    return [{"id": one.id, "name": one.name} for one in programs]


def refuse_bad_host(module):
    """One clear message where nothing could be confirmed."""
    if platform.system() != "Linux":
        raise FleetError(
            "EF_UNSUPPORTED_HOST", f"{platform.system()}: eBPF is the Linux kernel's; take this host out of the play"
        )
    if os.geteuid() != 0:
        raise FleetError("EF_PERMISSION", "not root: orders and the kernel's list of programs need it; use become")
    if not 0 <= module.params["wait"] <= LONGEST_WAIT_SECONDS:
        raise FleetError(
            "EF_ARGUMENT", f"wait: {module.params['wait']} is out of range; give 0 to {LONGEST_WAIT_SECONDS}"
        )


def run(module, switch):
    """The task: the result for exit_json. The orders come first, before anything is read."""
    state, persistent = module.params["state"], module.params["persistent"]
    if module.check_mode and state != "query":
        before = switch.orders()
        switch.prepare_search()
        return described_change(before, planned(before, switch, state, persistent), switch)
    moved, refused = ({}, []) if state == "query" else act(switch, state, persistent)
    after = switch.orders()
    switch.prepare_search()
    result = described_change(as_before(after, moved, state), after, switch)
    if state != "released" and switch.applies:
        judge(module, switch, result)
    if refused:
        problem = (
            f"an order is not as it should be: {'; '.join(refused)}; free the folder or use playbooks/rollback.yml"
        )
        module.fail_json(**FleetError("EF_ORDER_NOT_WRITTEN", problem).as_result(), **result)
    return result


def described_change(before, after, switch):
    """The result as far as the orders go."""
    return {
        "changed": before != after,
        "diff": {"before": before, "after": after},
        "orders": after,
        "applies": switch.applies,
        "programs_left": None,
        "time_to_off_ms": None,
    }


def judge(module, switch, result):
    """Look at the kernel and write into the result what is left; fails if an order has no effect."""
    state = module.params["state"]
    left, spent = confirm(switch, module.params["wait"] if state == "engaged" else 0)
    result["programs_left"] = described(left)
    result["evidence"] = "all program ids of the kernel, names that start with ef_ and those that a list of ours had"
    if state == "engaged":
        result["time_to_off_ms"] = spent
        if left:
            error = FleetError("EF_KILL_NO_EFFECT", not_off(left, module.params["wait"]))
            module.fail_json(**error.as_result(), **result)


def not_off(left, wait):
    names = ", ".join(f"{one.name} ({one.id})" for one in left)
    return (
        f"still in the kernel after {wait:g} s: {names}. The orders hold; "
        "run playbooks/rollback.yml, which kills a loader that does not obey"
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "scopes": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["engaged", "released", "query"], "default": "engaged"},
            "persistent": {"type": "bool", "default": True},
            "wait": {"type": "float", "default": 10},
            "etc_dir": {"type": "path", "default": "/etc/ebpf-fleet"},
            "run_dir": {"type": "path", "default": "/run/ebpf-fleet"},
            "state_dir": {"type": "path", "default": "/run/ebpf-fleet-loader"},
            "collector_state_dir": {"type": "path", "default": "/run/ebpf-fleet-bcc"},
            "lib_dir": {"type": "path", "default": "/var/lib/ebpf-fleet"},
        },
        supports_check_mode=True,
    )
    try:
        scopes = orders.parse_scopes(module.params["scopes"])
        refuse_bad_host(module)
        result = run(module, Switch(module.params, scopes))
    except FleetError as error:
        module.fail_json(**error.as_result())
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}; free the folder or use playbooks/rollback.yml"
        module.fail_json(**FleetError("EF_ORDER_NOT_WRITTEN", problem, error.filename).as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
