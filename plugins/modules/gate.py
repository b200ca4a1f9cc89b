#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin gate, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gate
short_description: Judge whether a batch of changed hosts is healthy enough to go on
version_added: 0.1.0
description:
  - Compares observations of changed hosts with their own past, with hosts that were not changed and with
    limits, and returns a verdict per check and one over all.
  - The verdict is C(pass), C(fail) or C(inconclusive). What is missing, stale or unmeasured is inconclusive.
  - The task itself fails only on bad arguments. The playbook must assert that the verdict is C(pass).
  - What a host's status says is compared with root's own view of kernel and systemd, which
    M(ebpf.fleet.observation_info) takes along (checks C(witness_*)). A disagreement is a C(fail) with both values.
  - A malformed observation fails the check C(observation) of its host and hides no other host.
  - Runs on the controller and opens no connection. Put C(run_once) on the task.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  hosts:
    description: Changed hosts, whose observations are taken from their variables. Give these or O(changed).
    type: list
    elements: str
  control_hosts:
    description: Hosts that were not changed and were observed at the same times.
    type: list
    elements: str
    default: []
  before_var:
    description:
      - Variable of each host that holds the observation from before the change; a dotted path is followed.
        What M(ebpf.fleet.observation_info) registered may be named as it is.
    type: str
  after_var:
    description: As O(before_var), from after the change. Required with O(hosts).
    type: str
  changed:
    description: "Observations given as a whole: C({host: {before: …, after: …}})."
    type: dict
  controls:
    description: As O(changed), of hosts that were not changed.
    type: dict
  expected:
    description:
      - "The least profile that each feature must reach: C({host: {feature: full}})."
      - The host C(*) stands for all that are not named. A host for which nothing is said is inconclusive.
      - A prediction of M(ebpf.fleet.capability_facts) may stand in the place of a profile's name.
    type: dict
  expected_var:
    description:
      - "Variable of each host that holds C({feature: profile}); a dotted path is followed."
      - Without it and O(expected) it is the predictions that M(ebpf.fleet.capability_facts) left as facts.
      - A prediction binds only where the loader says that the feature is wanted; a name always binds.
    type: str
  contracts:
    description: Contracts of the release, for their budgets.
    type: list
    elements: dict
    default: []
  digest:
    description: Digest of the bundle that the hosts must be running.
    type: str
  limits:
    description:
      - Upper limits that differ from the defaults. An unknown name is refused.
      - C(status_age_ns) 30000000000, C(loader_restarts) 0, C(loader_cpu_millicores) 50, C(host_cpu_delta_ppm)
        50000, C(host_memory_delta_bytes) 134217728, C(degradation_steps) 0, C(accounting_error_events) 0,
        C(map_fill_ppm) 900000, C(consumer_lag_ppm) 800000, C(host_outliers_ppm) 50000, C(host_cpu_shift_ppm)
        10000, C(host_memory_shift_bytes) 33554432, C(pressure_cpu_shift_ppm) 10000,
        C(pressure_memory_shift_ppm) 10000, C(pressure_io_shift_ppm) 10000, C(application_p95_shift_ppm) 50000,
        C(application_p99_shift_ppm) 50000.
      - C(bpf_cpu_millicores), C(total_cpu_millicores), C(drop_ratio_ppm), C(event_rate_per_second) and
        C(map_memory_bytes) are null and then taken from the contracts' budgets.
      - C(application_p95_growth_ppm) and C(application_p99_growth_ppm) are null and then not judged.
      - C(require_events) false. With it true a feature that produced no event is inconclusive,
        else its drop ratio is C(not_exercised), which holds nothing.
    type: dict
    default: {}
  on_inconclusive:
    description:
      - "C({check: hold}) or C({check: pass}): whether an inconclusive check holds the verdict."
      - The default is C(hold).
    type: dict
    default: {}
  extra_checks:
    description:
      - Checks of your own, over the document C({before, after, rates}) of each host.
      - C(name), C(expression) (JMESPath), one of C(max) and C(min), and optionally C(unit).
      - An expression that gives no number is inconclusive.
      - An expression that is long, deep or made of many parts is refused. It is evaluated in a process of its own, at
        most 3 seconds a host and 15 in all, with 1 GiB of memory; one that is stopped is inconclusive.
      - Needs the Python library jmespath on the controller.
    type: list
    elements: dict
    default: []
  before_applications:
    description:
      - What M(ebpf.fleet.latency_info) returned as C(hosts) before the change. It takes the place of what the
        observations say of these hosts' applications.
    type: dict
    default: {}
  after_applications:
    description: As O(before_applications), after the change.
    type: dict
    default: {}
  early:
    description:
      - Whether the batch still bakes. Only failures that are plain are judged then, of budgets and of the loader
        itself, and nothing holds; C(checks) has nothing else. It spends nothing of O(error_rate).
    type: bool
    default: false
  dry_run:
    description:
      - Names of checks, also of O(extra_checks), that are judged and told and stop nothing.
        A dry run spends nothing of O(error_rate).
    type: list
    elements: str
    default: []
  error_rate:
    description:
      - Probability, above 0 and at most 0.5, with which the rank tests of a whole rollout may stop one
        in which nothing differs. It is divided over O(batches), the rank tests and O(readings).
    type: float
    default: 0.05
  batches:
    description: Batches of the whole rollout that are tested by ranks, those of five hosts and more.
    type: int
    default: 50
  readings:
    description: How often a batch is judged at most.
    type: int
    default: 1
  reading:
    description: Which of O(readings) this one is, from 1.
    type: int
    default: 1
