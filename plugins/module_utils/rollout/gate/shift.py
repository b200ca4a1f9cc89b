# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only many hosts together show: a small shift that hides in each host's noise. Pure."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import ranktest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import FAIL, PASS, Finding, Inputs
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import cpu_delta

# The rank test speaks only where so many hosts stand on both sides.
HOSTS = 5
ALPHA_PPM = 10_000
EFFECT_PPM = 500_000
SHIFT_PPM = 10_000


def judge_shift(inputs: Inputs) -> Finding | None:
    """Did the changed hosts as a whole get busier than those that were not changed?"""
    changed = [value for value in map(cpu_delta, inputs.changed.values()) if value is not None]
    controls = [value for value in map(cpu_delta, inputs.controls.values()) if value is not None]
    if min(len(changed), len(controls)) < HOSTS:
        return None
    p_ppm, effect_ppm = ranktest.rank_test(changed, controls)
    shift = ranktest.median(changed) - ranktest.median(controls)
    bad = p_ppm <= ALPHA_PPM and effect_ppm >= EFFECT_PPM and shift >= SHIFT_PPM
    said = (
        f"host CPU of {len(changed)} changed hosts shifted by {shift} ppm against {len(controls)} controls "
        f"(p {p_ppm} ppm, effect {effect_ppm} ppm)"
    )
    return Finding(FAIL if bad else PASS, shift, SHIFT_PPM, said)
