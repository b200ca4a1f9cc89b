# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventories of a fleet together: by owner and attach point, conflicts, and what is new. Pure.

The format is in docs/formats/inventory.md.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import changes, document
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.conflicts import conflicts_of
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.points import NOWHERE, collapsed

Json = Mapping[str, Any]


def fleet_inventory(answers: Mapping[str, Json], last: Json | None = None, time: str | None = None) -> dict[str, Any]:
    """Put together what hosts answered.

    `answers` maps every host that was asked to the result of `bpf_inventory_info`, `last` is the document that this
    function returned the last time, `time` is when they were asked.
    """
    read = {name: document.read(name, answer) for name, answer in answers.items()}
    hosts = {name: one.inventory for name, one in sorted(read.items()) if one.inventory is not None}
    # Who listed nothing knows nothing: a host that was asked without root did not answer.
    blind = {name: "it was not asked as root, so the kernel listed nothing" for name, one in hosts.items()
             if one["programs"] is None}  # fmt: skip
    silent = {name: one.problem for name, one in sorted(read.items()) if one.inventory is None}
    silent.update(blind)
    seen = {name: one for name, one in hosts.items() if name not in blind}
    return {
        "schema": document.FLEET_SCHEMA,
        "time": time,
        "hosts": seen,
        "groups": _groups(seen),
        "conflicts": _conflicts(seen),
        "changes": changes.changes(seen, last or None),
        "incomplete": {name: one["unknown"] for name, one in seen.items() if one["unknown"]},
        "silent": sorted(silent),
        "silent_reasons": {name: silent[name] for name in sorted(silent)},
    }


def _groups(hosts: Mapping[str, Json]) -> list[dict[str, Any]]:
    """A row for each owner and attach point, those that most hosts have first."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for host, inventory in hosts.items():
        for program in inventory["programs"]:
            for point in sorted({collapsed(one) for one in program["points"]}) or [NOWHERE]:
                key = (*owner_key(program), point)
                row = rows.setdefault(key, _new_row(program, point))
                _count(row, host, program)
    for row in rows.values():
        for name in ("hosts", "names", "types", "tags"):
            row[name] = sorted(row[name])
    return sorted(rows.values(), key=lambda row: (-len(row["hosts"]), str(row["owner"]), row["point"]))


def owner_key(program: Json) -> tuple[Any, ...]:
    """By what owners are told apart over a fleet: containers of one image differ in their ids, so they are one."""
    owner = program["owner"]
    name = collapsed(owner["name"]) if owner["name"] is not None else None
    return owner["kind"], name, owner["guess"]


def _new_row(program: Json, point: str) -> dict[str, Any]:
    kind, name, guess = owner_key(program)
    return {
        "owner_kind": kind, "owner": name, "guess": guess, "ours": program["ours"], "point": point, "hosts": set(),
        "programs": 0, "names": set(), "types": set(), "tags": set(),
        "run_time_ns": 0, "run_cnt": 0, "memory_bytes": 0, "unmeasured": 0,
    }  # fmt: skip


def _count(row: dict[str, Any], host: str, program: Json) -> None:
    """Add one program; a sum of which a part was not measured is null, and `unmeasured` says how many were not."""
    row["hosts"].add(host)
    row["programs"] += 1
    row["ours"] = row["ours"] or program["ours"]
    row["names"].add(program["name"])
    row["types"].add(program["type"])
    row["tags"].add(program["tag"])
    row["unmeasured"] += program["run_cnt"] is None
    for name in ("run_time_ns", "run_cnt", "memory_bytes"):
        row[name] = None if row[name] is None or program[name] is None else row[name] + program[name]


def _conflicts(hosts: Mapping[str, Json]) -> list[dict[str, Any]]:
    """Each conflict once with the hosts that have it."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for host, inventory in hosts.items():
        for one in conflicts_of(inventory):
            point, sentence = collapsed(one.point), collapsed(one.sentence)
            row = rows.setdefault(
                (one.kind, sentence),
                {"kind": one.kind, "point": point, "sentence": sentence, "guess": one.guess, "hosts": []},
            )
            if host not in row["hosts"]:
                row["hosts"].append(host)
    return [rows[key] for key in sorted(rows)]


def summary(fleet: Json) -> dict[str, int]:
    """How many hosts, programs, links, maps and pins there are."""
    hosts: Iterable[Json] = fleet["hosts"].values()
    kinds: Sequence[str] = ("programs", "links", "maps", "pins")
    return {"hosts": len(fleet["hosts"]), **{kind: sum(len(one[kind] or ()) for one in hosts) for kind in kinds}}
