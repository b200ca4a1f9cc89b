# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far an incident reaches, by kernel family and release version: a document and short text. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

Json = Mapping[str, Any]

SCHEMA = "ebpf.fleet/blast-radius/v1"
UNKNOWN = "unknown"
STATES = ("confirmed", "once", "within", "unmeasured")


def radius(first: Json, steps: Sequence[Json], last: Json | None, families: Json, time: str) -> dict[str, Any]:
    """The document: `first` and `last` are findings of before and after the steps, `families` what hosts told of their
    kernel in their evidence, which counts for those that were not measured. A host of unknown kernel is `unknown`."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name, host in sorted(first["hosts"].items()):
        key = (host["kernel"] or _told(families, name), host["version"] or UNKNOWN)
        group = groups.setdefault(
            key, {"kernel": key[0], "version": key[1], **{state: [] for state in STATES}, "checks": {}}
        )
        group[host["state"]].append(name)
        if host["state"] == "confirmed":
            _add_checks(group["checks"], host["checks"])
    return {
        "schema": SCHEMA,
        "time": time,
        "hosts": len(first["hosts"]),
        **{state: len(first[state]) for state in STATES},
        "groups": [groups[key] for key in sorted(groups)],
        "costs": [dict(one) for one in first["costs"]],
        "steps": [dict(one) for one in steps],
        "still_over": None if last is None else list(last["confirmed"]),
        "unmeasured_after": None if last is None else list(last["unmeasured"]),
    }


def _told(families: Json, name: str) -> str:
    told = families.get(name)
    return printable(told, 64) if isinstance(told, str) and told else UNKNOWN


def _add_checks(found: dict[str, Any], checks: Sequence[Json]) -> None:
    """{check: {"hosts", "worst", "limit", "unit", "features"}}: the largest that was measured."""
    counted = set()
    for one in checks:
        row = found.setdefault(
            one["check"], {"hosts": 0, "worst": None, "limit": None, "unit": one["unit"], "features": []}
        )
        if one["check"] not in counted:
            row["hosts"] += 1
            counted.add(one["check"])
        if one["feature"] and one["feature"] not in row["features"]:
            row["features"] = sorted([*row["features"], one["feature"]])
        if one["measured"] is not None and (row["worst"] is None or one["measured"] > row["worst"]):
            row.update(worst=one["measured"], limit=one["limit"])


def lines(found: Json) -> list[str]:
    """The document in a few lines, the most concerned group first."""
    ordered = sorted(found["groups"], key=lambda one: (-len(one["confirmed"]), one["kernel"], one["version"]))
    said = [f"blast radius: {found['confirmed']} of {found['hosts']} hosts"]
    for one in ordered[:20]:
        count = sum(len(one[state]) for state in STATES)
        why = ", ".join(
            f"{name} {row['worst']} of {row['limit']} {row['unit']}" for name, row in sorted(one["checks"].items())
        )
        rest = f", {len(one['unmeasured'])} not measured" if one["unmeasured"] else ""
        said.append(
            f"kernel {one['kernel']}, release {one['version']}: {len(one['confirmed'])} of {count}{rest}"
            + (f": {why}" if why else "")
        )
    said += [f"and {len(ordered) - 20} more groups"] if len(ordered) > 20 else []
    said += [f"step {one['step']}: {one['outcome']}" for one in found["steps"]]
    if found["still_over"]:
        said.append(f"STILL OVER: {len(found['still_over'])} hosts")
    elif found["still_over"] is not None:
        said.append(
            "within every limit now"
            + (f", {len(found['unmeasured_after'])} not measured" if found["unmeasured_after"] else "")
        )
    return said
