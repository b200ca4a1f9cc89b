#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask for an application's latency where it is kept."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: latency_info
short_description: Ask for the p95 and p99 of applications, as the gate judges them
version_added: 0.1.0
description:
  - Asks a Prometheus, an HTTP endpoint, a file or a command for an application's p95 and p99, for one host or many at
    once.
  - A value that is missing, of another shape or unit, empty, stale or not finite is an error that names it, and never
    null without a reason. M(ebpf.fleet.gate) holds on it.
  - A source that does not answer does not fail the task; C(application_error) says why.
  - Uses Python's standard library only. A question is bounded in time and an answer to 64 KiB; redirects are not
    followed.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  sources:
    description:
      - "C({host: source}) of the hosts that are asked for. A source is a mapping with C(source), which is
        C(prometheus), C(http), C(file) or C(command)."
      - "C(prometheus): C(url) of the server, C(queries) with a PromQL expression for C(p95) and one for C(p99) that
        each give one sample, and C(unit) of what they give (C(ns), C(us), C(ms), C(s)); optionally C(token_file) and
        C(ca_file)."
      - "C(http): C(url) of a JSON document C({p95_ms, p99_ms}), each name with its unit; optionally C(token_file),
        C(ca_file) and C(from) (C(host), the default, or C(controller))."
      - "C(file): C(path) of such a document. C(command): C(argv), a list whose first word is the absolute path of a
        program that prints such a document."
      - "All: C(timeout), seconds for one question (default 5), and C(max_age), the most seconds that an answer may be
        old (default 60): of a file since it was written, of a document by its C(time_unix_s), of Prometheus its
        lookback."
      - A document may have C(requests), of how many it is made; 0 is an error. C(token_file) holds a bearer token,
        where the question is asked from.
    type: dict
    required: true
  only:
    description:
      - Whether only those sources are asked that are asked from the controller, C(prometheus) and C(http) where it says
        so.
    type: str
    choices: [all, controller]
    default: all
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
  - module: ebpf.fleet.observation_info
  - module: ebpf.fleet.gate
"""

EXAMPLES = r"""
- name: Ask Prometheus for two hosts, from the controller
  ebpf.fleet.latency_info:
    sources:
      web1: &shop
        source: prometheus
        url: https://prometheus.example.org
        unit: s
        queries:
          p95: histogram_quantile(0.95, sum by (le) (rate(shop_seconds_bucket{instance="web1"}[30s])))
          p99: histogram_quantile(0.99, sum by (le) (rate(shop_seconds_bucket{instance="web1"}[30s])))
  delegate_to: localhost
  run_once: true
  register: latency
"""

RETURN = r"""
hosts:
  description: "C({host: {application, application_error}}) of each host that was asked for."
  returned: success
  type: dict
  sample:
    web1:
      application: {p95_ns: 12000000, p99_ns: 48000000}
      application_error: null
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency, latency_sources


def main():
    module = AnsibleModule(
        argument_spec={
            "sources": {"type": "dict", "required": True},
            "only": {"type": "str", "choices": ["all", "controller"], "default": "all"},
        },
        supports_check_mode=True,
    )
    try:
        given = {host: latency.read_source(f"sources.{host}", one) for host, one in module.params["sources"].items()}
    except FleetError as error:
        module.fail_json(**error.as_result())
    wanted = (latency.HOST, latency.CONTROLLER) if module.params["only"] == "all" else (latency.CONTROLLER,)
    sources = {host: one for host, one in given.items() if one is not None and one.asked_from in wanted}
    found = latency_sources.ask_all(sources)
    for host, one in sorted(found.items()):
        if one["application_error"]:
            module.warn(f"{host}: {one['application_error']}")
    module.exit_json(changed=False, hosts=found)


if __name__ == "__main__":
    main()
