#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin fan_out, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fan_out
short_description: Run one command on many hosts at once, each within its own bound
version_added: 0.1.0
description:
  - Runs one shell command on every host of a list from a single task, as M(ansible.builtin.raw) would on each,
    and returns one result for each host by its exact inventory name.
  - No host waits for another. How many are asked at once does not depend on C(forks); a login that hangs for
    two seconds gives its place to the next host, and each host that does not answer in its time is ended and named.
  - Each host is reached as Ansible would reach it, by its own variables, the play's keywords, the configuration and the
    command line. Connection variables in the C(vars) of the task itself are not used.
  - Hosts of the connection C(ssh) that log in without a password are reached by OpenSSH itself; every other connection
    runs through its plugin in a process of its own with the same bounds, which costs the controller more.
  - Connections are made for this task alone (C(ControlMaster=no), C(ControlPath=none)). An older connection would be
    faster, but it may hang, and then nothing on it can be told from a host that hangs.
  - What a host does never fails the task; it fails only on bad arguments. The playbook must judge the results.
  - Needs nothing on the hosts but a shell.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  command:
    description: The command, which the login shell of the host gets as it is, within become where that is set.
    type: str
    required: true
  hosts:
    description:
      - Inventory names, as C(ansible_play_hosts_all) gives them. They are names and not patterns, so any character
        may be in them. A text instead of a list is refused, and so is an empty list.
    type: raw
    required: true
  connect_timeout:
    description:
      - Seconds from a host's turn to its login, from 1 to 3600. It covers the name, the connection, a server that says
        nothing, the login and the tries after a server that was too busy.
      - A host's variable C(ebpf_fleet_connect_timeout) takes its place for that host.
    type: float
    default: 10
  timeout:
    description: Seconds from the login to the end of the command, become included, from 1 to 3600.
    type: float
    default: 20
  logins:
    description:
      - Most logins that are under way at once. Commands that run after their login do not count.
      - 0 means 16 for each CPU of the controller. Less is kind to a jump host whose C(MaxStartups) is small.
    type: int
    default: 0
  kex_algorithms:
    description:
      - C(KexAlgorithms) for OpenSSH, put behind the host's own arguments, which therefore win. Where the controller's
        C(ssh_config) sets C(KexAlgorithms), and where a server refuses it, it is left out.
      - The default only moves curve25519 to the front. OpenSSH's default post-quantum exchange costs nine times
        the CPU. The command and its answer would not be worth a recording for a future decryption.
      - Empty leaves the choice to OpenSSH.
    type: str
    default: ^curve25519-sha256
  by_cell:
    description:
      - Whether hosts whose cell has a controller (C(ebpf_fleet_cell_controllers)) are asked by that one, as a job of
        ansible-runner. Hosts of a cell whose controller does not do it are then asked from here.
      - What they answer is the same, but each job takes some seconds beside its hosts.
    type: bool
    default: false
  stdout_bytes:
    description:
      - How many of the first bytes of a host's standard output are kept, from 1024 to 4194304.
    type: int
    default: 16384
  save_to:
    description:
      - An existing folder on the controller. What each host prints is written there, as C(NNNNN.out) by its place in
        O(hosts), as soon as it has ended, and is not in the results. The files must not be there yet.
      - They hold what the host sent, which may paint a terminal. Hosts that a cell's controller asks are not saved.
    type: str
    default: ""
attributes:
  check_mode:
    description: No host is asked in check mode; each host's result is C(skipped).
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: As the command is.
    support: N/A
seealso:
  - module: ansible.builtin.raw
notes:
  - Put C(run_once) and C(delegate_to) C(localhost) on the task; no connection is opened to that host.
  - After two seconds it says on standard error how many hosts have answered, failed and are outstanding.
  - Of each stream the first 16 KiB (O(stdout_bytes)) and the last 48 KiB are kept.
  - A host that sends more than 4 MiB is cut off.
  - A command whose time is over is cut from its terminal; with C(use_tty) false it may go on running on the host.
  - The soft limit of open files is raised to the hard one; it and the free memory bound how many run at once.
"""

EXAMPLES = r"""
- name: Ask every host
  ebpf.fleet.fan_out:
    command: uname -r
    hosts: "{{ ansible_play_hosts_all }}"
    connect_timeout: 5
    timeout: 10
  register: kernels
  run_once: true
  delegate_to: localhost
  changed_when: false

- name: Fail each host that did not answer
  ansible.builtin.assert:
    that: not kernels.hosts[inventory_hostname].failed
    fail_msg: "{{ kernels.hosts[inventory_hostname].msg }}"
"""

RETURN = r"""
hosts:
  description: "One result for exactly the hosts that were given: C({name: result})."
  returned: success
  type: dict
  contains:
    rc:
      description: Exit status of the command (255 also of ssh); null where it was ended or never began.
      type: int
    stdout:
      description: What it printed, bounded.
      type: str
    stdout_file:
      description: The file with what it printed; only with O(save_to).
      type: str
    stderr:
      description: What it printed on standard error, bounded, without ssh's words on itself.
      type: str
    unreachable:
      description: Whether the host could not be logged in to, or the link was lost.
      type: bool
    failed:
      description: Whether it did not end with status 0.
      type: bool
    msg:
      description: Why, in one printable sentence with the last words of the host; empty if it did not fail.
      type: str
    seconds:
      description: Seconds from the host's turn to its result; null in check mode, which asks no host.
      type: float
    logged_in:
      description: Whether the login succeeded; null where the connection does not tell.
      type: bool
seconds:
  description: Seconds for all hosts.
  returned: success
  type: float
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
