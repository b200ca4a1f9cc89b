#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin rollout_request, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rollout_request
short_description: Ask a rollout to pause, to promote what is held, or to end
version_added: 0.1.0
description:
  - Leaves a request in the folder of the ledger, on the controller, which the rollout honours at its next step.
  - A rollout whose process is gone can be ended too; this process then holds the fleet's lock, and the result says
    which hosts have to go back.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  request:
    description:
      - V(pause) ends the rollout before its next batch. V(promote) lets the batch that is held go on.
      - V(abort) ends the rollout, and its batch in hand goes back. V(lift) permits O(release) again.
    type: str
    required: true
    choices: [abort, lift, pause, promote]
  folder:
    description: As of M(ebpf.fleet.ledger).
    type: str
    default: ""
  rollout:
    description: Id of the rollout; empty means the one that runs.
    type: str
    default: ""
  release:
    description: With V(lift) the release, C(DIGEST) or C(DIGEST@STRATUM), the digest by six hex digits at least.
    type: str
    default: ""
  wait:
    description: With V(abort), how many seconds to wait for the end of a rollout that runs; 0 does not wait.
    type: float
    default: 0
attributes:
  check_mode:
    description: Asks nothing.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
seealso:
  - module: ebpf.fleet.ledger
"""

EXAMPLES = r"""
- name: Pause the rollout that runs
  ebpf.fleet.rollout_request:
    request: pause
  run_once: true
"""

RETURN = r"""
rollout:
  description: Id of the rollout.
  returned: success, but with O(request=lift)
  type: str
state:
  description: Its state when it was asked, after a wait when that was over.
  returned: success, but with O(request=lift)
  type: str
sentence:
  description: What was asked, for a person.
  returned: success, but with O(request=lift)
  type: str
live:
  description: Whether its process lives and does the rest itself.
  returned: O(request=abort)
  type: bool
batch:
  description: The batch in hand of a rollout whose process is gone, or null.
  returned: O(request=abort)
  type: dict
hosts:
  description: Hosts of that batch that may have been changed and have to go back.
  returned: O(request=abort)
  type: list
  elements: str
digest:
  description: Digest of its bundle.
  returned: O(request=abort)
  type: str
list:
  description: What was lifted, a sentence each.
  returned: O(request=lift)
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
