#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inject one fault on a host for a bounded time, watch what comes of it, and take it back."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gameday_drill
short_description: Inject one fault on a host for a bounded time, watch what comes of it, and take it back
version_added: 0.1.0
description:
  - The fault lives in a systemd unit of its own, C(ebpf-fleet-gameday.service). Systemd ends it after O(seconds) and
    takes it back, whatever became of this module and of the controller.
  - Nothing is written to a disk. What is injected, the record of it and the unit lie in C(/run), so a reboot ends it.
  - A host is refused where the loader does not run as it should, a kill order or a lease stands, a feature is
    degraded already, or another drill runs.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  state:
    description:
      - V(told) says which drills the host may meet, and reads only.
      - V(begun) injects O(drill). The same O(id) again goes on where it was interrupted.
      - V(watched) waits until all that the drill must show was seen, or for O(wait) seconds.
      - V(ended) takes back whatever is there, and waits up to O(wait) seconds until everything is as it was before.
    type: str
    required: true
    choices: [told, begun, watched, ended]
  drill:
    description: Name of the drill, as docs/gameday.md lists them.
    type: str
    default: ""
  id:
    description:
      - Name of this game day, by which it is known again.
      - With V(ended) only what has it is taken back; empty, whatever is there.
    type: str
    default: ""
  seconds:
    description: After how long the host ends the fault by itself, 30 to 600.
    type: int
    default: 60
  wait:
    description: How long is watched or waited, 0 to 3600 seconds.
    type: float
    default: 30
attributes:
  check_mode:
    description: Says what would be done, and changes nothing.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: What is begun, or ended, already stays so and is not a change.
    support: full
seealso:
  - module: ebpf.fleet.observation_info
  - module: ebpf.fleet.kill_switch
"""

EXAMPLES = r"""
- name: Let the loader meet a bundle that was tampered with
  ebpf.fleet.gameday_drill:
    state: begun
    drill: tampered_bundle
    id: may-1
    seconds: 60

- name: Watch what comes of it
  ebpf.fleet.gameday_drill:
    state: watched
    drill: tampered_bundle
    id: may-1
  register: watched

- name: Take it back
  ebpf.fleet.gameday_drill:
    state: ended
    wait: 120
"""

RETURN = r"""
drill:
  description: Name of the drill.
  returned: success
  type: str
id:
  description: Name of the game day.
  returned: success
  type: str
schema:
  description: Name and version of this answer.
  returned: success
  type: str
seconds:
  description: The bound on the host.
  returned: success
  type: int
begun_boottime_ns:
  description: When it was begun, on the boot's clock; null where nothing is.
  returned: success
  type: int
ended_boottime_ns:
  description: When it was taken back; null but for V(ended).
  returned: success
  type: int
feature:
  description: The feature that is watched, or empty.
  returned: success
  type: str
before:
  description: The host's facts before the fault.
  returned: success
  type: dict
facts:
  description: The host's facts now.
  returned: success
  type: dict
seen:
  description: When each sign was first seen, on the boot's clock.
  returned: success
  type: dict
meets:
  description: "For V(told): each drill with why the host may not meet it, empty where it may."
  returned: success
  type: dict
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

LONGEST_WAIT_SECONDS = 3600


def run(module):
    """The answer; FleetError for what is refused."""
    # Only Linux has what these import.
    from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import host, record

    asked = module.params
    if not 0 <= asked["wait"] <= LONGEST_WAIT_SECONDS:
        raise FleetError("EF_ARGUMENT", f"wait: is {asked['wait']}; give seconds from 0 to {LONGEST_WAIT_SECONDS}")
    if not record.LEAST_SECONDS <= asked["seconds"] <= record.MOST_SECONDS:
        bounds = f"{record.LEAST_SECONDS} to {record.MOST_SECONDS}"
        raise FleetError("EF_ARGUMENT", f"seconds: is {asked['seconds']}; give {bounds}")
    wish = host.Wish(asked["drill"], asked["id"], asked["seconds"], module.check_mode)
    steps = {
        "told": lambda: host.tell(wish),
        "begun": lambda: host.begin(wish),
        "watched": lambda: host.watch(wish, asked["wait"]),
        "ended": lambda: host.end(wish, asked["wait"]),
    }
    return steps[asked["state"]]()


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["told", "begun", "watched", "ended"]},
            "drill": {"type": "str", "default": ""},
            "id": {"type": "str", "default": ""},
            "seconds": {"type": "int", "default": 60},
            "wait": {"type": "float", "default": 30},
        },
        required_if=[("state", "begun", ("drill", "id")), ("state", "watched", ("id",))],
        supports_check_mode=True,
    )
    if platform.system() != "Linux":
        problem = f"{platform.system()}: eBPF is the Linux kernel's; take this host out of the play"
        module.fail_json(**FleetError("EF_UNSUPPORTED_HOST", problem).as_result())
    try:
        answer = run(module)
    except FleetError as error:
        module.fail_json(**error.as_result())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
