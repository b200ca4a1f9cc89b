#!/usr/bin/python
# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kill_list
short_description: Make, sign and publish a kill list as one static file
version_added: 0.1.0
description:
  - Writes a list of kill orders, with a sequence and an expiry, and its OpenSSH signature into one file, atomically.
    Hosts fetch that file from wherever it is served (C(docs/pull-channel.md)).
  - The sequence is one above that of the list at O(path). A list there is never replaced by one with a lower
    or equal sequence, and a file there that is not a kill list is never replaced at all.
  - Runs on the controller.
author:
  - The ebpf.fleet authors
options:
  path:
    description: The file.
    type: path
    required: true
  orders:
    description:
      - All orders that are to hold. An order that is not in the list is taken back where the list had placed it.
      - An empty list takes every one back.
    type: list
    elements: dict
    required: true
    suboptions:
      scope:
        description: C(global), C(feature=NAME) or C(kernel_family=6.1) (also C(debian-6.1)).
        type: str
        required: true
      hosts:
        description: Exact inventory names of the hosts that it concerns. All where it is left out; never an empty list.
        type: list
        elements: str
      cells:
        description: Cells that it concerns, by C(ebpf_fleet_cell). With O(orders[].hosts), hosts that are in both.
        type: list
        elements: str
      reason:
        description: Why, for whoever finds the order on a host; at most 200 printable characters.
        type: str
        default: ""
  signing_key:
    description:
      - Path of an ed25519 key. One with a passphrase must be in the ssh-agent; then give the path of its C(.pub) file.
    type: path
    required: true
  lifetime:
    description: Seconds from now until the list expires, 60 to 31622400.
    type: int
    default: 604800
  renew_before:
    description:
      - A list that says the same and holds for at least these seconds still is left as it is. Half of O(lifetime) where
        it is left out.
    type: int
  sequence:
    description: The sequence, where it is not to be the next one.
    type: int
attributes:
  check_mode:
    support: full
    description: Says what would be published and writes nothing.
  diff_mode:
    support: full
    description: Shows the orders before and after.
  idempotent:
    support: full
    description: A list that says the same and holds for long enough is left as it is.
  platform:
    support: full
    platforms: linux
    description: The controller.
"""

EXAMPLES = r"""
- name: Everything off in one cell, and one feature off everywhere
  ebpf.fleet.kill_list:
    path: /srv/www/kill-list
    signing_key: ~/keys/kill-key
    orders:
      - scope: global
        cells: [eu-1]
        reason: INC-1042
      - scope: feature=exec_events

- name: Take every order of the list back
  ebpf.fleet.kill_list:
    path: /srv/www/kill-list
    signing_key: ~/keys/kill-key
    orders: []
"""

RETURN = r"""
path:
  description: The file.
  type: str
  returned: success
sequence:
  description: The sequence of the list that is (or would be) there.
  type: int
  returned: success
expires:
  description: When it expires, in seconds since 1970.
  type: int
  returned: success
orders:
  description: Its orders.
  type: list
  elements: dict
  returned: success
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

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import publish

SPEC = {
    "path": {"type": "path", "required": True},
    "orders": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "scope": {"type": "str", "required": True},
            "hosts": {"type": "list", "elements": "str"},
            "cells": {"type": "list", "elements": "str"},
            "reason": {"type": "str", "default": ""},
        },
    },
    # The path of a key, no secret itself.
    "signing_key": {"type": "path", "required": True, "no_log": False},
    "lifetime": {"type": "int", "default": 604800},
    "renew_before": {"type": "int"},
    "sequence": {"type": "int"},
}
LEAST_SECONDS = 60


def wanted_orders(params):
    """Return the orders as they were given, without what was left out."""
    given = [{key: value for key, value in one.items() if value is not None} for one in params["orders"]]
    return killlist.parse_orders(given)


def renewal(params):
    """Return the seconds that a list must still hold to be left as it is; raise on a number that makes no sense."""
    lifetime = params["lifetime"]
    if not LEAST_SECONDS <= lifetime <= killlist.MAX_LIFETIME_SECONDS:
        problem = f"lifetime: is {lifetime}; give {LEAST_SECONDS} to {killlist.MAX_LIFETIME_SECONDS} seconds"
        raise FleetError("EF_ARGUMENT", problem)
    before = lifetime // 2 if params["renew_before"] is None else params["renew_before"]
    if not 0 <= before <= lifetime:
        raise FleetError("EF_ARGUMENT", f"renew_before: is {before}; give 0 to lifetime, which is {lifetime}")
    return before


def run(module):
    """Publish the list unless one that says the same is there; return the result."""
    params = module.params
    orders, before = wanted_orders(params), renewal(params)
    path, key = Path(params["path"]), Path(params["signing_key"])
    now = int(time.time())
    with publish.locked(path, module.check_mode):
        there = publish.read_published(path)
        keeps = params["sequence"] is None and killlist.holds_already(there, orders, now, before)
        found = there
        if not keeps:
            sequence = killlist.next_sequence(there.sequence if there else None, params["sequence"])
            found = killlist.KillList(sequence, now, now + params["lifetime"], orders)
            data = publish.seal(found, key)
            if not module.check_mode:
                publish.write(path, data)
    return {
        "changed": not keeps,
        "path": str(path.absolute()),
        "sequence": found.sequence,
        "expires": found.expires,
        "orders": [killlist.order_document(one) for one in found.orders],
        "diff": {"before": describe(there), "after": describe(found)},
    }


def describe(found):
    """Return what the diff shows of a list."""
    return {} if found is None else killlist.as_document(found)


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        result = run(module)
    except (OSError, FleetError) as error:
        module.fail_json(**explain(error, "EF_NOT_WRITTEN").as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
