# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a target off this host, or put it back: asks, plans, writes the record, acts, asks again, and answers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import (
    act,
    answer,
    find,
    plan,
    proof,
    record,
    store,
    undo,
    units,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.record import Record
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target, unit_refusal
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import ask, attribution, host
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfholders, netchange, netns, processes
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text

Json = Mapping[str, Any]
Answer = Dict[str, Any]

SECONDS_BETWEEN, SECONDS_IF_LEFT = 0.3, 1


class Wish(NamedTuple):
    """What is wanted: `seconds` is how long the kernel may take to show that it is off."""

    target: Target
    reason: str
    remove_pins: bool
    check: bool
    seconds: float
    folder: str = store.FOLDER


class _Seen(NamedTuple):
    """One inventory, with what of it is the target's."""

    raw: ask.Raw
    inventory: Json
    found: find.Found


def take_off(wish: Wish) -> Answer:
    """Take it off; FleetError where that is refused or cannot be told."""
    own = _own_unit()
    refused = unit_refusal(wish.target.name, own) if wish.target.kind == "unit" else ""
    if refused:
        raise FleetError("EF_TAKEOFF_PROTECTED", refused)
    kept = store.Store(Path(wish.folder))
    if wish.check:
        return _planned(wish, kept.read(wish.target), own)
    with kept.locked():
        return _taken_off(wish, kept, kept.read(wish.target), own)


def _planned(wish: Wish, old: Record | None, own: str | None) -> Answer:
    seen, made = _plan(wish, old, own)
    return answer.made(wish.target, "planned", changed=any(step["do"] != "keep" for step in made.steps),
                       plan=plan.lines(made), told=seen.found.told, programs=seen.found.programs)  # fmt: skip


def _plan(wish: Wish, old: Record | None, own: str | None) -> tuple[_Seen, plan.Plan]:
    """What is there and what is to be done; FleetError where nothing of it is, or it is ours."""
    seen = _see(wish.target, old)
    unit = units.show([wish.target.name]) if wish.target.kind == "unit" else {}
    if not seen.found.programs and old is None:
        problem = find.absent(seen.inventory, wish.target, bool(unit))
        if problem is not None:
            raise problem
    ours = [one for one in seen.found.programs if one["ours"]]
    if ours:
        remedy = "turn it off with ansible-playbook ebpf.fleet.rollback"
        raise FleetError("EF_TAKEOFF_PROTECTED", f"{find.named(ours[0])} is of ebpf.fleet: {remedy}")
    return seen, plan.plan(seen.inventory, seen.found, _facts(seen, own), wish.remove_pins)


def _see(target: Target, old: Record | None) -> _Seen:
    raw = ask.ask()
    inventory = host.assemble(raw)
    group = units.show([target.name]).get(target.name, {}).get("control_group") if target.kind == "unit" else None
    known = old.known(inventory["boot_id"]) if old is not None else set()
    return _Seen(raw, inventory, find.find(inventory, target, group or None, known))


def _facts(seen: _Seen, own: str | None) -> plan.Facts:
    rows = [seen.inventory["processes"][str(pid)] for pid in seen.found.pids]
    started = {pid: processes.start_ticks(pid) for pid in seen.found.pids}
    interfaces = {
        (one.place.inode, name): index
        for one in seen.raw.namespaces if one.found is not None
        for index, name in one.found.interfaces.items()
    }  # fmt: skip
    return plan.Facts(
        units.show({row["unit"] for row in rows if row["unit"]}),
        {pid: ticks for pid, ticks in started.items() if ticks is not None},
        _filters(seen), interfaces, tuple(processes.ancestors(os.getpid())), own,
    )  # fmt: skip


def _filters(seen: _Seen) -> dict[int, list[Json]]:
    """tc filters of the network namespaces in which the inventory found some of the target."""
    wanted = {one["netns"] for one in seen.inventory["attachments"]
              if one["program_id"] in seen.found.ids and one["hook"].startswith("tc_")}  # fmt: skip
    found: dict[int, list[Json]] = {}
    for one in seen.raw.namespaces:
        if one.place.inode in wanted:
            own = one.place.inode == netns.own_inode()
            filters = netchange.filters() if own else netns.inside(one.place, netchange.filters)
            found[one.place.inode] = [each._asdict() for each in filters]
    return found


def _own_unit() -> str | None:
    return attribution.unit_of(bpfholders.cgroup_in(read_text(Path("/proc/self/cgroup")) or ""))


# --- take off ---


def _taken_off(wish: Wish, kept: store.Store, old: Record | None, own: str | None) -> Answer:
    seen, made = _plan(wish, old, own)
    new = Record(
        wish.target, wish.reason, seen.inventory["boot_id"], _now(), _now(), wish.remove_pins,
        record.shown([one for one in seen.found.programs if one["id"] in seen.found.ids]), made.steps,
    )  # fmt: skip
    current = record.merged(old, new)
    # Before anything is changed: what cannot be written down could not be put back.
    kept.write(current)
    current = _act(kept, current, act.Actor(wish.target))
    failed = [f"{plan.line(step)}: {step['why']}" for step in current.steps if step["status"] == record.FAILED]
    ended, judged = _proved(wish, current, made.left + failed)
    groups = [unit["control_group"] for unit in _stopped(seen, made)]
    mine = {one["id"] for one in [*seen.found.programs, *ended.found.programs]}
    others = proof.differences(seen.inventory, ended.inventory, mine, groups)
    return answer.made(
        wish.target, judged.status, changed=bool(made.steps), plan=plan.lines(made), done=_done(current),
        left=judged.left, told=seen.found.told + judged.told + others, programs=seen.found.programs,
        record=str(kept.path(wish.target)),
    )  # fmt: skip


