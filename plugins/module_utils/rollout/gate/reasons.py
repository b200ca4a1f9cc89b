# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a batch is not promoted: every check that stands in the way, in one sentence, and what to do next. Pure."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import FAIL, INCONCLUSIVE, PASS, Judgement
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import BY_NAME, WITNESS

# So many are told in full in the one sentence, the others by name; each has its own sentence among the reasons.
TOLD_IN_FULL = 12
OWN = "a check of your own (ebpf_fleet_gate_checks): fix what it measures, or its bound"
UNKNOWN = (
    "what was not measured promotes nothing: fix what the sentence names, lengthen ebpf_fleet_window_after, or allow "
    "it with ebpf_fleet_on_inconclusive"
)
LIMITS = "limits are set in ebpf_fleet_gate_limits"


class Reasons(NamedTuple):
    """The checks that stand in the way, failed ones first, the sentence that names all of them, and the next steps."""

    checks: Sequence[Judgement]
    sentence: str
    steps: Sequence[str]


def reasons_of(checks: Sequence[Judgement], held: Sequence[Judgement]) -> Reasons | None:
    """Why these checks promote nothing, `held` being the inconclusive ones that hold; None where nothing does."""
    failed = [check for check in checks if check.verdict == FAIL]
    if not failed and not held:
        return None
    parts = [f"{len(failed)} of {len(checks)} checks failed: {tell(failed)}"] if failed else []
    if held:
        count = f"{len(held)} could" if failed else f"{len(held)} of {len(checks)} checks could"
        parts.append(f"{count} not be judged: {tell(held)}")
    return Reasons([*failed, *held], "; ".join(parts), next_steps([*failed, *held]))


def tell(checks: Sequence[Judgement]) -> str:
    """Every check: the first ones with their sentence, the others by name."""
    told = "; ".join(check.sentence for check in checks[:TOLD_IN_FULL])
    others = checks[TOLD_IN_FULL:]
    return f"{told}; and {name_all(others)}" if others else told


def name_all(checks: Sequence[Judgement]) -> str:
    """Every check by host: `h1: loader_cpu, drop_ratio (runqlat); h2: release`."""
    by_host: dict[str, list[str]] = {}
    for check in checks:
        about = f" ({check.feature})" if check.feature else ""
        names = by_host.setdefault(check.host or "all hosts together", [])
        if check.check + about not in names:
            names.append(check.check + about)
    return "; ".join(f"{host}: {', '.join(names)}" for host, names in by_host.items())


def next_steps(checks: Sequence[Judgement]) -> list[str]:
    """What to do, one line a kind of check, in their order; what several checks ask for is told once."""
    lines: dict[str, list[str]] = {}
    for check in checks:
        names = lines.setdefault(step_of(check), [])
        if check.check not in names:
            names.append(check.check)
    steps = [f"{', '.join(names)}: {step}" for step, names in lines.items()]
    limited = any(
        check.verdict == FAIL and check.limit is not None and step_of(check) not in (OWN, WITNESS) for check in checks
    )
    return [*steps, LIMITS] if limited else steps


def step_of(check: Judgement) -> str:
    """What to do about one check."""
    if check.verdict == INCONCLUSIVE and check.check != "observation":
        return UNKNOWN
    return BY_NAME[check.check].step if check.check in BY_NAME else OWN


def unproven(hosts: Sequence[str], checks: Sequence[Judgement]) -> list[str]:
    """Hosts on which no check passed, so that nothing speaks for them."""
    return sorted(set(hosts) - {str(check.host) for check in checks if check.verdict == PASS})
