# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order hosts into stages and batches: canary, cell, region, fleet, alone. Pure and deterministic.

A host claims its own stratum, so the claim alone makes no canary: a stratum counts where another
host shares it or the inventory vouches for it. Who stands alone, or contradicts the inventory,
comes last and a few at a time: a genuine host of a rare kernel meets the release with few others
at stake, and a hostile one neither chooses itself as canary nor makes the canary stage large.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Any, Collection, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.strata import EXPECTED_VARIABLE, agrees

SCHEMA = "ebpf.fleet/plan/v1"

Json = Mapping[str, Any]

ALONE = "alone"
STAGE_ORDER = ("canary", "cell", "region", "fleet", ALONE)
STAGE_KEYS = {
    "canary": ("count", "per_stratum", "cell"),
    "cell": ("cell",),
    "region": ("region", "percent"),
    "fleet": (),
    ALONE: (),
}
COMMON_KEYS = ("stage", "name", "max_batch")
DEFAULT_STAGES = ({"stage": "canary"}, {"stage": "cell"}, {"stage": "region"}, {"stage": "fleet"})
DEFAULT_PER_STRATUM = 1
DEFAULT_PERCENT = 50
DEFAULT_PRIORITY = 100
# Most hosts that meet a release at once where nothing is known of how their kind takes it.
DEFAULT_SMALL_BATCH = 5
_SMALL_STAGES = ("canary", ALONE)
_NAMED = 40
# What each host must have, and how it gets it.
_PLACES = {
    "cell": "set ebpf_fleet_cell in the inventory",
    "region": "set ebpf_fleet_region in the inventory",
    "stratum": "ask the host with capability_facts first",
}
_PRIORITY = values.whole(-values.MOST)
_POSITIVE = values.whole(1)
_PERCENT = values.whole(1, 100)


class PlanError(OneCodeError):
    """A plan that cannot be; the message names host or stage, field and remedy."""

    code = "EF_PLAN"


class Host(NamedTuple):
    """A host; the lower `priority` the earlier. The order of the fields is the order of hosts.

    `stratum` is what it claims, `expected` what the inventory says of that (empty: nothing), and
    `before` what the last census had where that was another stratum (else empty).
    """

    priority: int
    name: str
    cell: str
    region: str
    stratum: str
    expected: str = ""
    before: str = ""


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
    max_batch = _positive("max_batch", max_batch)
    wanted = read_stages(DEFAULT_STAGES if stages is None else stages, max_batch, partial)
    wanted = _with_alone(wanted, aside, max_batch)
    chosen, notes = _assign(everyone, wanted, aside)
    chosen = _cut(chosen, wanted, until)
    if not chosen:
        raise PlanError(_empty(until, found))
    return _document(everyone, chosen, notes, found)


# --- input -------------------------------------------------------------------------------------


def read_hosts(hosts: Sequence[Json]) -> list[Host]:
    """Checked hosts in their order."""
    if not isinstance(hosts, (list, tuple)) or not hosts:
        raise PlanError("hosts: the list is empty; name at least one host")
    _refuse_without_place(hosts)
    found = [_read_host(index, one) for index, one in enumerate(hosts)]
    twice = sorted(name for name, count in Counter(host.name for host in found).items() if count > 1)
    if twice:
        raise PlanError(f"hosts: {', '.join(twice)} named more than once; name each host once")
    return sorted(found)


def _read_host(index: int, one: Any) -> Host:
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or not one["name"]:
        raise PlanError(f"hosts[{index}]: has no name; give name, cell, region and stratum")
    name = one["name"]
    priority = one.get("priority")
    priority = DEFAULT_PRIORITY if priority is None else _read(_PRIORITY, f"host {name}: priority", priority)
    for field in ("expected", "before"):
        if not isinstance(one.get(field) or "", str):
            raise PlanError(f"host {name}: {field} is not text; leave it out where it is not known")
    words = (one.get("expected") or "", one.get("before") or "")
    return Host(
        priority, name, values.label("cell", one["cell"]), values.label("region", one["region"]), one["stratum"], *words
    )


