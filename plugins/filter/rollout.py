# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a rollout: who takes part, when a batch may start, its times, and where its records go."""

from __future__ import annotations

import functools
import os

import zoneinfo
from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import freeze, omissions, quarantine, timing
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt, fault_of


def rollout_timing(given, hosts=0, changed=True, bake=None):
    """Return the times of a batch; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: timing.timing(given, hosts, changed, bake))


def report_folder(given, typed_in):
    """Return the folder of the records; see the filter's documentation."""
    return timing.report_folder(os.path.expanduser(given), typed_in)


def rollout_omissions(
    hostvars, contracts, leave_out=(), unreachable_limit="0", quarantined=None, digest="", told=False
):
    """Return who takes part in a rollout and who is left out; see the filter's documentation."""
    if told and fault_of(quarantined):
        return quarantined

    def ask():
        kept_off = quarantine.quarantined(quarantined, digest) if quarantined else {}
        permitted = omissions.Wishes(tuple(leave_out), str(unreachable_limit), kept_off)
        found = omissions.omissions(list(hostvars), contracts, permitted)
        left_out = [one._asdict() for one in found.left_out]
        return {"kept": found.kept, "left_out": left_out, "over_limit": found.over_limit}

    return attempt(AnsibleFilterError, ask, told)


def rollout_freeze(hostvars, now, overrule=None):
    """Return what keeps batches from starting now; see the filter's documentation."""
    return attempt(AnsibleFilterError, functools.partial(_freeze, list(hostvars), now, overrule))


def _freeze(hosts, now, overrule):
    at = freeze.moment(freeze.read_moment("now", now))
    told = freeze.sentences(freeze.held(hosts, at, zone_of), len(hosts))
    if overrule:
        return {"sentences": [], "notes": [f"overruled ({overrule}): {one}" for one in told]}
    return {"sentences": told, "notes": told}


def zone_of(name):
    """The time zone as the controller knows it, or None."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return None


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "rollout_freeze": rollout_freeze,
            "rollout_omissions": rollout_omissions,
            "rollout_timing": rollout_timing,
            "report_folder": report_folder,
        }
