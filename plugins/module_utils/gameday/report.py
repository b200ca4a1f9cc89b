# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a game day: a document that can be kept, and the same in lines. Pure.

The format is in docs/formats/gameday.md.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import drills, score

Json = Mapping[str, Any]
SCHEMA = "ebpf.fleet/gameday/v1"
VERDICTS = (score.PASS, score.FAIL, score.INCONCLUSIVE, score.REFUSED)


def report(scores: Sequence[Json], plan: Json, begun: str, ended: str, reason: str) -> dict[str, Any]:
    """The document; `plan` says which drills and hosts were chosen, and who was left out."""
    met = {(one["drill"], one["host"]) for one in scores}
    missing = [f"{name} on {host}" for name in plan["drills"] for host in plan["hosts"] if (name, host) not in met]
    return {
        "schema": SCHEMA,
        "begun": begun,
        "ended": ended,
        "reason": reason,
        "drills": {name: drills.drill(name).injects for name in plan["drills"]},
        "hosts": list(plan["hosts"]),
        "left_out": [dict(one) for one in plan["left_out"]],
        "not_done": missing,
        "counts": {verdict: sum(one["verdict"] == verdict for one in scores) for verdict in VERDICTS},
        "scores": [dict(one) for one in scores],
    }


def lines(found: Json) -> list[str]:
    """The report as a person reads it."""
    counts = found["counts"]
    said = [
        f"game day of {counted(len(found['drills']), 'drill')} on {counted(len(found['hosts']), 'host')}: "
        + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    ]
    for one in found["scores"]:
        said.append(f"{one['drill']} on {one['host']}: {one['verdict']}" + (f": {one['why']}" if one["why"] else ""))
        if one["detected"] is not None:
            said += [f"  {line}" for line in _parts(one)]
    said += [f"left out: {one['host']}: {one['why']}" for one in found["left_out"]]
    return said + [f"not done: {one}" for one in found["not_done"]]


def _parts(one: Json) -> list[str]:
    detected, degraded, off, recovered = (one[name] for name in ("detected", "degraded", "off", "recovered"))
    said = [
        f"detected: {detected['answer']}{_after(detected)}{_list(detected['by'])}",
        f"degraded as {degraded['documented']} says: {degraded['answer']}{_after(degraded)}{_list(degraded['seen'])}"
        + (f"; not seen: {', '.join(degraded['missing'])}" if degraded["missing"] else ""),
    ]
    if off is not None:
        took = "" if off["ms"] is None else f" in {off['ms']} ms of at most {off['limit_ms']} ms"
        said.append(
            f"off by a kill order: {off['answer']}{took}" + (f": {off['why']}" if off["answer"] != score.YES else "")
        )
    said.append(f"recovered: {recovered['answer']}{_after(recovered)}; ended by {_by(recovered['ended_by'])}")
    for step in one["runbook"]:
        said.append(f'{step["page"]}, {step["section"]}, says "{step["says"]}": {step["answer"]}: {step["told"]}')
    return said


def _by(word: str | None) -> str:
    return {None: "no one that is known", "success": "the playbook", "timeout": "its own bound on the host",
            "again": "the playbook, as its unit had not"}.get(word, f"systemd ({word})")  # fmt: skip


def _after(part: Json) -> str:
    return "" if part["after_ms"] is None else f" after {part['after_ms'] / 1000:.1f} s"


def _list(words: Sequence[str]) -> str:
    return f": {', '.join(words)}" if words else ""