def _refuse_without_place(hosts: Sequence[Any]) -> None:
    """All hosts that lack a cell, a region or a stratum are told at once, with the variable that gives it."""
    wrong: dict[str, list[str]] = {}
    for one in hosts:
        for field in _PLACES if isinstance(one, Mapping) and isinstance(one.get("name"), str) else ():
            problem = _place_problem(field, one.get(field))
            if problem:
                wrong.setdefault(problem, []).append(printable(one["name"], 300))
    if wrong:
        raise PlanError("; ".join(f"{_hosts_named(names)}: {problem}" for problem, names in wrong.items()))


def _place_problem(field: str, value: Any) -> str | None:
    if value is None or value == "":
        return f"{field} is missing; {_PLACES[field]}"
    try:
        values.label(field, value)
    except values.RefusedValueError as error:
        return str(error)
    return None


def _hosts_named(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"host {names[0]}"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} hosts ({', '.join(names[:_NAMED])}{more})"


def _read(reader: values.Reader, name: str, value: Any) -> Any:
    try:
        return reader(name, value)
    except values.RefusedValueError as error:
        raise PlanError(str(error)) from error


# --- doubts ------------------------------------------------------------------------------------

DISPUTED = "disputed"
CHANGED = "changed"


class Doubt(NamedTuple):
    """A claim that something speaks against: `against` is the inventory's or the last census's word, if any."""

    kind: str
    host: Host
    against: str | None


def doubts(hosts: Sequence[Host]) -> list[Doubt]:
    """Every host whose claim of a stratum is not to be taken as it is, in the order of hosts.

    `disputed`: the inventory says otherwise. `alone`: no other host claims it, and the inventory
    does not vouch for it. `changed`: the last census had another one.
    """
    disputed = {host for host in hosts if host.expected and not agrees(host.stratum, host.expected)}
    # A disputed claim must not give company to a host that stands alone.
    shared = Counter(host.stratum for host in hosts if host not in disputed)
    found = []
    for host in hosts:
        if host in disputed:
            found.append(Doubt(DISPUTED, host, host.expected))
        elif not host.expected and shared[host.stratum] == 1:
            found.append(Doubt(ALONE, host, None))
        if host.before:
            found.append(Doubt(CHANGED, host, host.before))
    return found


_DOUBT_WORDS = {
    DISPUTED: (
        "{count} another stratum than the inventory says, and come last: {named}; "
        f"correct {EXPECTED_VARIABLE} where the host is right, else find out why it says so"
    ),
    ALONE: (
        "{count} a stratum that no other host has; they come last and are not canaries: {named}; "
        f"where that is right, say so in the inventory with {EXPECTED_VARIABLE}"
    ),
    CHANGED: "{count} another stratum than in the last census: {named}",
}


def _doubt_sentences(found: Sequence[Doubt]) -> list[str]:
    lines = []
    for kind, words in _DOUBT_WORDS.items():
        mine = [one for one in found if one.kind == kind]
        if mine:
            count = "1 host claims" if len(mine) == 1 else f"{len(mine)} hosts claim"
            lines.append(words.format(count=count, named=_doubt_names(mine)))
    return lines


