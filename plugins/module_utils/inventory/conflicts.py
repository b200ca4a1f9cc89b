# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that are in each other's way on one host. Pure.

A conflict is told of two different programs whose owners are not known to be the same. It is a guess where it says so.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Sequence

Json = Mapping[str, Any]

_DIRECTIONS = {"tc_ingress": "ingress", "tcx_ingress": "ingress", "tc_egress": "egress", "tcx_egress": "egress"}


class Conflict(NamedTuple):
    """Kind, the place, the programs' ids, a sentence without ids, and whether it is a guess."""

    kind: str
    point: str
    program_ids: list[int]
    sentence: str
    guess: bool


def conflicts_of(inventory: Json) -> list[Conflict]:
    """All conflicts of a host's inventory, in the order of their kinds."""
    programs = {one["id"]: one for one in inventory["programs"] or []}
    attachments = [one for one in inventory["attachments"] if one["program_id"] in programs]
    found = [*_two_xdp(attachments, programs), *_displaced_xdp(inventory, programs)]
    found += [*_tc_order(attachments, programs), *_overridden(attachments, programs)]
    return found


def named(program: Json) -> str:
    """A program in a sentence: its name and owner."""
    owner = program["owner"]
    whose = "owner unknown" if owner["name"] is None else f"{owner['name']}{' (guess)' if owner['guess'] else ''}"
    return f"{program['name'] or 'tag ' + program['tag']} of {whose}"


def _same_owner(one: Json, other: Json) -> bool:
    first, second = one["owner"], other["owner"]
    return first["name"] is not None and (first["kind"], first["name"]) == (second["kind"], second["name"])


def _by_interface(attachments: Sequence[Json], hooks: Mapping[str, str]) -> dict[tuple[Any, str, str], list[Json]]:
    """Attachments in the order in which they run, by (namespace, interface, what the hook stands for)."""
    found: dict[tuple[Any, str, str], list[Json]] = {}
    for one in attachments:
        if one["hook"] in hooks:
            found.setdefault((one["netns"], str(one["target"]), hooks[one["hook"]]), []).append(one)
    return found


def _two_xdp(attachments: Sequence[Json], programs: Mapping[int, Json]) -> Iterator[Conflict]:
    for (_netns, interface, _hook), here in _by_interface(attachments, {"xdp": "xdp"}).items():
        ids = sorted({one["program_id"] for one in here})
        if len(ids) > 1:
            modes = " and ".join(f"{named(programs[one['program_id']])} ({one['mode']})" for one in here)
            yield Conflict("two_xdp", f"xdp:{interface}", ids, f"two XDP programs on {interface}: {modes}", False)


def _displaced_xdp(inventory: Json, programs: Mapping[int, Json]) -> Iterator[Conflict]:
    """An XDP program that is kept and runs nowhere, while another's runs: its place may have been taken."""
    running = [one for one in inventory["attachments"] if one["hook"] == "xdp" and one["program_id"] in programs]
    for program in programs.values():
        kept = program["holders"] or program["pins"]
        if program["type"] != "xdp" or program["points"] or not kept:
            continue
        others = [one for one in running if not _same_owner(programs[one["program_id"]], program)]
        if others:
            places = ", ".join(sorted({f"{one['target']} runs {named(programs[one['program_id']])}" for one in others}))
            sentence = f"XDP may be replaced: {named(program)} is kept and runs on no interface, while {places}"
            ids = sorted({program["id"], *(one["program_id"] for one in others)})
            yield Conflict("displaced_xdp", "xdp", ids, sentence, True)


def _tc_order(attachments: Sequence[Json], programs: Mapping[int, Json]) -> Iterator[Conflict]:
    """Programs at one direction of an interface run in a row, tcx first, then tc by priority; who decides ends it."""
    for (_netns, interface, direction), here in _by_interface(attachments, _DIRECTIONS).items():
        ordered = sorted(here, key=_runs_at)
        first = next((one for one in ordered if one["decides"] or one["hook"].startswith("tcx")), None)
        behind = ordered[ordered.index(first) + 1 :] if first is not None else []
        lead = programs[first["program_id"]] if first is not None else {}
        others = [one for one in behind if one["program_id"] != lead["id"]]
        others = [one for one in others if not _same_owner(programs[one["program_id"]], lead)]
        if others:
            names = ", ".join(named(programs[one["program_id"]]) for one in others)
            sentence = f"{direction} of {interface}: {named(lead)} may decide before {names} is asked"
            ids = sorted({lead["id"], *(one["program_id"] for one in others)})
            yield Conflict("tc_order", f"{direction}:{interface}", ids, sentence, False)


def _runs_at(one: Json) -> tuple[int, int]:
    words = str(one["mode"] or "").split()
    priority = int(words[1]) if len(words) > 1 and words[0] == "prio" and words[1].isdigit() else 0
    return (0 if one["hook"].startswith("tcx") else 1, priority)


def _overridden(attachments: Sequence[Json], programs: Mapping[int, Json]) -> Iterator[Conflict]:
    """A cgroup's program that allows others in its place does not run for those below that have one."""
    by_hook: dict[str, list[Json]] = {}
    for one in attachments:
        if one["source"] == "query" and one["target"] and one["target"].startswith("/"):
            by_hook.setdefault(one["hook"], []).append(one)
    for hook, here in by_hook.items():
        for upper in here:
            if upper["mode"] == "multi":
                continue
            prefix = upper["target"].rstrip("/") + "/"
            lower = [one for one in here if one["target"].startswith(prefix) and one["target"] != upper["target"]]
            lower = [
                one for one in lower if not _same_owner(programs[one["program_id"]], programs[upper["program_id"]])
            ]
            if lower:
                places = ", ".join(sorted({f"{one['target']} ({named(programs[one['program_id']])})" for one in lower}))
                sentence = (
                    f"{hook} of {upper['target']}: {named(programs[upper['program_id']])} does not run for {places}"
                )
                ids = sorted({upper["program_id"], *(one["program_id"] for one in lower)})
                yield Conflict("overridden", f"{hook}:{upper['target']}", ids, sentence, False)
