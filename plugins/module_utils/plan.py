# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Order hosts into stages and batches: canary, cell, region, fleet. Pure and deterministic."""

from __future__ import annotations

import difflib
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

SCHEMA = "ebpf.fleet/plan/v1"

Json = Mapping[str, Any]

STAGE_ORDER = ("canary", "cell", "region", "fleet")
STAGE_KEYS = {
    "canary": ("count", "per_stratum", "cell"),
    "cell": ("cell",),
    "region": ("region", "percent"),
    "fleet": (),
}
COMMON_KEYS = ("stage", "name", "max_batch")
DEFAULT_STAGES = ({"stage": "canary"}, {"stage": "cell"}, {"stage": "region"}, {"stage": "fleet"})
DEFAULT_PER_STRATUM = 1
DEFAULT_PERCENT = 50
DEFAULT_PRIORITY = 100


class PlanError(ValueError):
    """A plan that cannot be; the message names host or stage, field and remedy."""


class Host(NamedTuple):
    """A host; the lower `priority` the earlier. The order of the fields is the order of hosts."""

    priority: int
    name: str
    cell: str
    region: str
    stratum: str


def plan(
    hosts: Sequence[Json],
    stages: Sequence[Json] | None = None,
    max_batch: int | None = None,
    until: str | None = None,
    partial: bool = False,
) -> dict[str, Any]:
    """Stages with hosts and batches, the batch sizes for `serial`, and the hosts in their order.

    `max_batch` bounds every batch (a stage may have its own), `until` names the last stage to
    run, `partial` permits a plan that does not reach the whole fleet.
    """
    everyone = read_hosts(hosts)
    wanted = read_stages(DEFAULT_STAGES if stages is None else stages, max_batch, partial)
    chosen, notes = _assign(everyone, wanted)
    chosen = _cut(chosen, wanted, until)
    return _document(everyone, chosen, notes)


# --- input -------------------------------------------------------------------------------------


def read_hosts(hosts: Sequence[Json]) -> list[Host]:
    """Checked hosts in their order."""
    if not isinstance(hosts, (list, tuple)) or not hosts:
        raise PlanError("hosts: the list is empty; name at least one host")
    found = [_read_host(index, one) for index, one in enumerate(hosts)]
    names = [host.name for host in found]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise PlanError(f"hosts: {', '.join(twice)} named more than once; name each host once")
    return sorted(found)


def _read_host(index: int, one: Any) -> Host:
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or not one["name"]:
        raise PlanError(f"hosts[{index}]: has no name; give name, cell, region and stratum")
    name = one["name"]
    for field in ("cell", "region", "stratum"):
        if not isinstance(one.get(field), str) or not one[field]:
            raise PlanError(f"host {name}: {field} is missing; set it in the inventory")
    priority = one.get("priority")
    priority = DEFAULT_PRIORITY if priority is None else priority
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise PlanError(f"host {name}: priority {priority!r} is no whole number")
    return Host(priority, name, one["cell"], one["region"], one["stratum"])


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
    _positive("max_batch", max_batch)
    found = [_read_stage(index, one, max_batch) for index, one in enumerate(stages)]
    _refuse_bad_order(found)
    if found[-1].type != "fleet" and not partial:
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
    options = {key: one[key] for key in STAGE_KEYS[kind] if one.get(key) is not None}
    _check_options(where, options)
    name = one.get("name") or kind
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise PlanError(f"{where}.name: {name!r} must be of letters, digits, dot, dash and underscore")
    own = one.get("max_batch")
    _positive(where + ".max_batch", own)
    return Stage(kind, name, max_batch if own is None else own, options)


def _check_options(where: str, options: Json) -> None:
    if "count" in options and "per_stratum" in options:
        raise PlanError(f"{where}: give count or per_stratum, not both")
    for key in ("count", "per_stratum"):
        _positive(f"{where}.{key}", options.get(key))
    percent = options.get("percent")
    if percent is not None and (not _is_whole(percent) or not 1 <= percent <= 100):
        raise PlanError(f"{where}.percent: {percent!r} is not a whole number from 1 to 100")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(where: str, value: Any) -> None:
    if value is not None and (not _is_whole(value) or value < 1):
        raise PlanError(f"{where}: {value!r} is not a whole number from 1 up")


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
    for kind in ("canary", "fleet"):
        if sum(stage.type == kind for stage in stages) > 1:
            raise PlanError(f"stages: {kind} more than once; one is enough")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(f"stages: name {twice[0]} more than once; give each stage its own `name`")


# --- choice ------------------------------------------------------------------------------------


def _assign(
    hosts: Sequence[Host], stages: Sequence[Stage]
) -> tuple[list[tuple[Stage, list[Host]]], list[str]]:
    """Each stage with its hosts, each host in the first stage that takes it; and notes."""
    left = list(hosts)
    chosen: list[tuple[Stage, list[Host]]] = []
    notes = []
    first: Host | None = None
    for stage in stages:
        taken = _CHOOSERS[stage.type](stage, left, hosts, first)
        if not taken:
            notes.append(f"stage {stage.name} is dropped: no host is left for it")
            continue
        first = first or taken[0]
        left = [host for host in left if host not in set(taken)]
        chosen.append((stage, taken))
    return chosen, notes


def _canaries(stage: Stage, left: list[Host], _all: Sequence[Host], _first: Host | None) -> list[Host]:
    cell = stage.options.get("cell")
    pool = left if cell is None else [host for host in left if host.cell == cell]
    if cell is not None:
        _refuse_absent(stage, "cell", cell, left)
    if "count" in stage.options:
        return interleaved(pool)[: stage.options["count"]]
    each = stage.options.get("per_stratum", DEFAULT_PER_STRATUM)
    return sorted(host for group in by_stratum(pool) for host in group[:each])


def _cell(stage: Stage, left: list[Host], everyone: Sequence[Host], first: Host | None) -> list[Host]:
    cell = stage.options.get("cell") or (first or everyone[0]).cell
    _refuse_absent(stage, "cell", cell, everyone)
    return [host for host in left if host.cell == cell]


def _region(stage: Stage, left: list[Host], everyone: Sequence[Host], first: Host | None) -> list[Host]:
    region = stage.options.get("region") or (first or everyone[0]).region
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
    """Hosts grouped by stratum, groups by name, each in the order of hosts."""
    groups: dict[str, list[Host]] = {}
    for host in sorted(hosts):
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
    everyone: Sequence[Host], chosen: Sequence[tuple[Stage, list[Host]]], notes: list[str]
) -> dict[str, Any]:
    stages = [_stage_document(stage, hosts) for stage, hosts in chosen]
    batches = _batch_documents(stages)
    ordered = [name for batch in batches for name in batch["hosts"]]
    left = [host.name for host in everyone if host.name not in set(ordered)]
    if left:
        notes = [*notes, f"{len(left)} hosts are in no stage"]
    return {
        "schema": SCHEMA,
        "stages": stages,
        "batches": batches,
        "serial": [len(batch["hosts"]) for batch in batches],
        "hosts": ordered,
        "left": left,
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