attributes:
  check_mode:
    description: Judges the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: The same observations give the same verdict.
    support: full
seealso:
  - module: ebpf.fleet.observation_info
notes:
  - The rank tests (C(*_shift)) are made only with at least five changed hosts and five controls, and where so many
    hosts can show a difference at the share of O(error_rate) that is theirs; fixed limits are always judged.
"""

EXAMPLES = r"""
- name: Judge the batch
  ebpf.fleet.gate:
    hosts: "{{ ansible_play_batch }}"
    before_var: before
    after_var: after
    expected_var: capabilities.profiles
    contracts: "{{ release_contracts }}"
    digest: "{{ release_digest }}"
    limits:
      drop_ratio_ppm: 10000
      host_cpu_delta_ppm: 30000
    extra_checks:
      - name: pressure
        expression: after.end.host.psi_cpu_some_us
        max: 1000000
  register: gate
  run_once: true

- name: Go on only if the batch is healthy
  ansible.builtin.assert:
    that: gate.verdict == 'pass'
    fail_msg: "{{ gate.sentence }}"
  run_once: true
"""

RETURN = r"""
verdict:
  description: C(pass), C(fail) or C(inconclusive).
  returned: success
  type: str
sentence:
  description: Why, in one sentence that names every check that stands in the way, the first twelve with their own.
  returned: success
  type: str
reasons:
  description: The checks that stand in the way, as in C(checks), the failed ones first. Empty where nothing does.
  returned: success
  type: list
  elements: dict
next:
  description: What to do about them, one sentence a kind of check. Empty where nothing stands in the way.
  returned: success
  type: list
  elements: str
hosts:
  description: The changed hosts that were judged, sorted.
  returned: success
  type: list
  elements: str
before_after:
  description:
    - Of C(changed) and C(controls) for each host what it was before and after the change, as C([before, after]) of
      C(host_cpu_ppm), C(memory_used_bytes), C(pressure_cpu_ppm), C(pressure_memory_ppm), C(pressure_io_ppm),
      C(application_p95_ns) and C(application_p99_ns).
    - What was not measured is null; what the host has not at all is left out. Empty while the batch still bakes.
  returned: success
  type: dict
checks:
  description: Every check that was made.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: The host, or null for a check over all.
      type: str
    feature:
      description: The feature, or null for a check of the host.
      type: str
    check:
      description: Name of the check.
      type: str
    verdict:
      description: C(pass), C(fail), C(inconclusive) or C(not_exercised).
      type: str
    measured:
      description: What was measured; null if it was not.
      type: raw
    limit:
      description: What it was compared with; null if there is no limit.
      type: raw
    unit:
      description: Unit of both.
      type: str
    sentence:
      description: The check in words.
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
