#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ledger_info, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ledger_info
short_description: Verify the fleet's ledger, list its rollouts, explain one
version_added: 0.1.0
description:
  - Reads the ledger that M(ebpf.fleet.ledger) writes, on the controller, and verifies every line of it.
  - A broken chain is not a failure of the task; what comes before the break is told.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  folder:
    description: As of M(ebpf.fleet.ledger).
    type: str
    default: ""
  rollout:
    description: Id of the rollout to explain; empty explains none.
    type: str
    default: ""
  records:
    description: Folder of the batches' records. With it and O(rollout) the report of that rollout is returned.
    type: str
    default: ""
attributes:
  check_mode:
    description: Reads the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
seealso:
  - module: ebpf.fleet.ledger
"""

EXAMPLES = r"""
- name: Explain a rollout
  ebpf.fleet.ledger_info:
    rollout: 20261128-001733-3f1c2a
  register: told
  run_once: true
"""

RETURN = r"""
folder:
  description: The folder.
  returned: success
  type: str
page:
  description: The report as an HTML page; empty without O(records) and O(rollout).
  returned: success
  type: str
sound:
  description: Whether every line names the line before it, and none is missing.
  returned: success
  type: bool
broken_line:
  description: The first line that breaks the chain, from 1, or null.
  returned: success
  type: int
chain:
  description: What verifying found, in a sentence.
  returned: success
  type: str
torn:
  description: Bytes of a last line that a crash cut short.
  returned: success
  type: int
entries:
  description: How many entries there are, up to a break.
  returned: success
  type: int
rollouts:
  description: C(id), C(started), C(version), C(who), C(state) and C(batches) of each rollout.
  returned: success
  type: list
  elements: dict
list:
  description: The same, a line each.
  returned: success
  type: list
  elements: str
explained:
  description: One rollout, a sentence a line.
  returned: success
  type: list
  elements: str
quarantined:
  description: Releases that may not go to a kind of host, a sentence each.
  returned: success
  type: list
  elements: str
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
