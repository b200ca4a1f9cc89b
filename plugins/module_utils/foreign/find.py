# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a target on one host, out of the host's inventory: by facts, never by a guess. Pure."""

from __future__ import annotations

import difflib
from typing import Any, Container, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target

Json = Mapping[str, Any]

NEAR = 3
_OF_PROCESSES = ("processes:", "process namespace:")


class Found(NamedTuple):
    """What is of the target.

    `programs` are its programs, `pids` the processes that hold them; `shared` maps an id to who else holds that one,
    which is then left; `told` has a sentence for each thing that is left because it is a guess, or not this host's.
    """

    programs: list[Json]
    pids: list[int]
    shared: dict[int, list[int]]
    told: list[str]

    @property
    def ids(self) -> set[int]:
        """Ids of the programs that are to go: not those that others hold too."""
        return {one["id"] for one in self.programs} - set(self.shared)


def named(program: Json) -> str:
    """A program in a sentence."""
    return f"{program['name'] or 'a program without a name'} (id {program['id']}, tag {program['tag']})"


def find(inventory: Json, target: Target, group: str | None, known: Container[tuple[int, str]] = ()) -> Found:
    """What is of the target. `group`: the cgroup of the unit as systemd tells it, null where it knows no such unit.

    `known`: (id, tag) of programs that were found to be of it earlier in this boot.
    FleetError EF_TAKEOFF_UNCONFIRMED where the kernel did not list its programs.
    """
    if inventory["programs"] is None:
        problem = f"the kernel lists no programs here, so nothing is known of {target.text}: use become"
        raise FleetError("EF_TAKEOFF_UNCONFIRMED", problem)
    if target.kind == "program":
        return _by_tag(inventory, target.name)
    return _by_unit(inventory, target.name, group, known)


def _by_tag(inventory: Json, tag: str) -> Found:
    programs = [one for one in inventory["programs"] if one["tag"] == tag]
    pids = sorted({holder["pid"] for one in programs for holder in one["holders"]})
    return Found(programs, pids, {}, [])


def _by_unit(inventory: Json, unit: str, group: str | None, known: Container[tuple[int, str]]) -> Found:
    processes = {int(pid): one for pid, one in inventory["processes"].items()}
    named_so = {pid for pid, one in processes.items() if one["unit"] == unit}
    # A container may have a systemd of its own with a unit of that name.
    own = {pid for pid in named_so if group is None or is_below(processes[pid]["cgroup"], group)}
    told = [
        f"process {pid} ({processes[pid]['comm']}) is of a unit {unit} of another systemd (cgroup"
        f" {processes[pid]['cgroup']}): left"
        for pid in sorted(named_so - own)
    ]
    programs = [one for one in inventory["programs"] if own & _holders(one) or (one["id"], one["tag"]) in known]
    shared = {one["id"]: sorted(_holders(one) - own - {1}) for one in programs if _holders(one) - own - {1}}
    told += [_guessed(one, unit) for one in inventory["programs"] if _is_guess(one, unit) and one not in programs]
    pids = sorted({pid for one in programs for pid in _holders(one) & own})
    return Found(programs, pids, shared, told)


def is_below(cgroup: str | None, group: str) -> bool:
    """Is a process of that cgroup in this one or below it?"""
    return cgroup is not None and (cgroup == group or cgroup.startswith(group.rstrip("/") + "/"))


def _holders(program: Json) -> set[int]:
    return {holder["pid"] for holder in program["holders"]}


def _is_guess(program: Json, unit: str) -> bool:
    owner = program["owner"]
    return bool(owner["guess"]) and owner["kind"] == "unit" and owner["name"] == unit


def _guessed(program: Json, unit: str) -> str:
    return (
        f"{named(program)} at {', '.join(program['points']) or 'no point that was found'} is left: that it is of {unit}"
        f" is a guess ({program['owner']['why']}). To take it off: -e scope=program={program['tag']}"
    )


def absent(inventory: Json, target: Target, known: bool) -> FleetError | None:
    """Why there is nothing to take off, for a target of which nothing was found; `known`: systemd has that unit.

    EF_TAKEOFF_UNCONFIRMED where it may be there all the same, as not everything could be asked.
    """
    begins = ("programs:",) if target.kind == "program" else ("programs:", *_OF_PROCESSES[:1])
    unsure = [one for one in inventory["unknown"] if one.startswith(begins)]
    if unsure:
        problem = f"{target.text}: nothing was found, and not everything could be asked: {'; '.join(unsure[:3])}"
        return FleetError("EF_TAKEOFF_UNCONFIRMED", problem)
    near = nearest(inventory, target)
    hint = f"did you mean {' or '.join(near)}?" if near else "nothing here is named nearly so"
    if target.kind == "program":
        problem = f"no program of tag {target.name} is in this host's kernel; {hint}"
    elif known:
        loose = _loose(inventory)
        problem = (
            f"{target.name} is a unit of this host, and none of its processes holds an eBPF program{loose}; {hint}"
        )
    else:
        problem = f"this host has no unit {target.name}, and no process of such a unit holds an eBPF program; {hint}"
    return FleetError("EF_TAKEOFF_ABSENT", problem)


def _loose(inventory: Json) -> str:
    """What an ended unit may have left attached, as a part of a sentence: the kernel does not say whose it is."""
    found = [one for one in inventory["programs"] if one["points"] and not one["holders"] and not one["ours"]]
    tags = list(dict.fromkeys(f"program={one['tag']}" for one in found))
    if not tags:
        return ""
    more = f" and {len(tags) - NEAR} more" if len(tags) > NEAR else ""
    return f", but what is attached and held by no process may have been its: {', '.join(tags[:NEAR])}{more}"


def nearest(inventory: Json, target: Target) -> list[str]:
    """Targets of that kind that are there and named nearly so."""
    return [f"{target.kind}={one}" for one in difflib.get_close_matches(target.name, _names(inventory, target), n=NEAR)]


def _names(inventory: Json, target: Target) -> Sequence[str]:
    if target.kind == "program":
        return sorted({one["tag"] for one in inventory["programs"] if not one["ours"]})
    return sorted({one["unit"] for one in inventory["processes"].values() if one["unit"]})
