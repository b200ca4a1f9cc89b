# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a fleet now and was not the last time, what has gone, and XDP programs that took another's place. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.conflicts import named
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.points import collapsed

Json = Mapping[str, Any]

UNSURE = "one of the two lists of programs has not all of them: what is told as new may be old, and the other way round"
NOT_ASKED = "it did not answer the last time, or was not asked"


def changes(hosts: Mapping[str, Json], last: Json | None) -> dict[str, Any]:
    """Each host with itself the last time; `last` is a fleet's document, or null for the first time."""
    if last is None:
        return {"since": None, "new": [], "gone": [], "replaced_xdp": [], "not_compared": {}, "unsure": {}}
    before = last["hosts"]
    compared = {name: (before[name], one) for name, one in hosts.items() if name in before}
    return {
        "since": last["time"],
        "new": _rows({name: _more(old, new) for name, (old, new) in compared.items()}),
        "gone": _rows({name: _more(new, old) for name, (old, new) in compared.items()}),
        "replaced_xdp": _replaced({name: _xdp_changes(old, new) for name, (old, new) in compared.items()}),
        "unsure": {name: UNSURE for name, pair in compared.items() if any(map(_in_part, pair))},
        "not_compared": {name: NOT_ASKED for name in sorted(hosts) if name not in before},
    }


def _in_part(inventory: Json) -> bool:
    return any(one.startswith(("programs:", "processes:")) for one in inventory["unknown"])


def identity(program: Json) -> tuple[Any, ...]:
    """What a program is however often it is loaded again: not its id, its time or its cost."""
    owner = program["owner"]
    name = collapsed(owner["name"]) if owner["name"] is not None else None
    points = tuple(sorted({collapsed(point) for point in program["points"]}))
    return owner["kind"], name, program["name"], program["type"], program["tag"], points


def _more(old: Json, new: Json) -> dict[tuple[Any, ...], int]:
    """What `new` has more of than `old`, with how many more."""
    counts: dict[tuple[Any, ...], int] = {}
    for sign, inventory in ((1, new), (-1, old)):
        for program in inventory["programs"] or ():
            key = identity(program)
            counts[key] = counts.get(key, 0) + sign
    return {key: count for key, count in counts.items() if count > 0}


def _rows(by_host: Mapping[str, Mapping[tuple[Any, ...], int]]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for host, found in by_host.items():
        for key, count in found.items():
            kind, owner, name, program_type, tag, points = key
            row = rows.setdefault(
                key,
                {"owner_kind": kind, "owner": owner, "name": name, "type": program_type, "tag": tag,
                 "points": list(points), "programs": 0, "hosts": []},
            )  # fmt: skip
            row["programs"] += count
            row["hosts"].append(host)
    return sorted(rows.values(), key=lambda row: (-len(row["hosts"]), str(row["owner"]), row["name"]))


def _at_xdp(inventory: Json) -> dict[tuple[str, str], Json]:
    """{(interface, namespace's name): program}: inodes of namespaces differ from boot to boot, names do not."""
    programs = {one["id"]: one for one in inventory["programs"] or ()}
    names = {one["inode"]: "" if one["own"] else one["name"] for one in inventory["network_namespaces"]}
    return {
        (str(one["target"]), names[one["netns"]]): programs[one["program_id"]]
        for one in inventory["attachments"]
        if one["hook"] == "xdp" and one["program_id"] in programs and names.get(one["netns"]) is not None
    }


def _xdp_changes(old: Json, new: Json) -> list[str]:
    """An interface that ran another XDP program the last time: other code, or of another owner."""
    before, found = _at_xdp(old), []
    for (interface, namespace), program in sorted(_at_xdp(new).items(), key=lambda one: one[0]):
        was = before.get((interface, namespace))
        if was is not None and (was["tag"], was["owner"]["name"]) != (program["tag"], program["owner"]["name"]):
            where = f"{interface} in {namespace}" if namespace else interface
            found.append(f"XDP on {where} was {named(was)} and is {named(program)}")
    return found


def _replaced(by_host: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    rows: dict[str, list[str]] = {}
    for host, sentences in by_host.items():
        for sentence in sentences:
            rows.setdefault(collapsed(sentence), []).append(host)
    return [{"sentence": sentence, "hosts": rows[sentence]} for sentence in sorted(rows)]
