# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a rollout's controls: who they are, what they are asked, and what they answered."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import controls, latency
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

VARIABLE = "ebpf_fleet_application_latency"


def rollout_controls(hosts, plan, most=controls.DEFAULT_MOST):
    """Return the controls of each batch; see the filter's documentation."""
    strata = {one["name"]: one["stratum"] for one in hosts}
    # A holdback is a standing control: its hosts stay as they are while every batch is changed.
    spare = [*(plan.get("left") or []), *(plan.get("holdback") or {}).get("hosts", [])]
    return controls.choose(strata, plan["batches"], spare, most)


def latency_sources(given, asked_from=latency.CONTROLLER):
    """Return the sources that are asked from there; see the filter's documentation."""
    found = {host: attempt(AnsibleFilterError, lambda one=one: latency.read_source(VARIABLE, one or {}))
             for host, one in given.items()}  # fmt: skip
    return {host: given[host] for host, one in found.items() if one is not None and one.asked_from == asked_from}


def control_script(given):
    """Return the command for controls; see the filter's documentation."""
    here = latency_sources(given, latency.HOST)
    return controls.script({host: latency.read_source(VARIABLE, one) for host, one in here.items()})


def control_observations(answers, given=None):
    """Return what the controls answered as observations; see the filter's documentation."""
    sources = {host: latency.read_source(VARIABLE, one) for host, one in (given or {}).items() if one}
    ages = {host: one.max_age for host, one in sources.items() if one is not None}
    return controls.records({name: one for name, one in answers.items() if one}, ages)


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "rollout_controls": rollout_controls,
            "latency_sources": latency_sources,
            "control_script": control_script,
            "control_observations": control_observations,
        }
