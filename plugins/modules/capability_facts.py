#!/usr/bin/python
# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a host's kernel what eBPF it can run."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: capability_facts
short_description: Ask a host's kernel what eBPF it can run
version_added: 0.1.0
description:
  - Asks the running kernel by C(bpf(2)) which program types, map types, helpers and attach points it has.
    A version number alone is never trusted.
  - Every answer is C(yes), C(no) or C(unknown), with the evidence. Unknown never counts as yes.
  - With O(contracts) it also predicts the profile that each feature will reach on the host.
  - Changes no setting, writes nothing, also not to the kernel's log, and leaves no descriptor open and nothing
    loaded. Most questions are programs that the kernel refuses for a deliberate mistake. A hook that no BTF names
    (a raw tracepoint, a kprobe) is attached to for a moment by a program that does nothing.
  - Lists what BPF is loaded on the host, by whomever, with its cost.
  - Without root fewer questions are answered; C(privileged) is then false and a warning says so.
author: The ebpf.fleet authors (@ebpf-fleet)
options:
  contracts:
    description:
      - Contracts of the features whose needs are to be judged, as in a bundle's C(contract.json).
    type: list
    elements: dict
    default: []
  helpers:
    description:
      - With V(contracts) only the helpers are asked that the contracts name, with V(all) every helper of every
        program type, some 7000 questions.
    type: str
    choices: [contracts, all]
    default: contracts
  btf_index:
    description:
      - Entries of a bundle's C(btf/index.json), its minimal BTF for kernels that have none of their own.
    type: list
    elements: dict
  fallbacks:
    description:
      - Fallbacks that the operator opted into for features of which no variant works here.
    type: list
    elements: str
    choices: [bcc]
    default: []
  next_kernel:
    description:
      - Also tell what will change with the kernel that the host boots next; V(auto) for the one that
        the boot loader will choose, or a release that is installed.
    type: str
  today:
    description:
      - UTC date, C(YYYY-MM-DD), by which expired contracts are told; the host's own date if absent.
    type: str
attributes:
  check_mode:
    description: Asks the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: Never changes a host.
    support: full
  facts:
    description: Returns a fact, C(ebpf_fleet_capabilities).
    support: full
seealso:
  - module: ebpf.fleet.release
  - module: ebpf.fleet.observation_info
"""

EXAMPLES = r"""
- name: What can this host run?
  ebpf.fleet.capability_facts:

- name: Which profile will each feature of this release reach?
  ebpf.fleet.capability_facts:
    contracts: "{{ release_contracts }}"
  register: capabilities

- name: Show features that will not run in full
  ansible.builtin.debug:
    msg: "{{ item.key }}: {{ item.value.profile }}, {{ item.value.reason }}"
  loop: "{{ capabilities.profiles | dict2items }}"
  when: item.value.profile != 'full'
"""

RETURN = r"""
ansible_facts:
  description: The facts, to be used by later tasks.
  returned: success
  type: dict
  contains:
    ebpf_fleet_capabilities:
      description: The same as RV(capabilities).
      returned: success
      type: dict
capabilities:
  description: What the kernel answered; the format is in docs/formats/capabilities.md.
  returned: success
  type: dict
  sample:
    schema: ebpf.fleet/capabilities/v1
    kernel: {release: 6.1.0-31-cloud-amd64, family: "6.1", distro_family: debian-6.1, machine: x86_64}
    btf: {answer: "yes", state: vmlinux, evidence: "/sys/kernel/btf/vmlinux, 5516713 bytes"}
profiles:
  description: The predicted profile by feature; the loader's trial load has the last word.
  returned: success
  type: dict
  sample:
    runqlat: {profile: disabled, variant: null, reason_code: EF_NO_BTF, reason: "full needs btf:vmlinux: no",
      sentence: "runqlat → disabled: full needs btf:vmlinux: no"}
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

import datetime
import platform
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError


def refuse_unsupported_host(module):
    """Stop before imports that only Linux has; the action plugin speaks for a Python that is too old."""
    if platform.system() != "Linux":
        problem = f"{platform.system()}: eBPF is the Linux kernel's; take this host out of the play"
        module.fail_json(**FleetError("EF_UNSUPPORTED_HOST", problem).as_result())


def the_day(module):
    """The date by which contracts expire, checked."""
    given = module.params["today"]
    if given is None:
        return datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        raise FleetError("EF_ARGUMENT", f"today: {given!r} is not a date; write YYYY-MM-DD")
    return given


def ask(params, today):
    """The facts with the predictions; raises FleetError."""
    from pathlib import Path

    from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities, profile
    from ansible_collections.ebpf.fleet.plugins.module_utils.release import trust_host
    from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import Layout

    contracts = params["contracts"]
    needed = profile.requirements(contracts)
    facts = capabilities.gather(needed, all_helpers=params["helpers"] == "all", btf_index=params["btf_index"])
    facts["trust"] = trust_host.judge_running(Layout(Path("/")))
    facts["profiles"] = {one["feature"]: profile.predict(one, facts, today, params["fallbacks"]) for one in contracts}
    if params["next_kernel"]:
        from ansible_collections.ebpf.fleet.plugins.module_utils.facts import nextkernel

        want, given = params["next_kernel"], (params["fallbacks"], params["btf_index"])
        facts["next_kernel"] = nextkernel.preflight(Path("/"), want, facts, contracts, today, *given)
    return facts


def main():
    module = AnsibleModule(
        argument_spec={
            "contracts": {"type": "list", "elements": "dict", "default": []},
            "helpers": {"type": "str", "choices": ["contracts", "all"], "default": "contracts"},
            "btf_index": {"type": "list", "elements": "dict"},
            "fallbacks": {"type": "list", "elements": "str", "choices": ["bcc"], "default": []},
            "next_kernel": {"type": "str"},
            "today": {"type": "str"},
        },
        supports_check_mode=True,
    )
    refuse_unsupported_host(module)
    try:
        facts = ask(module.params, the_day(module))
    except FleetError as error:
        module.fail_json(**error.as_result())
    if not facts["privileged"]:
        module.warn("Not privileged: the kernel answers few questions; use become to have them all answered")
    module.exit_json(
        changed=False,
        ansible_facts={"ebpf_fleet_capabilities": facts},
        capabilities=facts,
        profiles=facts["profiles"],
    )


if __name__ == "__main__":
    main()
