#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin cell_work, which runs on the coordinator."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cell_work
short_description: Have cell controllers do one step of a rollout on their hosts
version_added: 0.1.0
description:
  - Runs one job of ansible-runner for each cell that has a controller and a host in this step, all at once
    (C(transmit), C(worker) over SSH or here, C(process)), and keeps what the hosts answered.
    C(playbooks/rollout.yml) uses it.
  - The tasks that follow then take the answer of their host instead of asking it, each once. A host whose cell has no
    controller is asked directly.
  - A cell whose controller dies, hangs, or answers with what is not the answer to this very job never fails the task.
    Its hosts are then unreachable, which is never a pass, and RV(lost) names it. The playbook must assert on that.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  step:
    description: What is done on the hosts.
    type: str
    required: true
    choices: [ask, measure, prepare, deploy, lease]
  hosts:
    description: Hosts of the batch; those whose cell has a controller are never asked directly after this.
    type: list
    elements: str
    required: true
  only:
    description: Hosts of these that the step is for; without it all.
    type: raw
  arguments:
    description: What the step's module gets.
    type: raw
    default: {}
  bundle:
    description: Path of the bundle on the coordinator, which goes with the step V(deploy).
    type: str
    default: ""
  digest:
    description: Digest of the bundle, which the job is bound to.
    type: str
    default: ""
  plan:
    description: The plan, whose digest the job is bound to.
    type: raw
    default: {}
  batch:
    description: Number of the batch, which the job is bound to.
    type: int
    default: 0
  rollout:
    description: Id of the rollout, which the job is bound to.
    type: str
    default: ""
  activation:
    description: Seconds that a loader may take to confirm a release.
    type: raw
    default: 60
  check:
    description: Whether the jobs run in check mode; without it as this task does.
    type: bool
attributes:
  check_mode:
    description: The jobs run in check mode, too.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: As the step is.
    support: N/A
notes:
  - Put C(run_once) on the task.
seealso:
  - module: ebpf.fleet.fan_out
"""

EXAMPLES = r"""
- name: Have cell controllers measure
  ebpf.fleet.cell_work:
    step: measure
    hosts: "{{ ansible_play_hosts_all }}"
    arguments: {window: 10}
  register: ebpf_fleet_cell_work
  run_once: true

- name: Hold where a cell controller did not measure
  ansible.builtin.assert:
    that: ebpf_fleet_cell_work.lost | length == 0
  run_once: true
"""

RETURN = r"""
by_cell:
  description: Hosts whose cell has a controller.
  returned: success
  type: list
  elements: str
lost:
  description: "C({cell: sentence}) of the cells whose controller did not do the step."
  returned: success
  type: dict
cells:
  description: "C({cell: {seconds, hosts}}) of every job."
  returned: success
  type: dict
folder:
  description: Where the answers wait for the hosts' tasks.
  returned: success
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