def _doubt_names(found: Sequence[Doubt]) -> str:
    told = [_doubt_name(one) for one in found[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(told) + more


def _doubt_name(one: Doubt) -> str:
    claim = printable(one.host.stratum, 100)
    return f"{one.host.name} ({claim})" if one.against is None else f"{one.host.name} ({claim}, not {one.against})"


def _empty(until: str | None, found: Sequence[Doubt]) -> str:
    stages = "in any stage" if until is None else f"in a stage up to {until}"
    return "; ".join([f"the plan: no host is {stages}", *_doubt_sentences(found)])


# --- stages ------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """One checked stage; `options` are those of its type."""

    type: str
    name: str
    max_batch: int | None
    options: Json


def read_stages(stages: Sequence[Json], max_batch: int | None, partial: bool) -> list[Stage]:
    """Checked stages, or PlanError."""
    if not isinstance(stages, (list, tuple)) or not stages:
        raise PlanError("stages: the list is empty; leave it out for canary, cell, region, fleet")
    max_batch = _positive("max_batch", max_batch)
    found = [_read_stage(index, one, max_batch) for index, one in enumerate(stages)]
    _refuse_bad_order(found)
    if not partial and all(stage.type != "fleet" for stage in found):
        raise PlanError("stages: the last is not fleet, so hosts are left out; add it or say partial: true")
    return found


def _read_stage(index: int, one: Any, max_batch: int | None) -> Stage:
    where = f"stages[{index}]"
    if not isinstance(one, Mapping) or "stage" not in one:
        raise PlanError(f"{where}: has no `stage`; it is one of {', '.join(STAGE_ORDER)}")
    kind = one["stage"]
    _refuse_unknown(where + ".stage", kind, STAGE_ORDER)
    for key in one:
        _refuse_unknown(f"{where} ({kind})", key, COMMON_KEYS + STAGE_KEYS[kind])
    options = _read_options(where, {key: one[key] for key in STAGE_KEYS[kind] if one.get(key) is not None})
    name = one.get("name") or kind
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise PlanError(f"{where}.name: {name!r} must be of letters, digits, dot, dash and underscore")
    if name == ALONE and kind != ALONE:
        raise PlanError(f"{where}.name: {ALONE} is the stage of hosts that stand alone; choose another name")
    own = _positive(where + ".max_batch", one.get("max_batch"))
    return Stage(kind, name, _batch_size(kind, max_batch) if own is None else own, options)


def _batch_size(kind: str, max_batch: int | None) -> int | None:
    if kind not in _SMALL_STAGES:
        return max_batch
    return DEFAULT_SMALL_BATCH if max_batch is None else min(max_batch, DEFAULT_SMALL_BATCH)


def _with_alone(stages: list[Stage], aside: Collection[Host], max_batch: int | None) -> list[Stage]:
    """The stages, with one for the hosts that were set aside where the plan is for the whole fleet."""
    kinds = {stage.type for stage in stages}
    if not aside or ALONE in kinds or "fleet" not in kinds:
        return stages
    return [*stages, Stage(ALONE, ALONE, _batch_size(ALONE, max_batch), {})]


_OPTIONS = {
    "count": _POSITIVE,
    "per_stratum": _POSITIVE,
    "percent": _PERCENT,
    "cell": values.label,
    "region": values.label,
}


def _read_options(where: str, options: Json) -> dict[str, Any]:
    if "count" in options and "per_stratum" in options:
        raise PlanError(f"{where}: give count or per_stratum, not both")
    return {key: _read(_OPTIONS[key], f"{where}.{key}", value) for key, value in options.items()}


def _positive(where: str, value: Any) -> int | None:
    return None if value is None else _read(_POSITIVE, where, value)


def _refuse_unknown(where: str, name: Any, known: Sequence[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
    raise PlanError(f"{where}: unknown {name!r}; {hint}")


def _refuse_bad_order(stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages]
    for earlier, later in zip(stages, stages[1:]):
        if STAGE_ORDER.index(later.type) < STAGE_ORDER.index(earlier.type):
            raise PlanError(f"stages: {later.type} after {earlier.type}; go from narrow to wide")
    for kind in ("canary", "fleet", ALONE):
        if sum(stage.type == kind for stage in stages) > 1:
            raise PlanError(f"stages: {kind} more than once; one is enough")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise PlanError(f"stages: name {twice[0]} more than once; give each stage its own `name`")


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
    _refuse_unknown("until", until, names)
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
    notes = [*notes, *_doubt_sentences(found)]
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
