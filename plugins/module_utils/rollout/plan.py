# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sort hosts into stages and batches: canary, cell, region, fleet, alone. Pure and deterministic.

Canaries come first, of the strata with most hosts behind them before others, and every stratum has met its own
before a second host of it is changed. Then waves that grow within shares of the fleet and of each cell.

A host claims its own stratum, so the claim alone makes no canary: a stratum counts where another
host shares it or the inventory vouches for it. Who stands alone, or contradicts the inventory,
comes last and a few at a time: a genuine host of a rare kernel meets the release with few others
at stake, and a hostile one neither chooses itself as canary nor makes the canary stage large.
"""

from __future__ import annotations

import itertools
from typing import Any, Collection, Iterable, Iterator, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_holdback import Holdback, held_back
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_hosts import (
    ALONE,
    DISPUTED,
    Doubt,
    Host,
    Json,
    PlanError,
    doubts,
    hosts_named,
    read_hosts,
    read_value,
    sentences_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_stages import (
    DEFAULT_STAGES,
    Defaults,
    Stage,
    positive,
    read_stages,
    refuse_unknown,
    with_alone,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_waves import (
    Fleet,
    Waves,
    batches_of,
    fleet_of,
    read_waves,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.timing import READ_BAKE

SCHEMA = "ebpf.fleet/plan/v1"

DEFAULT_PER_STRATUM = 1
DEFAULT_PERCENT = 50


class Wishes(NamedTuple):
    """What a plan is asked for beside its hosts; every field may be left out.

    `stages` from narrow to wide. `max_batch` bounds every batch (a stage may have its own), `until` names the last
    stage to run, `partial` permits a plan that does not reach the whole fleet. `growth`, `fleet_percent` and
    `cell_percent` are those of plan_waves; `bake` is in seconds and for every stage, whatever that says.
    `holdback` are hosts that stay as they are; `left_out` those that do not take part, each with `host`, `reason`
    and `why`.
    """

    stages: Sequence[Json] | None = None
    max_batch: Any = None
    until: str | None = None
    partial: bool = False
    growth: Any = None
    fleet_percent: Any = None
    cell_percent: Any = None
    bake: Any = None
    holdback: Holdback | None = None
    left_out: Sequence[Json] = ()


def plan(hosts: Sequence[Json], wishes: Wishes | None = None) -> dict[str, Any]:
    """Stages with hosts and batches, the batch sizes for `serial`, and the hosts in their sequence.

    No batch is above the shares (plan_waves), and batches of canaries and of hosts that stand alone are of 5 hosts at
    most besides, unless their stage has its own `max_batch`. Raises PlanError.
    """
    wishes = wishes or Wishes()
    if not hosts and wishes.left_out:
        raise PlanError("; ".join(["hosts: every one is left out", *_left_out_sentences(wishes.left_out)]))
    everyone = read_hosts(hosts)
    found = doubts(everyone)
    aside = {one.host for one in found if one.kind in (ALONE, DISPUTED)}
    held = held_back(by_stratum(host for host in everyone if host not in aside), wishes.holdback)
    kept = _without(everyone, held)
    defaults = _defaults(wishes)
    wanted = read_stages(DEFAULT_STAGES if wishes.stages is None else wishes.stages, defaults, wishes.partial)
    wanted = with_alone(wanted, aside, defaults)
    chosen, notes = _assign(kept, wanted, aside, everyone)
    chosen = _cut(chosen, wanted, wishes.until)
    if not chosen:
        raise PlanError(_empty(wishes.until, found))
    return _document(Made(kept, chosen, notes, found, held, defaults.waves), wishes)


def _defaults(wishes: Wishes) -> Defaults:
    waves = read_waves("", {name: getattr(wishes, name) for name in Waves._fields})
    bake = None if wishes.bake is None else read_value(READ_BAKE, "bake", wishes.bake)
    return Defaults(positive("max_batch", wishes.max_batch), waves, bake)


def _without(hosts: Iterable[Host], gone: Iterable[Host]) -> list[Host]:
    names = {host.name for host in gone}
    return [host for host in hosts if host.name not in names]


def _empty(until: str | None, found: Sequence[Doubt]) -> str:
    stages = "in any stage" if until is None else f"in a stage up to {until}"
    return "; ".join([f"the plan: no host is {stages}", *sentences_of(found)])


# --- choice ------------------------------------------------------------------------------------


def _assign(
    hosts: Sequence[Host], stages: Sequence[Stage], aside: Collection[Host], everyone: Sequence[Host]
) -> tuple[list[tuple[Stage, list[Host]]], list[str]]:
    """Each stage with its hosts, each host in the first stage that takes it; and notes.

    Hosts that were set aside are for the stage `alone` only. Cells and regions are those of `everyone`: one of which
    all hosts are held back is there, and has no host to change.
    """
    left = [host for host in hosts if host not in aside]
    alone = [host for host in hosts if host in aside]
    chosen: list[tuple[Stage, list[Host]]] = []
    notes = []
    first: Host | None = None
    for stage in stages:
        taken = alone if stage.type == ALONE else _CHOOSERS[stage.type](stage, left, everyone, first)
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
    return interleaved(pool, each)


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
    """Hosts grouped by stratum; in each, at equal priority, who was in it before comes first.

    Groups by the priority of their first host; of one priority that of most hosts comes first, then by name.
    """
    groups: dict[str, list[Host]] = {}
    for host in sorted(hosts, key=lambda one: (one.priority, bool(one.before), one)):
        groups.setdefault(host.stratum, []).append(host)
    return sorted(groups.values(), key=lambda group: (group[0].priority, -len(group), group[0].stratum))


def interleaved(hosts: Iterable[Host], most: int | None = None) -> list[Host]:
    """One host of each stratum in turn, `most` of each: any first part is as mixed as can be."""
    return list(itertools.chain.from_iterable(_turns(by_stratum(hosts), most)))


def _turns(groups: Sequence[Sequence[Host]], most: int | None = None) -> Iterator[list[Host]]:
    longest = max((len(group) for group in groups), default=0)
    for turn in range(longest if most is None else min(longest, most)):
        # Groups that have come to their end are not asked again: one long group beside many short ones costs no more.
        groups = [group for group in groups if turn < len(group)]
        yield [group[turn] for group in groups]


def _rounds(hosts: Sequence[Host]) -> list[list[Host]]:
    """Hosts in parts in which no stratum is twice: the second of a stratum waits until the first was judged."""
    groups: dict[int, list[Host]] = {}
    met: dict[str, int] = {}
    for host in hosts:
        met[host.stratum] = met.get(host.stratum, 0) + 1
        groups.setdefault(met[host.stratum], []).append(host)
    return [groups[turn] for turn in sorted(groups)]


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


class Made(NamedTuple):
    """A plan before it is written down: its hosts by stage, and what is to be told of the others."""

    hosts: Sequence[Host]
    chosen: Sequence[tuple[Stage, list[Host]]]
    notes: list[str]
    found: Sequence[Doubt]
    held: Sequence[Host]
    waves: Waves


def _document(made: Made, wishes: Wishes) -> dict[str, Any]:
    fleet = fleet_of(made.hosts)
    stages = _stage_documents(made.chosen, fleet)
    batches = _batch_documents(stages)
    ordered = [name for batch in batches for name in batch["hosts"]]
    planned = set(ordered)
    left = [host.name for host in made.hosts if host.name not in planned]
    notes = [*made.notes, *([f"{counted(len(left), 'host')} in no stage"] if left else []), *sentences_of(made.found)]
    notes += _left_out_sentences(wishes.left_out) + _holdback_sentences(made.held, wishes.holdback)
    serial = [len(batch["hosts"]) for batch in batches]
    return {
        "schema": SCHEMA,
        "stages": stages,
        "batches": batches,
        "serial": serial,
        "hosts": ordered,
        "batch_of": {name: batch["number"] for batch in batches for name in batch["hosts"]},
        "left": left,
        "left_out": [{key: one[key] for key in ("host", "reason", "why")} for one in wishes.left_out],
        "holdback": _holdback_document(made.held, wishes.holdback),
        "doubts": [
            {"kind": one.kind, "host": one.host.name, "claims": one.host.stratum, "against": one.against}
            for one in made.found
        ],
        "notes": notes,
        "sentences": [_summary(serial, made.waves), *map(_sentence, stages), *notes],
    }


def _holdback_document(held: Sequence[Host], holdback: Holdback | None) -> dict[str, Any] | None:
    if holdback is None:
        return None
    return {"percent": holdback.percent, "until": holdback.until, "hosts": [host.name for host in held]}


def _holdback_sentences(held: Sequence[Host], holdback: Holdback | None) -> list[str]:
    if holdback is None:
        return []
    if holdback.over:
        return [f"the holdback of {holdback.percent} % ended on {holdback.until}: its hosts are in the plan"]
    if not held:
        return [f"held back: no host, as {holdback.percent} % of so few is less than one"]
    named = hosts_named([host.name for host in held])
    return [
        f"held back until {holdback.until} on the release that they have, {holdback.percent} % of the hosts: {named}"
    ]


def _left_out_sentences(left_out: Sequence[Json]) -> list[str]:
    """One sentence for each reason and cause, with the hosts."""
    causes: dict[tuple[str, str], list[str]] = {}
    for one in left_out:
        causes.setdefault((one["reason"], one["why"]), []).append(one["host"])
    return [f"left out, {reason}: {hosts_named(names)}: {why}" for (reason, why), names in causes.items()]


def _summary(serial: Sequence[int], waves: Waves) -> str:
    """How far the plan goes, and what no batch of it exceeds where its stage says nothing else."""
    return (
        f"{counted(sum(serial), 'host')} in {counted(len(serial), 'batch', 'batches')}, {max(serial)} at once at most; "
        f"shares: {waves.fleet_percent} % of the fleet and {waves.cell_percent} % of each cell"
    )


def _sentence(stage: Json) -> str:
    sizes = ", ".join(_times(size, len(list(same))) for size, same in itertools.groupby(map(len, stage["batches"])))
    hosts = ", ".join(stage["hosts"][:5]) + (", …" if len(stage["hosts"]) > 5 else "")
    count = counted(len(stage["hosts"]), "host")
    return f"{stage['name']}: {count} in batches of {sizes}: {hosts}; {stage['bake']} s of bake"


def _times(size: int, times: int) -> str:
    return str(size) if times == 1 else f"{size} ({times} times)"


def _batch_documents(stages: Sequence[Json]) -> list[dict[str, Any]]:
    """Every batch in its sequence, numbered from 1 over the whole rollout."""
    cut = [(stage, index) for stage in stages for index in range(len(stage["batches"]))]
    return [
        {
            "number": number,
            "stage": stage["name"],
            "index": index,
            "last": index == len(stage["batches"]) - 1,
            "bake": stage["bake"],
            "hosts": stage["batches"][index],
        }
        for number, (stage, index) in enumerate(cut, 1)
    ]


def _stage_documents(chosen: Sequence[tuple[Stage, list[Host]]], fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    largest = 0
    for stage, hosts in chosen:
        groups = _rounds(hosts) if stage.type == "canary" else [hosts]
        batches = batches_of(groups, stage.size, fleet, largest)
        largest = max([largest, *map(len, batches)])
        found.append(_stage_document(stage, hosts, batches))
    return found


def _stage_document(stage: Stage, hosts: Sequence[Host], batches: Sequence[Sequence[Host]]) -> dict[str, Any]:
    names = [[host.name for host in batch] for batch in batches]
    return {
        "name": stage.name,
        "type": stage.type,
        "hosts": [name for batch in names for name in batch],
        "batches": names,
        "bake": stage.bake,
        "strata": sorted({host.stratum for host in hosts}),
    }
