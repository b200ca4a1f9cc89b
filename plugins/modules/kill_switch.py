#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
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
attributes:
  check_mode:
    description: Says what would change and changes nothing; confirms nothing.
    support: full
  diff_mode:
    description: Shows the orders before and after.
    support: full
  idempotent:
    description: An order that lies there already is no change. It is confirmed anew.
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
"""

import os
import platform
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils import bpfsys, kill
from ansible_collections.ebpf.fleet.plugins.module_utils.hostfiles import (
    kernel_family,
    read_os_release,
    read_text,
)

POLL_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 600


class CannotLookError(Exception):
    """The kernel does not say what is loaded, so nothing can be confirmed."""


class Switch:
    """The orders of one task on one host."""

    def __init__(self, parameters, scopes):
        self.scopes = scopes
        self.folders = {
            "run": Path(parameters["run_dir"]) / "kill.d",
            "etc": Path(parameters["etc_dir"]) / "kill.d",
        }
        self.lists = [Path(parameters[name]) / "programs" for name in ("state_dir", "collector_state_dir")]
        self.features = kill.features_of(scopes)
        self.whole = kill.concerns_all(scopes, host_families())
        # Before any order: the loader takes what it detaches off its list.
        self.known = self.listed()

    @property
    def applies(self):
        return self.whole or bool(self.features)

    def orders(self):
        """{folder: names}; null for a folder that cannot be read, which must not hold up a kill."""
        return {name: readable_orders(folder) for name, folder in self.folders.items()}

    def listed(self):
        """The programs that the scopes name, by the lists of loader and collector; None where there is none."""
        texts = [text for text in map(read_text, self.lists) if text is not None]
        if not texts:
            return None
        found = [one for text in texts for one in kill.parse_programs(text)]
        return [one for one in found if self.whole or one.feature in self.features]

    def left(self):
        """Programs in the kernel that the scopes turn off."""
        try:
            everything = bpfsys.own_programs("")
        except (OSError, bpfsys.UnsupportedMachineError) as error:
            raise CannotLookError(f"the kernel does not list its programs: {error}") from error
        now = self.listed()
        listed = [*(now or []), *(self.known or [])]
        own = kill.ours(everything, listed)
        if self.whole or (now is None and self.known is None):
            # Without a list any program may be the feature's.
            return own
        suspects = {one.id for one in listed}
        return [one for one in own if one.id in suspects]


def readable_orders(folder):
    try:
        return kill.orders_in(folder)
    except OSError:
        return None


def host_families():
    """The two kernel families of this host."""
    family = kernel_family(platform.release())
    distro = read_os_release(Path("/"))["id"]
    return [family, f"{distro}-{family}"]


def planned(orders, switch, state, persistent):
    """The orders as they will be."""
    names = {scope.order for scope in switch.scopes}
    if state == "released":
        return {folder: sorted(set(held or ()) - names) for folder, held in orders.items()}
    folders = ("run", "etc") if persistent else ("run",)
    return {folder: sorted(set(held or ()) | names) if folder in folders else held for folder, held in orders.items()}


def act(switch, state, persistent):
    """Place or remove the orders; returns what a folder refused, as sentences.

    One folder is enough to turn off, so a full disk must not keep the order from the other.
    """
    refused = []
    for name, folder in switch.folders.items():
        try:
            if state == "released":
                kill.remove(folder, switch.scopes)
            elif name == "run" or persistent:
                kill.place(folder, switch.scopes)
        except OSError as error:
            refused.append(f"{error.filename or folder}: {error.strerror}")
    return refused


def confirm(switch, wait):
    """(programs left, milliseconds or None): looks until nothing is left or the time is over."""
    start = time.monotonic()
    while True:
        left = switch.left()
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
        module.fail_json(msg=f"{platform.system()}: eBPF is the Linux kernel's; take this host out of the play")
    if os.geteuid() != 0:
        module.fail_json(msg="not root: orders and the kernel's list of programs need it; use become")
    if not 0 <= module.params["wait"] <= LONGEST_WAIT_SECONDS:
        module.fail_json(msg=f"wait: {module.params['wait']} is out of range; give 0 to {LONGEST_WAIT_SECONDS}")


def read_scopes(module):
    try:
        return kill.parse_scopes(module.params["scopes"])
    except kill.ScopeError as error:
        return module.fail_json(msg=str(error))


def run(module, switch):
    """The task: the result for exit_json."""
    state, persistent = module.params["state"], module.params["persistent"]
    before = switch.orders()
    after = before if state == "query" else planned(before, switch, state, persistent)
    result = {
        "changed": before != after,
        "diff": {"before": before, "after": after},
        "orders": after,
        "applies": switch.applies,
        "programs_left": None,
        "time_to_off_ms": None,
    }
    if module.check_mode and state != "query":
        return result
    refused = [] if state == "query" else act(switch, state, persistent)
    result["orders"] = switch.orders()
    if state != "released" and switch.applies:
        judge(module, switch, result)
    if refused:
        module.fail_json(msg=f"an order is not as it should be: {'; '.join(refused)}", **result)
    return result


def judge(module, switch, result):
    """Look at the kernel and write into the result what is left; fails if an order has no effect."""
    state = module.params["state"]
    left, spent = confirm(switch, module.params["wait"] if state == "engaged" else 0)
    result["programs_left"] = described(left)
    result["evidence"] = "walk of all program ids, names that start with ef_"
    if state == "engaged":
        result["time_to_off_ms"] = spent
        if left:
            module.fail_json(msg=not_off(left, module.params["wait"]), **result)


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
        },
        supports_check_mode=True,
    )
    scopes = read_scopes(module)
    refuse_bad_host(module)
    try:
        result = run(module, Switch(module.params, scopes))
    except CannotLookError as error:
        module.fail_json(msg=f"the orders are placed, but nothing is confirmed: {error}")
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; free the folder or use playbooks/rollback.yml")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
