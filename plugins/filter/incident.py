# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of incidents: the script of forensics, the judgements of triage, and the blast radius."""

from __future__ import annotations

import base64
import functools
import json

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import plain
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import blast, cost, script, triage
from ansible_collections.ebpf.fleet.plugins.module_utils.release import policy
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt, fault_of


def forensics_script(check, file_bytes=script.FILE_BYTES[1], total_bytes=script.TOTAL_BYTES[1]):
    """One command that prints a host's evidence; see the filter's documentation."""
    return attempt(AnsibleFilterError, functools.partial(script.command, file_bytes, total_bytes, check))


def triage_findings(hostvars, names, contracts=(), limits=None, before=None, told=False, reduce=""):
    """What costs too much, and where; see the filter's documentation."""
    if told and fault_of(contracts):
        return contracts

    def find():
        windows = {host["inventory_hostname"]: [_observation(host.get(name)) for name in names] for host in hostvars}
        budgets = {name: one["budgets"] for name, one in plain(before)["hosts"].items()} if before else None
        return triage.findings(windows, triage.Asked(plain(contracts), plain(limits or {}), budgets, str(reduce)))

    return attempt(AnsibleFilterError, find, told)


def _observation(registered):
    """The observation out of what observation_info registered; None for a host that gave none."""
    if not isinstance(registered, dict) or registered.get("failed") or registered.get("unreachable"):
        return None
    try:
        return plain(registered.get("observation"))
    except RecursionError:
        return None


def triage_policy(slurped, lowered, told=False):
    """The text of policy.json with limits lowered; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: _policy(slurped, plain(lowered)), told)


def _policy(slurped, lowered):
    found = {}
    if isinstance(slurped, dict) and slurped.get("content") is not None:
        try:
            found = json.loads(base64.b64decode(slurped["content"]))
        except (ValueError, TypeError) as error:
            raise FleetError("EF_HOST_POLICY_MALFORMED", "policy.json is not JSON; run ebpf.fleet.prepare") from error
        found = {name: one for name, one in found.items() if name != "schema"} if isinstance(found, dict) else found
    policy.check_policy(found)
    features = {name: dict(one) for name, one in found.get("features", {}).items()}
    for name, limits in lowered.items():
        for limit, value in limits.items():
            features.setdefault(name, {})[limit] = min(value, features.get(name, {}).get(limit, value))
    return {"text": policy.render_policy({**found, "features": features})}


def triage_choice(costs, wanted="", told=False):
    """Which feature is disabled first; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: cost.choice(plain(costs), str(wanted)), told)


def blast_radius(first, steps, last, families, time):
    """How far it reaches; see the filter's documentation."""
    return blast.radius(plain(first), plain(steps), plain(last) if last else None, plain(families), str(time))


def blast_lines(found):
    """The same in a few lines; see the filter's documentation."""
    return blast.lines(plain(found))


class FilterModule:
    def filters(self):
        return {
            "forensics_script": forensics_script,
            "triage_findings": triage_findings,
            "triage_policy": triage_policy,
            "triage_choice": triage_choice,
            "blast_radius": blast_radius,
            "blast_lines": blast_lines,
        }
