# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sort hosts into stages and batches: canary, cell, region, fleet, alone. Pure and deterministic.

A host claims its own stratum, so the claim alone makes no canary: a stratum counts where another
host shares it or the inventory vouches for it. Who stands alone, or contradicts the inventory,
comes last and a few at a time: a genuine host of a rare kernel meets the release with few others
at stake, and a hostile one neither chooses itself as canary nor makes the canary stage large.
"""

from __future__ import annotations

from typing import Any, Collection, Iterable, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_hosts import (
    ALONE,
    DISPUTED,
    Doubt,
    Host,
    Json,
    PlanError,
    doubts,
    read_hosts,
    sentences_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_stages import (
    DEFAULT_STAGES,
    Stage,
    positive,
    read_stages,
    refuse_unknown,
    with_alone,
)

SCHEMA = "ebpf.fleet/plan/v1"

DEFAULT_PER_STRATUM = 1
DEFAULT_PERCENT = 50


def plan(
    hosts: Sequence[Json],
    stages: Sequence[Json] | None = None,
    max_batch: int | None = None,
    until: str | None = None,
    partial: bool = False,
) -> dict[str, Any]:
    """Stages with hosts and batches, the batch sizes for `serial`, and the hosts in their order.

    `max_batch` bounds every batch (a stage may have its own), `until` names the last stage to
    run, `partial` permits a plan that does not reach the whole fleet. Batches of canaries and of
    hosts that stand alone are of 5 hosts at most, unless their stage has its own `max_batch`.
    """
    everyone = read_hosts(hosts)
    found = doubts(everyone)
    aside = {one.host for one in found if one.kind in (ALONE, DISPUTED)}
    max_batch = positive("max_batch", max_batch)
    wanted = read_stages(DEFAULT_STAGES if stages is None else stages, max_batch, partial)
    wanted = with_alone(wanted, aside, max_batch)
    chosen, notes = _assign(everyone, wanted, aside)
    chosen = _cut(chosen, wanted, until)
    if not chosen:
        raise PlanError(_empty(until, found))
    return _document(everyone, chosen, notes, found)


def _empty(until: str | None, found: Sequence[Doubt]) -> str:
    stages = "in any stage" if until is None else f"in a stage up to {until}"
    return "; ".join([f"the plan: no host is {stages}", *sentences_of(found)])


# --- choice ------------------------------------------------------------------------------------


def _assign(
    hosts: Sequence[Host], stages: Sequence[Stage], aside: Collection[Host]
) -> tuple[list[tuple[Stage, list[Host]]], list[str]]:
    """Each stage with its hosts, each host in the first stage that takes it; and notes.

    Hosts that were set aside are for the stage `alone` only.
    """
    left = [host for host in hosts if host not in aside]
    alone = [host for host in hosts if host in aside]
    chosen: list[tuple[Stage, list[Host]]] = []
    notes = []
    first: Host | None = None
    for stage in stages:
        taken = alone if stage.type == ALONE else _CHOOSERS[stage.type](stage, left, hosts, first)
        if not taken:
            notes.append(f"stage {stage.name} is dropped: no host is left for it")
            continue
        first = first or taken[0]
        gone = set(taken)
        left = [host for host in left if host not in gone]
        chosen.append((stage, taken))
    return chosen, notes


def _canaries(stage: Stage, left: list[Host], everyone: Sequence[Host], _first: Host | None) -> list[Host]:
    cell = stage.options.get("cell")
    pool = left if cell is None else [host for host in left if host.cell == cell]
    if cell is not None:
        _refuse_absent(stage, "cell", cell, everyone)
    if "count" in stage.options:
        return interleaved(pool)[: stage.options["count"]]
    each = stage.options.get("per_stratum", DEFAULT_PER_STRATUM)
    return sorted(host for group in by_stratum(pool) for host in group[:each])


def _standard(left: list[Host], everyone: Sequence[Host], first: Host | None) -> Host:
    """The host whose cell and region are meant where the stage names none: the first that is in the rollout."""
    return first or (left or everyone)[0]


def _cell(stage: Stage, left: list[Host], everyone: Sequence[Host], first: Host | None) -> list[Host]:
    cell = stage.options.get("cell") or _standard(left, everyone, first).cell
    _refuse_absent(stage, "cell", cell, everyone)
    return [host for host in left if host.cell == cell]


def _region(stage: Stage, left: list[Host], everyone: Sequence[Host], first: Host | None) -> list[Host]:
    region = stage.options.get("region") or _standard(left, everyone, first).region
    _refuse_absent(stage, "region", region, everyone)
    pool = [host for host in left if host.region == region]
    percent = stage.options.get("percent", DEFAULT_PERCENT)
    return sorted(interleaved(pool)[: -(-len(pool) * percent // 100)])


def _fleet(_stage: Stage, left: list[Host], _all: Sequence[Host], _first: Host | None) -> list[Host]:
    return list(left)


_CHOOSERS = {"canary": _canaries, "cell": _cell, "region": _region, "fleet": _fleet}


def _refuse_absent(stage: Stage, field: str, value: Any, hosts: Iterable[Host]) -> None:
    known = sorted({getattr(host, field) for host in hosts})
    if value not in known:
        raise PlanError(f"stage {stage.name}: no host is in {field} {value!r}; there are {', '.join(known)}")


def by_stratum(hosts: Iterable[Host]) -> list[list[Host]]:
    """Hosts grouped by stratum, groups by name; in each, at equal priority, who was in it before comes first."""
    groups: dict[str, list[Host]] = {}
    for host in sorted(hosts, key=lambda one: (one.priority, bool(one.before), one)):
        groups.setdefault(host.stratum, []).append(host)
    return [groups[name] for name in sorted(groups)]


def interleaved(hosts: Iterable[Host]) -> list[Host]:
    """One host of each stratum in turn, so that any first part is as mixed as can be."""
    groups = by_stratum(hosts)
    longest = max((len(group) for group in groups), default=0)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)]


def _cut(
    chosen: list[tuple[Stage, list[Host]]], wanted: Sequence[Stage], until: str | None
) -> list[tuple[Stage, list[Host]]]:
    """Only the stages up to and with `until`; a dropped one still ends the plan at its place."""
    if until is None:
        return chosen
    names = [stage.name for stage in wanted]
    refuse_unknown("until", until, names)
    kept = set(names[: names.index(until) + 1])
    return [(stage, hosts) for stage, hosts in chosen if stage.name in kept]


# --- output ------------------------------------------------------------------------------------


def _document(
    everyone: Sequence[Host],
    chosen: Sequence[tuple[Stage, list[Host]]],
    notes: list[str],
    found: Sequence[Doubt],
) -> dict[str, Any]:
    stages = [_stage_document(stage, hosts) for stage, hosts in chosen]
    batches = _batch_documents(stages)
    ordered = [name for batch in batches for name in batch["hosts"]]
    planned = set(ordered)
    left = [host.name for host in everyone if host.name not in planned]
    if left:
        notes = [*notes, f"{len(left)} hosts are in no stage"]
    notes = [*notes, *sentences_of(found)]
    return {
        "schema": SCHEMA,
        "stages": stages,
        "batches": batches,
        "serial": [len(batch["hosts"]) for batch in batches],
        "hosts": ordered,
        "batch_of": {name: batch["number"] for batch in batches for name in batch["hosts"]},
        "left": left,
        "doubts": [
            {"kind": one.kind, "host": one.host.name, "claims": one.host.stratum, "against": one.against}
            for one in found
        ],
        "notes": notes,
        "sentences": [_sentence(stage) for stage in stages] + notes,
    }


def _sentence(stage: Json) -> str:
    sizes = ", ".join(str(len(batch)) for batch in stage["batches"])
    hosts = ", ".join(stage["hosts"][:5]) + (", …" if len(stage["hosts"]) > 5 else "")
    return f"{stage['name']}: {len(stage['hosts'])} hosts in batches of {sizes}: {hosts}"


def _batch_documents(stages: Sequence[Json]) -> list[dict[str, Any]]:
    """Every batch in order, numbered from 1 over the whole rollout."""
    cut = [(stage, index) for stage in stages for index in range(len(stage["batches"]))]
    return [
        {
            "number": number,
            "stage": stage["name"],
            "index": index,
            "last": index == len(stage["batches"]) - 1,
            "hosts": stage["batches"][index],
        }
        for number, (stage, index) in enumerate(cut, 1)
    ]


def _stage_document(stage: Stage, hosts: Sequence[Host]) -> dict[str, Any]:
    names = [host.name for host in hosts]
    size = stage.max_batch or len(names)
    batches = [names[at : at + size] for at in range(0, len(names), size)]
    return {
        "name": stage.name,
        "type": stage.type,
        "hosts": names,
        "batches": batches,
        "strata": sorted({host.stratum for host in hosts}),
    }
