# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time, CPU and memory that a service tells, held against the kernel's own counts. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Finding,
    Json,
    Pair,
    get,
    number,
    ratio_up,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.sides import (
    Side,
    sides,
    unseen,
    what_is_missing,
    why_unseen,
)

FUTURE_NS = 1_000_000_000
# /proc/PID/stat cuts user and system time to ticks of 10 ms each; the loader's clock counts ns.
CPU_TOLERANCE_NS = 50_000_000
# Resident memory is kept in batches for each thread and CPU, and falls when the loader trims itself.
MEMORY_TOLERANCE_BYTES = 8 << 20


def judge_advance(pair: Pair, side: Side) -> Finding:
    """Does the account go on with the clock, and did the process do anything while it went on?"""
    first, last = (number(told, "boottime_ns") for told in side.told)
    if first is None or last is None:
        return Finding(INCONCLUSIVE, last, None, f"the {side.name} gives no time of its account")
    ahead = next((at for at, now in zip((first, last), side.times) if at > now + FUTURE_NS), None)
    if ahead is not None:
        sentence = f"the account of the {side.name} is of {ahead} ns after boot, the clock said {side.times[1]} ns"
        return Finding(FAIL, ahead, side.times[1], sentence)
    window = side.times[1] - side.times[0]
    if last <= first:
        late = window > pair.limit("status_age_ns")
        sentence = f"the account of the {side.name} did not advance while {window} ns passed"
        return Finding(FAIL if late else INCONCLUSIVE, last - first, window, sentence)
    spent = unit_cpu_ns(side)
    if spent is None:
        return unseen(f"CPU time of the {side.name}", why_unseen(side.seen[1], "cpu_ns"))
    if spent == 0 and side.told_within and get(side.seen[1], "cpu_source") != "processes":
        sentence = f"the account of the {side.name} advanced by {last - first} ns, its unit got 0 ns of CPU"
        return Finding(FAIL, last - first, 0, sentence)
    return Finding(PASS, last - first, window, f"the account of the {side.name} goes on")


def unit_cpu_ns(side: Side) -> int | None:
    """CPU time of the unit within the window by the kernel; None if it is not one count of one life."""
    first: int | None = number(side.seen[0], "cpu_ns")
    last: int | None = number(side.seen[1], "cpu_ns")
    same = get(side.seen[0], "cpu_source") == get(side.seen[1], "cpu_source")
    if first is None or last is None or last < first or not same or not side.same_life:
        return None
    return last - first


def units_millicores(pair: Pair) -> int | None:
    """CPU of loader and collector by the kernel over the window; None where it was not seen whole."""
    found = sides(pair) if what_is_missing(pair) is None else []
    spent = [unit_cpu_ns(side) for side in found]
    window = found[0].times[1] - found[0].times[0] if found else 0
    if None in spent or window <= 0:
        return None
    return millicores_of(sum(value for value in spent if value is not None), window)


def millicores_of(spent_ns: int, window_ns: int) -> int:
    return ratio_up(spent_ns, window_ns, 1000)


def main_cpu_ns(side: Side, end: int) -> int | None:
    """CPU time of the main process since its start; the collector's compilers are its children."""
    main = get(side.seen[end], "main")
    own: int | None = number(main, "cpu_ns")
    if own is None or side.name == "loader":
        return own
    children: int = number(main, "children_cpu_ns") or 0
    return own + children


class Growth(NamedTuple):
    """A value that only grows: told at both ends, counted by the kernel at both ends."""

    told: tuple[int | None, int | None]
    seen: tuple[int | None, int | None]
    tolerance: int
    what: str
    unit: str


def judge_growth(side: Side, one: Growth) -> Finding:
    """Does what was told lie between the kernel's counts at both ends of the window?"""
    told, seen = one.told, one.seen
    if told[1] is None:
        return Finding(INCONCLUSIVE, None, seen[1], f"{one.what} was not told")
    if seen[1] is None:
        return unseen(one.what, None)
    for value, counted in zip(told, seen):
        if value is not None and counted is not None and value > counted + one.tolerance:
            sentence = f"{one.what} is told as {value} {one.unit}, the kernel counted {counted} {one.unit}"
            return Finding(FAIL, value, counted, sentence)
    if seen[0] is None:
        return Finding(PASS, told[1], seen[1], f"{one.what}: told {told[1]}, counted {seen[1]} {one.unit}")
    if seen[1] < seen[0] or (told[0] is not None and told[1] < told[0]):
        both = f"told {told[0]}, then {told[1]}; counted {seen[0]}, then {seen[1]} {one.unit}"
        return Finding(INCONCLUSIVE, told[1], seen[1], f"{one.what} went backwards: {both}")
    if not side.told_within:
        remedy = "make the window longer than the loader's interval and 2 s"
        return Finding(INCONCLUSIVE, told[1], seen[1], f"{one.what}: the last account is too old; {remedy}")
    if told[1] + one.tolerance < seen[0]:
        sentence = f"{one.what} is told as {told[1]} {one.unit}, the kernel had counted {seen[0]} {one.unit} before"
        return Finding(FAIL, told[1], seen[0], sentence)
    return Finding(PASS, told[1], seen[1], f"{one.what}: told {told[1]}, counted {seen[0]} to {seen[1]} {one.unit}")


def judge_cpu(_pair: Pair, side: Side) -> Finding:
    """Is the CPU time that is told the one that the kernel counted?"""
    if not side.same_life:
        return Finding(INCONCLUSIVE, None, None, f"the {side.name} was not one process throughout the window")
    told = tuple(number(one, "cpu_ns") for one in side.told)
    seen = (main_cpu_ns(side, 0), main_cpu_ns(side, 1))
    what = f"CPU time of the {side.name} since its start"
    return judge_growth(side, Growth((told[0], told[1]), seen, CPU_TOLERANCE_NS, what, "ns"))


def judge_memory(_pair: Pair, side: Side) -> Finding:
    """Is much less memory told than the kernel saw at both ends? More may have been in use between them."""
    told = number(side.told[1], "rss_bytes")
    seen = [_resident(side, one) for one in side.seen]
    what = f"resident memory of the {side.name}"
    if told is None:
        return Finding(INCONCLUSIVE, None, seen[1], f"{what} was not told")
    known = [one for one in seen if one is not None]
    if len(known) < len(seen):
        return unseen(what, why_unseen(side.seen[1], "rss_bytes"))
    least = min(known)
    if told + told // 2 + MEMORY_TOLERANCE_BYTES < least:
        return Finding(FAIL, told, least, f"{what} is told as {told} bytes, the kernel saw {least} bytes")
    return Finding(PASS, told, least, f"{what}: told {told} bytes, seen {least} bytes")


def _resident(side: Side, seen: Json) -> int | None:
    # The collector's compilers come and go; the loader has no children, so all of its unit counts.
    path = ("rss_bytes",) if side.name == "loader" else ("main", "rss_bytes")
    return number(seen, *path)
