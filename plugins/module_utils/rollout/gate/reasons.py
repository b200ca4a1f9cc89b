# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a batch is not promoted: every check that stands in the way, in one sentence, and what to do next. Pure."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import FAIL, INCONCLUSIVE, PASS, Check

# So many are told in full in the one sentence, the others by name; each has its own sentence among the reasons.
TOLD_IN_FULL = 12
OURS = "the sentence has what of it is ours"
# What to do where a check of that name failed.
STEPS: Mapping[str, str] = {
    "loader_cpu": "sample the features with events (ebpf_fleet_features), or raise loader_cpu_millicores",
    "bpf_cpu": "sample the features (ebpf_fleet_features), or have their owners raise their budgets",
    "total_cpu": "as loader_cpu and feature_cpu: lower what runs, or raise total_cpu_millicores",
    "feature_cpu": "sample the feature (ebpf_fleet_features), turn it off, or have its owner raise its budget",
    "host_cpu_delta": f"{OURS}: if another load grew meanwhile, wait until it is over, or raise host_cpu_delta_ppm",
    "host_cpu_shift": "many hosts got busier by a little: compare with their loader_cpu and bpf_cpu, which are ours",
    "host_memory_delta": "look at what else grew on the host; wait until it is over, or raise host_memory_delta_bytes",
    "drop_ratio": "sample the feature (ebpf_fleet_features), or have its owner enlarge its ring or map",
    "event_rate": "sample the feature (ebpf_fleet_features), or have its owner raise its event_rate_per_second",
    "map_fill": "have the feature's owner enlarge the map; until then turn the feature off (ebpf_fleet_features)",
    "map_memory": "have the feature's owner raise its map_memory_bytes or make its maps smaller",
    "consumer_lag": "the loader does not get the CPU or its disk is slow: look at CPUQuota= and /var/log on the host",
    "degradation": "a budget thinned or took off the feature: make it fit, or allow it with degradation_steps",
    "counters_advance": "measure again; if it stays, the host's kernel, clock or loader is wrong: look at it",
    "accounting": "a program counts wrongly: do not promote it; tell the feature's owner",
    "features_attached": "the sentence has the loader's reason: fix the host, or turn the feature off on it",
    "release": "the host runs another bundle: look at journalctl -u ebpf-fleet-loader there",
    "loader_active": "the loader ended: look at journalctl -u ebpf-fleet-loader on the host",
    "loader_restarts": "the loader ended by itself: look at journalctl -u ebpf-fleet-loader on the host",
    "observation": "look at what the host answers (-vvv), or leave it out with --limit",
    "status_fresh": "the loader hangs or /run is full: look at the host",
    "application_p95": "if the release slows the application, do not promote it; else raise application_p95_growth_ppm",
    "application_p99": "if the release slows the application, do not promote it; else raise application_p99_growth_ppm",
}
WITNESS = (
    "what the loader tells and what the kernel shows differ: treat the host as hostile until someone has looked at it"
)
OWN = "a check of your own (ebpf_fleet_gate_checks): fix what it measures, or its bound"
UNKNOWN = (
    "what was not measured promotes nothing: fix what the sentence names, lengthen ebpf_fleet_window_after, or allow "
    "it with ebpf_fleet_on_inconclusive"
)
LIMITS = "limits are set in ebpf_fleet_gate_limits"


class Reasons(NamedTuple):
    """The checks that stand in the way, failed ones first, the sentence that names all of them, and the next steps."""

    checks: Sequence[Check]
    sentence: str
    steps: Sequence[str]


def reasons_of(checks: Sequence[Check], held: Sequence[Check]) -> Reasons | None:
    """Why these checks promote nothing, `held` being the inconclusive ones that hold; None where nothing does."""
    failed = [check for check in checks if check.verdict == FAIL]
    if not failed and not held:
        return None
    parts = [f"{len(failed)} of {len(checks)} checks failed: {tell(failed)}"] if failed else []
    if held:
        count = f"{len(held)} could" if failed else f"{len(held)} of {len(checks)} checks could"
        parts.append(f"{count} not be judged: {tell(held)}")
    return Reasons([*failed, *held], "; ".join(parts), next_steps([*failed, *held]))


def tell(checks: Sequence[Check]) -> str:
    """Every check: the first ones with their sentence, the others by name."""
    told = "; ".join(check.sentence for check in checks[:TOLD_IN_FULL])
    others = checks[TOLD_IN_FULL:]
    return f"{told}; and {name_all(others)}" if others else told


def name_all(checks: Sequence[Check]) -> str:
    """Every check by host: `h1: loader_cpu, drop_ratio (runqlat); h2: release`."""
    by_host: dict[str, list[str]] = {}
    for check in checks:
        about = f" ({check.feature})" if check.feature else ""
        names = by_host.setdefault(check.host or "all hosts together", [])
        if check.check + about not in names:
            names.append(check.check + about)
    return "; ".join(f"{host}: {', '.join(names)}" for host, names in by_host.items())


def next_steps(checks: Sequence[Check]) -> list[str]:
    """What to do, one line a kind of check, in their order; what several checks ask for is told once."""
    lines: dict[str, list[str]] = {}
    for check in checks:
        names = lines.setdefault(step_of(check), [])
        if check.check not in names:
            names.append(check.check)
    steps = [f"{', '.join(names)}: {step}" for step, names in lines.items()]
    limited = any(check.verdict == FAIL and check.limit is not None and check.check in STEPS for check in checks)
    return [*steps, LIMITS] if limited else steps


def step_of(check: Check) -> str:
    """What to do about one check."""
    if check.verdict == INCONCLUSIVE and check.check != "observation":
        return UNKNOWN
    if check.check.startswith("witness"):
        return WITNESS
    return STEPS.get(check.check, OWN)


def unproven(hosts: Sequence[str], checks: Sequence[Check]) -> list[str]:
    """Hosts on which no check passed, so that nothing speaks for them."""
    return sorted(set(hosts) - {str(check.host) for check in checks if check.verdict == PASS})
