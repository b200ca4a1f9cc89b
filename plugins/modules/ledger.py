#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ledger, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ledger
short_description: Write the steps of a rollout into the fleet's ledger
version_added: 0.1.0
description:
  - Appends to a hash-chained ledger on the controller, holds the lock by which one rollout runs at a time, and fails
    the rollout where a person asked it to pause or to end. C(playbooks/rollout.yml) uses it.
  - What it writes is on disk when the task is done. A process that is killed at any moment leaves a ledger that the
    next one goes on with.
  - The rollout is that of the C(ansible-playbook) process which runs the task.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  step:
    description:
      - V(lock) takes the fleet's lock for this process, also from one that has ended.
      - V(start) writes that the rollout begins, or goes on with O(resume); V(resume) returns the plan of what remains.
      - V(batch) begins a batch, V(measured) and V(verdict) record what was measured and judged.
      - V(promoted) records that it passed.
      - V(check) fails where a person asked for the end. V(hold) waits for a person.
      - V(changed) returns what this rollout changed, V(rolled_back) records a way back and ends the rollout.
      - V(report) writes the report of O(rollout) again, once the batch has its record.
    type: str
    required: true
    choices: [lock, resume, start, batch, measured, verdict, check, hold, promoted, changed, rolled_back, report]
  folder:
    description:
      - Folder of the ledger on the controller, made if need be.
      - Empty is C($XDG_STATE_HOME/ebpf-fleet), which is C(~/.local/state/ebpf-fleet) where that is not set.
    type: str
    default: ""
  hooks:
    description:
      - Commands and addresses that get entries, each with C(command) or C(url), C(on) (kinds) and C(timeout) (seconds).
      - What a hook does wrong is printed and recorded, and neither stops nor passes a rollout.
    type: raw
    default: []
  resume:
    description: Id of the rollout that is gone on with.
    type: str
    default: ""
  plan:
    description: The plan, as P(ebpf.fleet.rollout_plan#filter) returns it.
    type: dict
    default: {}
  bundle:
    description: Name and version of the bundle.
    type: dict
    default: {}
  digest:
    description: Digest of the bundle.
    type: str
    default: ""
  batch:
    description: The batch of the plan that the step is about.
    type: dict
    default: {}
  frozen:
    description:
      - What keeps hosts of the batch from being changed now, a sentence each (P(ebpf.fleet.rollout_freeze#filter)).
      - With any, V(batch) ends the rollout before the batch; it can be resumed.
    type: list
    elements: str
    default: []
  before_var:
    description: Variable of each host that holds the observation from before the change.
    type: str
    default: ebpf_fleet_before
  after_var:
    description: As O(before_var), from after the change.
    type: str
    default: ebpf_fleet_after
  verdict:
    description: What M(ebpf.fleet.gate) returned.
    type: dict
    default: {}
  seconds:
    description: How long V(hold) waits.
    type: float
    default: 0
  who:
    description: Who promoted the batch; empty where the gate did.
    type: str
    default: ""
  last:
    description: Whether it is the last batch.
    type: bool
    default: false
  returned:
    description: What each host of the batch answered that was to go back.
    type: dict
    default: {}
  returned_all:
    description: The same of hosts of earlier batches.
    type: dict
    default: {}
  strata:
    description: C(name) and C(stratum) of each host, for the quarantine and for the report.
    type: list
    elements: dict
    default: []
  rollout:
    description: Id of the rollout of which V(report) writes the report.
    type: str
    default: ""
  report:
    description:
      - Folder of the batches' records. The report of the rollout is written there as C(rollout-ID.html) in the step
        V(report), where a batch is held, and where a person's wish ends the rollout. Empty writes none.
      - A report that cannot be written is a warning, and changes nothing.
    type: str
    default: ""
  record:
    description:
      - What V(report) first writes as the record of a batch, C(batch-NUMBER.json), into the folder of O(report).
      - A record that cannot be written fails the task.
    type: raw
    default: {}
attributes:
  check_mode:
    description: Takes no lock and writes nothing.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
seealso:
  - module: ebpf.fleet.ledger_info
  - module: ebpf.fleet.rollout_request
"""

EXAMPLES = r"""
- name: Take the fleet's lock
  ebpf.fleet.ledger:
    step: lock
    folder: /srv/rollouts/ledger
    hooks:
      - command: [/usr/local/bin/tell-the-team]
        "on": [started, rolled_back, ended]
  run_once: true
"""

RETURN = r"""
folder:
  description: The folder.
  returned: success, and in check mode
  type: str
rollout:
  description: Id of the rollout.
  returned: once it has begun
  type: str
plan:
  description: The plan of what remains.
  returned: O(step=resume)
  type: dict
promote:
  description: Whether a person promoted the batch.
  returned: O(step=hold)
  type: bool
hosts:
  description: Hosts that this rollout changed, without those of the batch.
  returned: O(step=changed)
  type: list
  elements: str
quarantined:
  description: Strata to which the release may not go again.
  returned: O(step=rolled_back)
  type: list
  elements: str
aborted:
  description: Whether a person asked for the end.
  returned: O(step=rolled_back)
  type: bool
report:
  description: Path of the report that was written.
  returned: when it was
  type: str
quarantine_file:
  description: Path of the quarantine.
  returned: O(step=lock), and in check mode
  type: str
stale:
  description: Whose lock was taken over, as that process has ended; or null.
  returned: O(step=lock)
  type: str
unwritten:
  description: Why the ledger does not have the step.
  returned: when a step that comes afterwards could not be written
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