def _stopped(seen: _Seen, made: plan.Plan) -> Sequence[Json]:
    names = [step["unit"] for step in made.steps if step["do"] == "stop"]
    rows = seen.inventory["processes"].values()
    return [{"control_group": row["cgroup"]} for row in rows if row["unit"] in names and row["cgroup"]]


def _act(kept: store.Store, current: Record, actor: act.Actor) -> Record:
    """Do the steps that are planned; each is written down before it is done, and again when it was."""
    for step in [one for one in current.steps if one["status"] == record.PLANNED]:
        if step["do"] in ("detach", "unpin") and _unkept(current, step):
            # Without what puts it back it stays where it is.
            current = record.with_step(current, step["key"], record.FAILED, "it could not be kept first", _now())
            continue
        current = record.with_step(current, step["key"], record.BEGUN, "", _now())
        kept.write(current)
        came = actor.do(step)
        current = record.with_step(current, step["key"], came.status, came.why, _now())
    kept.write(current)
    return current


def _unkept(current: Record, step: Json) -> bool:
    key = f"keep:{step['program_id']}"
    kept = next((one["status"] for one in current.steps if one["key"] == key), None)
    return bool(step.get("back")) and kept != record.DONE


def _proved(wish: Wish, current: Record, left: Sequence[str]) -> tuple[_Seen, proof.Proof]:
    """Ask until it is off, or the time is over: the kernel frees links and programs some moments later.

    Where something is left in any case, only so long that what ends meanwhile is not told as left, too.
    """
    until = time.monotonic() + (min(wish.seconds, SECONDS_IF_LEFT) if left else wish.seconds)
    while True:
        seen = _see(wish.target, current)
        judged = proof.judge(seen.inventory, seen.found, left)
        if judged.status == proof.OFF or time.monotonic() >= until:
            return seen, judged
        time.sleep(SECONDS_BETWEEN)


def _done(current: Record) -> list[str]:
    words = {record.DONE: "done", record.GONE: "had ended by itself", record.FAILED: "FAILED"}
    steps = [step for step in current.steps if step["do"] != "keep"]
    return [
        f"{words.get(step['status'], step['status'])}: {plan.line(step)}{_in_brackets(step['why'])}" for step in steps
    ]


def _in_brackets(why: str) -> str:
    return f" ({why})" if why else ""


# --- put back ---


def release(wish: Wish) -> Answer:
    """Put back what the record says was taken off; FleetError where there is no record."""
    kept = store.Store(Path(wish.folder))
    if wish.check:
        current = _needed(wish, kept)
        found = undo.undo(current, _boot_id())
        return answer.made(wish.target, "planned", changed=bool(found.steps), plan=undo.lines(found),
                           record=str(kept.path(wish.target)))  # fmt: skip
    _needed(wish, kept)
    with kept.locked():
        return _released(wish, kept, _needed(wish, kept))


def _needed(wish: Wish, kept: store.Store) -> Record:
    found = kept.read(wish.target)
    if found is None:
        problem = f"{kept.path(wish.target)} is not there: nothing of {wish.target.text} was taken off this host"
        raise FleetError("EF_TAKEOFF_ABSENT", problem)
    return found


def _released(wish: Wish, kept: store.Store, current: Record) -> Answer:
    found, actor = undo.undo(current, _boot_id()), act.Actor(wish.target)
    plan_lines = undo.lines(found)
    done: list[str] = []
    left: list[str] = []
    for step in found.steps:
        if step["do"] == "keep" and any(one["program_id"] == step["program_id"] for one in _waiting(current)):
            continue
        came = actor.undo(step)
        if came.status == record.LOST:
            found.told.append(f"{undo.line(step)}: not done: {came.why}")
            current = record.with_step(current, step["key"], record.UNDONE, came.why, _now())
            kept.write(current)
        elif came.status == record.UNDONE:
            done.append(f"done: {undo.line(step)}{_in_brackets(came.why)}")
            current = record.with_step(current, step["key"], record.UNDONE, came.why, _now())
            kept.write(current)
        else:
            left.append(f"{undo.line(step)}: {came.why}")
    if not left:
        kept.archive(current)
    status = "released_in_part" if left else "released"
    return answer.made(
        wish.target, status, changed=bool(done), plan=plan_lines, done=done, left=left, told=found.told,
        programs=_see(wish.target, current).found.programs, record=str(kept.path(wish.target)) if left else None,
    )  # fmt: skip


def _waiting(current: Record) -> list[Json]:
    """Steps that need the program that was kept and are not put back yet."""
    return [step for step in current.steps if step["do"] in ("detach", "unpin") and step.get("back")
            and step["status"] in (record.BEGUN, record.DONE)]  # fmt: skip


def _boot_id() -> str | None:
    text = read_text(Path("/proc/sys/kernel/random/boot_id"))
    return text.strip() if text is not None else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def explained(error: OSError) -> FleetError:
    """An error of the kernel that no step took."""
    return FleetError("EF_TAKEOFF_UNCONFIRMED", f"{errno_name(error.errno)}: {error}; run the same command again")
