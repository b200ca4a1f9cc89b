#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin forensics, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: forensics
short_description: Check and keep the evidence that hosts sent
version_added: 0.1.0
description:
  - Runs on the controller only. Makes a folder for a run, and later turns what M(ebpf.fleet.fan_out) saved there into
    files, one folder a host.
  - A host is not believed. Only files of a fixed list are kept, of printable ASCII, within their bounds, and only with
    the SHA-256 that the host made before the transfer. No name of a path comes from a host.
  - What came whole before a link was cut is kept. A host of which something is missing is named with the reason.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  step:
    description:
      - C(begin) makes the folder of the run in O(folder), C(keep) checks what lies in it.
    type: str
    required: true
    choices: [begin, keep]
  folder:
    description:
      - With O(step=begin) an existing folder on the controller; with O(step=keep) the one that C(begin) made.
    type: path
    required: true
  answers:
    description:
      - The C(hosts) that M(ebpf.fleet.fan_out) returned with O(ebpf.fleet.fan_out#module:save_to).
    type: dict
    default: {}
  file_bytes:
    description:
      - The limit of a file, for the record.
    type: int
    default: 131072
  total_bytes:
    description:
      - The limit of a host, for the record.
    type: int
    default: 1048576
attributes:
  check_mode:
    description: Makes and keeps nothing in check mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: Each run has a folder of its own.
    support: none
seealso:
  - module: ebpf.fleet.fan_out
notes:
  - The record is docs/formats/forensics.md.
"""

EXAMPLES = r"""
- name: Make a folder for the evidence
  ebpf.fleet.forensics:
    step: begin
    folder: /var/lib/incidents
  register: place
  run_once: true
  delegate_to: localhost

- name: Check and keep what the hosts sent
  ebpf.fleet.forensics:
    step: keep
    folder: "{{ place.folder }}"
    answers: "{{ sent.hosts }}"
  register: kept
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
folder:
  description: The folder of the run.
  returned: with O(step=begin)
  type: str
raw:
  description: The folder in it for what hosts send.
  returned: with O(step=begin)
  type: str
lines:
  description: What to print of it.
  returned: with O(step=keep)
  type: list
  elements: str
reasons:
  description: "Why the evidence of a host is not complete: C({name: reason})."
  returned: with O(step=keep)
  type: dict
failed_hosts:
  description: Names of these hosts.
  returned: with O(step=keep)
  type: list
  elements: str
families:
  description: "The kernel family of each host that said it: C({name: family})."
  returned: with O(step=keep)
  type: dict
record:
  description: Path of the record of the run.
  returned: with O(step=keep)
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
