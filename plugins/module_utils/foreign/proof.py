# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is it off? Read out of a second inventory, compared with the first. Pure."""

from __future__ import annotations

import shlex
from typing import Any, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.find import Found, is_below, named
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.plan import is_ours

Json = Mapping[str, Any]

OFF, LEFT, UNKNOWN = "off", "left", "unknown"
DIFFERENCES = 20
_ALWAYS = ("programs:", "processes:", "links:", "attachments:", "holders:")
# A host that is itself a container: what is outside of it is not the host's.
_BOUNDS = ("process namespace:", "cgroups: only those below")
# What must have been asked for a program of a type that is still in the kernel to be known as attached nowhere.
_BY_TYPE = (
    (("xdp", "sched_cls", "sched_act"), ("network namespace", "tc filters", "tcx_", "netkit_")),
    (("cgroup_", "sock_ops", "lsm"), ("cgroups: stopped", "cgroups: no", "cgroup_", "lsm_cgroup")),
    (("perf_event",), ("perf events",)),
)


class Proof(NamedTuple):
    """`status` is off only where the kernel said so; `left` is what is not off, with what to do; `told` is the rest."""

    status: str
    left: list[str]
    told: list[str]


def judge(after: Json, found: Found, left: Sequence[str]) -> Proof:
    """What the inventory `after` says of what was `found` in it; `left`: what the plan or a step left already."""
    sentences = list(left)
    told: list[str] = []
    for program in found.programs:
        sentences += _of_program(program, after)
        pins = [path for path in program["pins"] if not is_ours(path)]
        told += [f"{named(program)} is still pinned: rm {shlex.quote(path)}" for path in pins]
    if sentences:
        return Proof(LEFT, sentences, told)
    unsure = unknown_of(after, found.programs)
    if unsure:
        return Proof(UNKNOWN, [f"not known: {one}" for one in unsure], told)
    bounds = [one for one in after["unknown"] if found.programs and one.startswith(_BOUNDS)]
    return Proof(OFF, [], told + [f"off as far as this host sees: {one}" for one in bounds])


def _of_program(program: Json, after: Json) -> list[str]:
    said = []
    for one in after["attachments"]:
        if one["program_id"] == program["id"]:
            link = f", link {one['link_id']}" if one["link_id"] else ""
            said.append(f"{named(program)} is still attached at {one['point']}{link}")
    for holder in program["holders"]:
        process = after["processes"].get(str(holder["pid"]), {})
        of = f" of {process['unit']}" if process.get("unit") else ""
        remedy = "end it" if holder["pid"] == 1 else f"kill {holder['pid']}"
        who = f"process {holder['pid']} ({process.get('comm') or 'unknown'}){of}"
        said.append(f"{named(program)} is still held by {who}: {remedy}")
    return said


def unknown_of(after: Json, programs: Sequence[Json]) -> list[str]:
    """What was not asked and would have to be, to know that the programs that are still there are attached nowhere."""
    begins = {"programs:"}
    if programs:
        begins.update(_ALWAYS)
    for types, prefixes in _BY_TYPE:
        if any(one["type"].startswith(types) for one in programs):
            begins.update(prefixes)
    return [one for one in after["unknown"] if one.startswith(tuple(begins))]


def differences(before: Json, after: Json, mine: set[int], groups: Sequence[str]) -> list[str]:
    """What else changed between the two, a sentence each; at most some, and how many more there are.

    `mine`: ids of the programs that were meant; `groups`: cgroups of units that were stopped, with which go the
    programs that systemd had put there. A program in whose place an equal one came is not a change: systemd does that.
    """
    old, new = _others(before, mine), _others(after, mine)
    said = []
    for key in _more(old, new):
        target = old[key][0][1]
        went = any(is_below(target, group) for group in groups)
        why = ": it went with the cgroup of the stopped unit" if went else ""
        said.append(f"not of this, and gone meanwhile: {_shown(before, old[key][0][0], key)}{why}")
    said += [f"not of this, and new meanwhile: {_shown(after, new[key][0][0], key)}" for key in _more(new, old)]
    return said[:DIFFERENCES] + ([f"and {len(said) - DIFFERENCES} more"] if len(said) > DIFFERENCES else [])


# (name, tag, point, network namespace) of what is attached; without a point of what is not.
_Key = Tuple[str, str, str, int]


def _others(inventory: Json, mine: set[int]) -> dict[_Key, list[tuple[int, str | None]]]:
    """(id, target) of each program that was not meant, by what it is and where."""
    programs = {one["id"]: one for one in inventory["programs"] or () if one["id"] not in mine}
    rows = [(one["program_id"], one["point"], one["netns"] or 0, one["target"]) for one in inventory["attachments"]]
    there = {row[0] for row in rows}
    rows += [(number, "", 0, None) for number in programs if number not in there]
    found: dict[_Key, list[tuple[int, str | None]]] = {}
    for number, point, netns, where in rows:
        if number in programs:
            key = programs[number]["name"], programs[number]["tag"], point, netns
            found.setdefault(key, []).append((number, where))
    return found


def _more(one: Mapping[_Key, Sequence[Any]], other: Mapping[_Key, Sequence[Any]]) -> list[_Key]:
    return sorted(key for key in one if len(one[key]) > len(other.get(key, ())))


def _shown(inventory: Json, number: int, key: _Key) -> str:
    program = next(one for one in inventory["programs"] if one["id"] == number)
    what = f"{named(program)} of {program['owner']['name'] or 'owner unknown'}"
    return f"{what} at {key[2]}" if key[2] else what
