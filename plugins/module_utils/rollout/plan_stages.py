# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of a plan as they are asked for: read, checked, and in a sequence from narrow to wide. Pure."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Any, Collection, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_hosts import (
    ALONE,
    Host,
    Json,
    PlanError,
    read_value,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_waves import (
    SMALL_BATCH,
    Size,
    Waves,
    read_waves,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.timing import BAKES, READ_BAKE

STAGE_ORDER = ("canary", "cell", "region", "fleet", ALONE)
STAGE_KEYS = {
    "canary": ("count", "per_stratum", "cell"),
    "cell": ("cell", "growth"),
    "region": ("region", "percent", "growth"),
    "fleet": ("growth",),
    ALONE: (),
}
COMMON_KEYS = ("stage", "name", "max_batch", "bake", "fleet_percent", "cell_percent")
DEFAULT_STAGES = ({"stage": "canary"}, {"stage": "cell"}, {"stage": "region"}, {"stage": "fleet"})
_SMALL_STAGES = ("canary", ALONE)
_POSITIVE = values.whole(1)
_PERCENT = values.whole(1, 100)


class Stage(NamedTuple):
    """One checked stage; `bake` is in seconds, `options` are those of its type."""

    type: str
    name: str
    size: Size
    bake: int
    options: Json


class Defaults(NamedTuple):
    """What a stage has that says nothing else; `bake` is for every stage, whatever it says."""

    max_batch: int | None
    waves: Waves
    bake: int | None = None


def read_stages(stages: Sequence[Json], defaults: Defaults, partial: bool) -> list[Stage]:
    """Checked stages, or PlanError."""
    if not isinstance(stages, (list, tuple)) or not stages:
        raise PlanError("stages: the list is empty; leave it out for canary, cell, region, fleet")
    found = [_read_stage(index, one, defaults) for index, one in enumerate(stages)]
    _refuse_bad_order(found)
    if not partial and all(stage.type != "fleet" for stage in found):
        raise PlanError("stages: the last is not fleet, so hosts are left out; add it or say partial: true")
    return found


def _read_stage(index: int, one: Any, defaults: Defaults) -> Stage:
    where = f"stages[{index}]"
    if not isinstance(one, Mapping) or "stage" not in one:
        raise PlanError(f"{where}: has no `stage`; it is one of {', '.join(STAGE_ORDER)}")
    kind = one["stage"]
    refuse_unknown(where + ".stage", kind, STAGE_ORDER)
    for key in one:
        refuse_unknown(f"{where} ({kind})", key, COMMON_KEYS + STAGE_KEYS[kind])
    options = _read_options(where, {key: one[key] for key in _OPTIONS if one.get(key) is not None})
    name = one.get("name") or kind
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise PlanError(f"{where}.name: {name!r} must be of letters, digits, dot, dash and underscore")
    if name == ALONE and kind != ALONE:
        raise PlanError(f"{where}.name: {ALONE} is the stage of hosts that stand alone; choose another name")
    own = positive(where + ".max_batch", one.get("max_batch"))
    size = _size(kind, own, defaults.max_batch, read_waves(where + ".", one, defaults.waves))
    bake = None if one.get("bake") is None else read_value(READ_BAKE, where + ".bake", one["bake"])
    return Stage(kind, name, size, _bake(kind, bake, defaults), options)


def _size(kind: str, own: int | None, max_batch: int | None, waves: Waves) -> Size:
    small = kind in _SMALL_STAGES
    if own is not None or not small:
        return Size(max_batch if own is None else own, not small, waves)
    return Size(SMALL_BATCH if max_batch is None else min(max_batch, SMALL_BATCH), False, waves)


def _bake(kind: str, own: int | None, defaults: Defaults) -> int:
    if defaults.bake is not None:
        return defaults.bake
    return BAKES[kind] if own is None else own


def with_alone(stages: list[Stage], aside: Collection[Host], defaults: Defaults) -> list[Stage]:
    """The stages, with one for the hosts that were set aside where the plan is for the whole fleet."""
    kinds = {stage.type for stage in stages}
    if not aside or ALONE in kinds or "fleet" not in kinds:
        return stages
    size = _size(ALONE, None, defaults.max_batch, defaults.waves)
    return [*stages, Stage(ALONE, ALONE, size, _bake(ALONE, None, defaults), {})]


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
    return {key: read_value(_OPTIONS[key], f"{where}.{key}", value) for key, value in options.items()}


def positive(where: str, value: Any) -> int | None:
    """A whole number of 1 or more, or None; raises PlanError with the place."""
    return None if value is None else read_value(_POSITIVE, where, value)


def refuse_unknown(where: str, name: Any, known: Sequence[str]) -> None:
    """Raise PlanError, with the nearest name, for one that is not known."""
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
