# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process tells, of which boot, as which user, from which file: held against root's own view. Pure."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Finding,
    Pair,
    get,
    number,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import (
    Side,
    unseen,
    what_is_missing,
    why_unseen,
)

# The kernel keeps a start in ticks, and the two sides may round to different ones.
START_TOLERANCE_NS = 20_000_000
# Stopped, traced, zombie, dead: none of these runs.
NOT_RUNNING = {"T": "stopped", "t": "stopped by a tracer", "Z": "a zombie", "X": "dead", "x": "dead"}


def judge_witness(pair: Pair) -> Finding | None:
    """Is there a view of root's own to compare with? Without it nothing else of it is judged."""
    missing = what_is_missing(pair)
    return None if missing is None else Finding(INCONCLUSIVE, None, None, missing)


def judge_boot(pair: Pair) -> Finding | None:
    """Is the status of this boot?"""
    if what_is_missing(pair) is not None:
        return None
    seen = [get(one, "witness", "boot_id") for one in (pair.start, pair.end)]
    told = [get(one, "status", "boot_id") for one in (pair.start, pair.end)]
    told += [get(one, "status", "collector", "boot_id") for one in (pair.end,) if get(one, "status", "collector")]
    if None in seen:
        return unseen("the boot", get(pair.end, "witness", "why", "boot_id"))
    if seen[0] != seen[1]:
        return Finding(INCONCLUSIVE, seen[1], seen[0], "the host was booted within the window")
    other = next((one for one in told if one is not None and one != seen[1]), None)
    if other is not None:
        sentence = f"the status is of boot {printable(other, 40)}, the kernel's boot is {printable(seen[1], 40)}"
        return Finding(FAIL, other, seen[1], sentence)
    return Finding(PASS, told[1], seen[1], "the status is of this boot")


def judge_installed(pair: Pair) -> Finding | None:
    """Is the bundle that is told the one that is installed, and the one that was planned?"""
    if what_is_missing(pair) is not None:
        return None
    told, wanted = get(pair.end, "status", "bundle", "digest"), pair.inputs.digest
    seen = get(pair.end, "witness", "installed_digest")
    if seen is None:
        return unseen("the installed release", get(pair.end, "witness", "why", "installed_digest"))
    plan = "" if wanted is None else f", the plan is {wanted[:12]}"
    sentence = f"the status tells bundle {printable(told, 12)}, installed is {printable(seen, 12)}{plan}"
    good = told == seen and wanted in (None, seen)
    return Finding(PASS if good else FAIL, told, seen, sentence)


def judge_process(_pair: Pair, side: Side) -> Finding:
    """Does the unit's main process exist, belong to the unit, and run?"""
    for seen in side.seen:
        if number(seen, "main_pid") == 0:
            return Finding(FAIL, None, 0, f"the unit of the {side.name} has no main process")
        main = get(seen, "main")
        if main is None:
            return unseen(f"the main process of the {side.name}", why_unseen(seen, "main"))
        state = get(main, "state")
        if state in NOT_RUNNING:
            sentence = f"process {main['pid']} of the {side.name} is {NOT_RUNNING[state]} (state {state})"
            return Finding(FAIL, state, "R, S or D", f"{sentence}, so it does not run")
        pids = get(seen, "pids")
        if pids is None:
            return unseen(f"the processes of the {side.name}", why_unseen(seen, "pids"))
        if main["pid"] not in pids:
            return Finding(FAIL, main["pid"], list(pids), f"the unit's cgroup does not hold process {main['pid']}")
    return Finding(PASS, get(side.seen[1], "main", "state"), "R, S or D", f"the {side.name} runs")


def judge_pid(_pair: Pair, side: Side) -> Finding:
    """Is the process that tells the unit's main process?"""
    for told, seen in zip(side.told, side.seen):
        if not told:
            return Finding(INCONCLUSIVE, None, None, f"the {side.name} runs and tells nothing that can be used")
        if not seen:
            return unseen(f"the unit of the {side.name}", "systemd says that it does not run")
        if told["pid"] != number(seen, "main_pid"):
            real = number(seen, "main_pid")
            sentence = f"the {side.name}'s status is of process {told['pid']}, systemd's main process is {real}"
            return Finding(FAIL, told["pid"], real, sentence)
        started, real = number(told, "started_boottime_ns"), number(seen, "main", "started_boottime_ns")
        if started is None or real is None:
            return unseen(f"the start of the {side.name}", why_unseen(seen, "main"))
        if abs(started - real) > START_TOLERANCE_NS:
            sentence = f"the {side.name} says that it started at {started} ns, the kernel says {real} ns"
            return Finding(FAIL, started, real, sentence)
    pids = (side.told[1]["pid"], side.seen[1]["main_pid"])
    return Finding(PASS, *pids, f"the {side.name} that tells is the unit's process")


def judge_user(_pair: Pair, side: Side) -> Finding:
    """Does it run without root's user id?"""
    for seen in side.seen:
        uids = get(seen, "main", "uids")
        if not uids:
            return unseen(f"the user of the {side.name}", why_unseen(seen, "main"))
        if 0 in uids:
            sentence = f"the {side.name} runs with user ids {list(uids)}, one of which is root's"
            return Finding(FAIL, list(uids), "no 0", sentence)
    return Finding(PASS, list(uids), "no 0", f"the {side.name} runs as user {uids[1]}")


def judge_exe(_pair: Pair, side: Side) -> Finding:
    """Does it execute the file that is installed?"""
    installed, name = get(side.seen[1], "main", "exe_is_installed"), get(side.seen[1], "main", "exe")
    if installed is None:
        return unseen(f"what the {side.name} executes", why_unseen(side.seen[1], "main"))
    if installed is False:
        sentence = f"the {side.name} executes {printable(name, 200)}, which is not the file that is installed"
        return Finding(FAIL, name, "the installed file", sentence)
    return Finding(PASS, name, "the installed file", f"the {side.name} executes the installed file")
