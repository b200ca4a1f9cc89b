#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a host before and after a change."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: observation_info
short_description: Measure a host's load and what the eBPF loader costs it
version_added: 0.1.0
description:
  - Takes two snapshots of a host's own counters and of the loader's status, O(window) seconds apart.
  - Two snapshots make rates, which M(ebpf.fleet.gate) judges.
  - What could not be measured is null, never 0. A host on which nothing is installed has a null status.
  - C(witness) in each snapshot is root's own view of the loader's unit by kernel and systemd, with which
    M(ebpf.fleet.gate) compares the status.
  - The status is used only if it is a regular file of bounded size whose fields are what the schema says; otherwise
    C(status) is null and C(status_error) names the field and why.
  - Reads only; asks systemd, C(/proc) and the loader's C(status.json).
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  window:
    description: Seconds between the two snapshots, from 0 to 3600. With 0 one snapshot stands for both.
    type: float
    default: 10
  bake:
    description:
      - Seconds to wait before the first snapshot, from 0 to 86400.
      - One task that waits on the host costs less than a pause and a task.
    type: float
    default: 0
  application_file:
    description:
      - A JSON file in which an application on the host keeps its own latency, C({"p95_ns":…, "p99_ns":…}); the names
        may end in C(us), C(ms) or C(s) as well. A fraction of a nanosecond is rounded up.
      - Absent, the observation's C(application) is null. One that was not written within a minute is stale.
      - Where it cannot be used, C(application) is null, C(application_error) names file and field, and the gate holds.
    type: path
  latency:
    description:
      - Where the application's latency is had on this host, in the place of O(application_file); the fields are those
        of M(ebpf.fleet.latency_info). It is asked once, at the end of the window.
      - A source that is asked from the controller (C(prometheus)) is left to M(ebpf.fleet.latency_info).
    type: dict
  state_dir:
    description: The loader's state directory.
    type: path
    default: /run/ebpf-fleet-loader
  collector_state_dir:
    description:
      - The BCC collector's state directory. What it runs stands in the place of the features that the loader
        could not, and its CPU time and memory are added to the loader's.
    type: path
    default: /run/ebpf-fleet-bcc
  unit:
    description: The loader's systemd unit.
    type: str
    default: ebpf-fleet-loader.service
  collector_unit:
    description: The BCC collector's systemd unit.
    type: str
    default: ebpf-fleet-bcc.service
attributes:
  check_mode:
    description: Reads the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: Never changes a host.
    support: full
seealso:
  - module: ebpf.fleet.gate
  - module: ebpf.fleet.capability_facts
"""

EXAMPLES = r"""
- name: Measure the hosts before the change
  ebpf.fleet.observation_info:
    window: 10
  register: before

- name: Let the new release run for a minute, then measure with the application's own latency
  ebpf.fleet.observation_info:
    bake: 60
    window: 20
    application_file: /run/shop/latency.json
  register: after
"""

RETURN = r"""
observation:
  description: The observation; its format is in docs/formats/observation.md.
  returned: success
  type: dict
  sample:
    schema: ebpf.fleet/observation/v1
    host: node-1
    window_ns: 10000000000
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
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.observation import Places, observe

LONGEST_SECONDS = {"window": 3600, "bake": 86400}


def refuse_bad_times(module):
    """One clear message for a time that is out of range; nan is out of every range."""
    for name, longest in LONGEST_SECONDS.items():
        value = module.params[name]
        if not 0 <= value <= longest:
            error = FleetError("EF_ARGUMENT", f"{name}: {value} seconds is out of range; give 0 to {longest}")
            module.fail_json(**error.as_result())


def latency_of(module):
    """The source that is asked here; what is asked from the controller is not this module's."""
    try:
        source = latency.read_source("latency", module.params["latency"] or {})
    except FleetError as error:
        module.fail_json(**error.as_result())
    return source if source is not None and source.asked_from == latency.HOST else None


def main():
    module = AnsibleModule(
        argument_spec={
            "window": {"type": "float", "default": 10},
            "bake": {"type": "float", "default": 0},
            "application_file": {"type": "path"},
            "latency": {"type": "dict"},
            "state_dir": {"type": "path", "default": "/run/ebpf-fleet-loader"},
            "collector_state_dir": {"type": "path", "default": "/run/ebpf-fleet-bcc"},
            "unit": {"type": "str", "default": "ebpf-fleet-loader.service"},
            "collector_unit": {"type": "str", "default": "ebpf-fleet-bcc.service"},
        },
        mutually_exclusive=[("application_file", "latency")],
        supports_check_mode=True,
    )
    if platform.system() != "Linux":
        problem = f"{platform.system()}: only Linux hosts can be observed; take this host out"
        module.fail_json(**FleetError("EF_UNSUPPORTED_HOST", problem).as_result())
    refuse_bad_times(module)
    application = module.params["application_file"]
    places = Places(
        state_dir=Path(module.params["state_dir"]),
        collector_dir=Path(module.params["collector_state_dir"]),
        application_file=Path(application) if application else None,
        latency=latency_of(module),
        unit=module.params["unit"],
        collector_unit=module.params["collector_unit"],
    )
    time.sleep(module.params["bake"])
    found = observe(places, platform.node(), module.params["window"], time.sleep)
    if found["end"]["application_error"]:
        module.warn(found["end"]["application_error"])
    module.exit_json(changed=False, observation=found)


if __name__ == "__main__":
    main()
