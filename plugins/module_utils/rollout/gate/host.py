# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a host's loader and application: fresh, the right release, up, not restarted, not slower. Pure."""

from __future__ import annotations

from typing import Callable

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Finding,
    Json,
    Measured,
    Pair,
    Unmeasured,
    get,
    grown,
    number,
    ratio_up,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import seen_of


def judge_freshness(pair: Pair) -> Measured:
    """Is the status recent? A stale one says nothing of now: it holds, it does not condemn."""
    return Measured(number(pair.end, "status_age_ns"))


def judge_release(pair: Pair) -> Finding | None:
    """Does the host run the very bundle that the rollout brings?"""
    wanted = pair.inputs.digest
    if wanted is None:
        return None
    running = get(pair.end, "status", "bundle", "digest")
    sentence = f"runs bundle {str(running)[:12]}, the rollout brings {wanted[:12]}"
    return Finding(PASS if running == wanted else FAIL, running, wanted, sentence)


def judge_active(pair: Pair) -> Finding:
    """Is the service up at both ends of the window?"""
    states = [get(pair.start, "unit", "active_state"), get(pair.end, "unit", "active_state")]
    if None in states:
        return Finding(INCONCLUSIVE, states[1], "active", "systemd did not say whether the loader is active")
    if states == ["active", "active"]:
        return Finding(PASS, states[1], "active", "the loader was active at both ends of the window")
    return Finding(FAIL, states[1], "active", f"the loader was {states[0]}, then {states[1]}")


def judge_restarts(pair: Pair) -> Measured:
    """Restarts that were not planned: systemd's count, and a loader that changed within the window."""
    return Measured(restarts(pair))


def restarts(pair: Pair) -> int | None:
    """Unplanned restarts between the observations; systemd's count starts again at a planned one."""
    first, last = number(pair.start, "unit", "n_restarts"), number(pair.end, "unit", "n_restarts")
    if first is None or last is None:
        return None
    lives = [loader_life(pair.start), loader_life(pair.end)]
    changed_in_window = (None not in lives and lives[0] != lives[1]) or life_changed(pair)
    before_life = loader_life(get(pair.before, "end") or {})
    if last < first and not changed_in_window:
        return None
    planned = before_life is None or before_life != lives[0]
    base = 0 if planned else number(pair.before, "end", "unit", "n_restarts") or 0
    return max(last - base, last - first, int(changed_in_window))


def life_changed(pair: Pair) -> bool:
    """Whether the kernel saw another main process at the end of the window than at its start."""
    lives = [get(seen_of(one, "loader"), "main", "started_boottime_ns") for one in (pair.start, pair.end)]
    return None not in lives and lives[0] != lives[1]


def loader_life(snapshot: Json) -> tuple[int, int] | None:
    """What tells one run of the loader from the next."""
    pid = number(snapshot, "status", "pid")
    started = number(snapshot, "status", "started_boottime_ns")
    return None if pid is None or started is None else (pid, started)


def first_fault(pair: Pair, field: str) -> str | None:
    """What the latest observation says is wrong with a file; None where nothing is."""
    ends = (pair.end, get(pair.before, "end"))
    return next((str(get(one, field)) for one in ends if get(one, field) is not None), None)


def application(percentile: str) -> Callable[[Pair], Measured | Unmeasured]:
    """The judge of a percentile of the application's latency, where it is measured or a limit demands it."""

    def judge(pair: Pair) -> Measured | Unmeasured:
        wrong = first_fault(pair, "application_error")
        if wrong is not None:
            return Unmeasured(INCONCLUSIVE, f"the application's {percentile} cannot be read: {wrong}")
        before = number(pair.before, "end", "application", percentile + "_ns")
        after = number(pair.end, "application", percentile + "_ns")
        more = grown(before, after)
        if before != after and more is None:
            # An application that came or went within the batch, or a part of its measurement: not nothing to judge.
            end = "before" if before is None else "after"
            return Unmeasured(INCONCLUSIVE, f"the application's {percentile} was not measured {end} the change")
        if more is None or before is None or before <= 0 or after == 0:
            return Measured(None)
        return Measured(ratio_up(more, before, 1_000_000))

    return judge
