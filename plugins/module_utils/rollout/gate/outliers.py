# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single hosts of a large batch that grew for a reason of their own: how many there may be. Pure.

Among hundreds of hosts some job always begins within the minute. A host whose CPU or memory grew over its limit passes
where the batch is large and what is ours on it is measured and small (load.py); here all of these are counted, so that
a release that harms a part of the hosts by more than its own account is stopped by their number.
"""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    PASS,
    Finding,
    Inputs,
    ratio_up,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import (
    LARGE_BATCH,
    cpu_delta,
    excused_growth,
    memory_delta,
)

LIMIT = "host_outliers_ppm"
_NAMED = 10


def judge_outliers(inputs: Inputs) -> Finding | None:
    """Is the share of hosts that grew over their own limit small? None of a small batch, of which each is judged."""
    if len(inputs.changed) < LARGE_BATCH:
        return None
    over: set[str] = set()
    for delta, name in ((cpu_delta, "host_cpu_delta_ppm"), (memory_delta, "host_memory_delta_bytes")):
        excused = excused_growth(inputs, delta) or 0
        for host, record in inputs.changed.items():
            growth = delta(record)
            if growth is not None and growth - excused > inputs.limits[name]:
                over.add(host)
    share, limit = ratio_up(len(over), len(inputs.changed), 1_000_000), inputs.limits[LIMIT]
    named = ", ".join(sorted(over)[:_NAMED]) + (f" and {len(over) - _NAMED} more" if len(over) > _NAMED else "")
    sentence = f"{len(over)} of {len(inputs.changed)} hosts are over a limit of their growth, {share} ppm"
    sentence += f" of at most {limit}: {named}" if over else ""
    return Finding(PASS if share <= limit else FAIL, share, limit, sentence)
