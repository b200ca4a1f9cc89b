# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what a host's status says with root's own view of kernel and systemd (the witness). Pure.

A loader that is frozen, replaced or hostile can write any status. It cannot write what the kernel
counts. A disagreement is a failure and says both values; what root could not see holds.
"""

from __future__ import annotations

from typing import Callable

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    INCONCLUSIVE,
    Check,
    Pair,
    attached_features,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import Finding, Side, sides, what_is_missing
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_cost import (
    judge_advance,
    judge_cpu,
    judge_memory,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_process import (
    judge_boot,
    judge_exe,
    judge_pid,
    judge_process,
    judge_release,
    judge_user,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_programs import judge_programs, judge_runs

WITNESS_CHECKS = (
    "witness",
    "witness_boot",
    "witness_process",
    "witness_pid",
    "witness_user",
    "witness_exe",
    "witness_release",
    "witness_advance",
    "witness_cpu",
    "witness_memory",
    "witness_programs",
    "witness_runs",
)


def witness_checks(pair: Pair) -> list[Check]:
    """Every comparison of one host; without root's view only the one that says so."""
    missing = what_is_missing(pair)
    if missing is not None:
        return [Check(pair.host, None, "witness", INCONCLUSIVE, None, None, None, f"{pair.host}: {missing}")]
    checks = [_as_check(pair, "witness_boot", judge_boot(pair))]
    checks.append(_as_check(pair, "witness_release", judge_release(pair)))
    for side in sides(pair):
        checks += [_as_check(pair, name, judge(pair, side)) for name, judge in SIDE_CHECKS]
    checks += [_as_check(pair, "witness_runs", judge_runs(pair, one), one) for one in attached_features(pair)]
    return checks


def _as_check(pair: Pair, name: str, found: Finding, feature: str | None = None) -> Check:
    about = pair.host if feature is None else f"{pair.host}, {feature}"
    sentence = f"{about}: {found.sentence}"
    return Check(pair.host, feature, name, found.verdict, found.told, found.seen, UNITS.get(name), sentence)


UNITS = {"witness_cpu": "ns", "witness_memory": "bytes", "witness_advance": "ns", "witness_release": "sha256"}


SIDE_CHECKS: tuple[tuple[str, Callable[[Pair, Side], Finding]], ...] = (
    ("witness_process", judge_process),
    ("witness_pid", judge_pid),
    ("witness_user", judge_user),
    ("witness_exe", judge_exe),
    ("witness_advance", judge_advance),
    ("witness_cpu", judge_cpu),
    ("witness_memory", judge_memory),
    ("witness_programs", judge_programs),
)
