# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exactly is done to take a target off a host: steps as data, each with what puts it back. Pure.

Steps are in the order in which they are done: programs that may have to be put back are kept by a pin of ours, units
are stopped and masked, other holders are ended, what outlives them is detached, and pins are removed where that was
asked.
"""

from __future__ import annotations

import shlex
from typing import Any, Dict, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.find import Found, is_below, named
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import process_refusal, unit_refusal

Json = Mapping[str, Any]
Step = Dict[str, Any]

XDP_MODES = ("generic", "native")
CGROUP_FLAGS = {"exclusive": 0, "override": 1, "multi": 2}
# BPF_LINK_DETACH of the kernel's linux/bpf.h knows these; others end with their last descriptor and pin alone.
DETACHABLE = ("cgroup", "netns", "xdp", "tcx", "netkit", "struct_ops")
INTERFACE_HOOKS = ("tcx_ingress", "tcx_egress", "netkit_primary", "netkit_peer")
_GOES = ("perf_event", "guess")


class Facts(NamedTuple):
    """What the plan needs beside the inventory.

    `units`: systemd's answer on each unit, by name, none where there is no systemd; `started`: when a process began, by
    pid; `filters`: tc filters by the inode of their network namespace; `interfaces`: (inode, name) to index; `own_pids`
    and `own_unit`: of this very command.
    """

    units: Mapping[str, Json]
    started: Mapping[int, int]
    filters: Mapping[int, Sequence[Json]]
    interfaces: Mapping[tuple[int, str], int]
    own_pids: tuple[int, ...]
    own_unit: str | None


class Plan(NamedTuple):
    """Steps; what ends by itself with its holder; what this leaves, each with what a person can do."""

    steps: list[Step]
    goes: list[str]
    left: list[str]


def plan(inventory: Json, found: Found, facts: Facts, remove_pins: bool) -> Plan:
    """The steps for what was found."""
    made = Plan([], [], [])
    _end_holders(inventory, found, facts, made)
    for attachment in inventory["attachments"]:
        if attachment["program_id"] in found.ids:
            _detach(inventory, attachment, facts, remove_pins, made)
    _filters(inventory, found, facts, made)
    _pins(inventory, found, remove_pins, made)
    _shared(found, made)
    needed = {step["program_id"] for step in made.steps if step["do"] in ("detach", "unpin") and step.get("back")}
    keep = [_keep(one) for one in found.programs if one["id"] in needed]
    return made._replace(steps=keep + list({step["key"]: step for step in made.steps}.values()))


def _keep(program: Json) -> Step:
    return {"do": "keep", "key": f"keep:{program['id']}", "program_id": program["id"], "tag": program["tag"],
            "name": program["name"]}  # fmt: skip


# --- units and processes -----------------------------------------------------------------------


def _end_holders(inventory: Json, found: Found, facts: Facts, made: Plan) -> None:
    units: list[str] = []
    kills: list[Step] = []
    for pid in found.pids:
        process = inventory["processes"][str(pid)]
        refused = process_refusal(pid, process["comm"], facts.own_pids)
        unit = _managed(process, facts)
        refused = refused or (unit_refusal(unit, facts.own_unit) if unit else "")
        if refused:
            made.left.append(f"{refused} It still holds programs of this")
        elif unit:
            units.append(unit)
        elif facts.started.get(pid) is not None:
            kills.append(_kill(pid, process, facts))
    for unit in dict.fromkeys(units):
        made.steps.extend(_stop(facts.units[unit], made.left))
    made.steps.extend(kills)


def _managed(process: Json, facts: Facts) -> str:
    """The service of this host's systemd that a process is of; empty of one that is of none.

    A scope is what somebody began by hand or a container: only the holder in it is ended.
    """
    unit = facts.units.get(process["unit"] or "", {})
    group = unit.get("control_group")
    if not group or not unit["name"].endswith(".service") or not is_below(process["cgroup"], group):
        return ""
    return str(unit["name"])


def _stop(unit: Json, left: list[str]) -> list[Step]:
    name = unit["name"]
    steps: list[Step] = [
        {"do": "stop", "key": f"stop:{name}", "unit": name, "active": unit["active"], "enabled": unit["enabled"],
         "transient": unit["transient"]}
    ]  # fmt: skip
    if unit["enabled"] in ("masked", "masked-runtime"):
        return steps
    if unit["mask_path"] is None:
        left.append(f"{name} cannot be masked: both of systemd's places for that have a file; it may be started again")
        return steps
    return [*steps, {"do": "mask", "key": f"mask:{name}", "unit": name, "path": unit["mask_path"]}]


def _kill(pid: int, process: Json, facts: Facts) -> Step:
    return {"do": "kill", "key": f"kill:{pid}:{facts.started[pid]}", "pid": pid, "comm": process["comm"],
            "exe": process["exe"], "start_ticks": facts.started[pid], "unit": process["unit"]}  # fmt: skip


# --- attachments -------------------------------------------------------------------------------


def _detach(inventory: Json, one: Json, facts: Facts, remove_pins: bool, made: Plan) -> None:
    hook, base = one["hook"], _base(inventory, one)
    ifindex = facts.interfaces.get((one["netns"] or 0, one["target"] or ""))
    if one["link_id"]:
        _link(inventory, one, ifindex, remove_pins, made)
    elif hook == "xdp" and one["mode"] in XDP_MODES and ifindex is not None:
        key = f"xdp:{one['netns']}:{ifindex}:{one['mode']}"
        back = {"how": "xdp", "ifindex": ifindex, "mode": one["mode"]}
        made.steps.append({**base, "key": key, "how": "xdp", "ifindex": ifindex, "mode": one["mode"], "back": back})
    elif hook.startswith("tc_"):
        if "action of" in (one["mode"] or ""):
            made.left.append(f"{base['at']} is an action of a filter: see tc filter show, and delete that filter")
    elif hook in INTERFACE_HOOKS and ifindex is not None:
        key = f"hook:{one['netns']}:{ifindex}:{hook}:{one['program_id']}"
        back = {"how": "hook", "ifindex": ifindex, "hook": hook}
        made.steps.append({**base, "key": key, "how": "hook", "ifindex": ifindex, "hook": hook, "back": back})
    elif (hook.startswith("cgroup_") or hook == "lsm_cgroup") and one["target"]:
        _cgroup(one, base, made)
    elif one["source"] in _GOES or one["source"] == "map":
        kept = f", and with map {one['map_id']}" if one["source"] == "map" else ""
        made.goes.append(f"{base['at']} ends with who holds it{kept}")
    else:
        made.left.append(f"{base['at']} cannot be detached by this: use the tool that attached it")


def _base(inventory: Json, one: Json) -> Step:
    program = next(each for each in inventory["programs"] if each["id"] == one["program_id"])
    mode = f" ({one['mode']})" if one["mode"] else ""
    where = f" in network namespace {_namespace(inventory, one['netns'])}" if one["netns"] else ""
    return {"do": "detach", "program_id": program["id"], "tag": program["tag"], "name": program["name"],
            "netns": one["netns"], "target": one["target"],
            "at": f"{named(program)} at {one['point']}{mode}{where}"}  # fmt: skip


def _namespace(inventory: Json, inode: int) -> str:
    found = next((one for one in inventory["network_namespaces"] if one["inode"] == inode), None)
    if found is None:
        return str(inode)
    return "of the host" if found["own"] else found["name"] or f"of process {found['pid']}"


def _cgroup(one: Json, base: Step, made: Plan) -> None:
    key = f"cgroup:{one['target']}:{one['hook']}:{one['program_id']}"
    back = None
    if one["mode"] in CGROUP_FLAGS:
        back = {"how": "cgroup", "path": one["target"], "hook": one["hook"], "flags": CGROUP_FLAGS[one["mode"]]}
    made.steps.append({**base, "key": key, "how": "cgroup", "path": one["target"], "hook": one["hook"], "back": back})


def _link(inventory: Json, one: Json, ifindex: int | None, remove_pins: bool, made: Plan) -> None:
    base, number = _base(inventory, one), one["link_id"]
    kind = next((each["type"] for each in inventory["links"] or () if each["id"] == number), "")
    pins = [pin["path"] for pin in inventory["pins"] if (pin["kind"], pin["id"]) == ("link", number)]
    what = f"{base['at']}, link {number}"
    if kind in DETACHABLE:
        # Of one that nothing but its holder keeps, whoever is started again makes another.
        back = _link_back(one, ifindex, pins) if pins else None
        made.steps.append({**base, "key": f"link:{number}", "how": "link", "link_id": number, "pins": pins,
                           "at": what, "back": back})  # fmt: skip
    elif not pins:
        made.goes.append(f"{what} ends with who holds it")
    elif remove_pins:
        made.goes.append(f"{what} ends with its pin {pins[0]}, and this cannot put it back: start what made it")
    else:
        remedy = " ".join(map(shlex.quote, pins))
        made.left.append(f"{what} is pinned, and ends with its pin alone: rm {remedy}, or add -e remove_pins=true")


def _link_back(one: Json, ifindex: int | None, pins: Sequence[str]) -> Step | None:
    """How such a link is made again; null where this cannot."""
    hook = one["hook"]
    if hook == "xdp" and one["mode"] in XDP_MODES and ifindex is not None:
        return {"how": "link", "hook": hook, "ifindex": ifindex, "mode": one["mode"], "pins": list(pins)}
    if hook in INTERFACE_HOOKS and ifindex is not None:
        return {"how": "link", "hook": hook, "ifindex": ifindex, "mode": None, "pins": list(pins)}
    if hook.startswith("cgroup_") and one["target"]:
        return {"how": "link", "hook": hook, "path": one["target"], "mode": None, "pins": list(pins)}
    return None


def _filters(inventory: Json, found: Found, facts: Facts, made: Plan) -> None:
    names = {(inode, index): name for (inode, name), index in facts.interfaces.items()}
    for inode, filters in facts.filters.items():
        for one in filters:
            if one["program_id"] not in found.ids:
                continue
            where = names.get((inode, one["ifindex"])) or f"block {one['parent']}"
            point = f"tc filter of {where} prio {one['info'] >> 16} handle {one['handle']:#x}"
            attachment = {
                "program_id": one["program_id"],
                "netns": inode,
                "target": where,
                "mode": None,
                "point": point,
            }
            place = [str(one[name]) for name in ("ifindex", "parent", "info", "handle", "chain")]
            back = None if one["more"] else {"how": "tc", "filter": dict(one)}
            made.steps.append({**_base(inventory, attachment), "key": f"tc:{inode}:{':'.join(place)}", "how": "tc",
                               "filter": dict(one), "back": back})  # fmt: skip


# --- pins --------------------------------------------------------------------------------------


def _pins(inventory: Json, found: Found, remove_pins: bool, made: Plan) -> None:
    programs = {one["id"]: one for one in found.programs}
    links = {one["id"]: one["program_id"] for one in inventory["links"] or ()}
    for pin in inventory["pins"]:
        number = pin["id"] if pin["kind"] == "program" else links.get(pin["id"]) if pin["kind"] == "link" else None
        if number not in found.ids or is_ours(pin["path"]):
            continue
        shown = f"{pin['kind']} {pin['id']} of {named(programs[number])}"
        if not remove_pins:
            made.goes.append(f"{shown} stays pinned: rm {shlex.quote(pin['path'])}, or add -e remove_pins=true")
            continue
        back = {"how": "pin", "path": pin["path"]} if pin["kind"] == "program" else None
        made.steps.append({"do": "unpin", "key": f"unpin:{pin['path']}", "path": pin["path"], "kind": pin["kind"],
                           "id": pin["id"], "program_id": number, "at": shown, "back": back})  # fmt: skip


def is_ours(path: str) -> bool:
    """Is it a pin by which this keeps a program to put it back?"""
    return "/ebpf-fleet/foreign-" in path


def _shared(found: Found, made: Plan) -> None:
    for one in found.programs:
        if one["id"] in found.shared:
            pids = ", ".join(map(str, found.shared[one["id"]]))
            made.left.append(
                f"{named(one)} at {', '.join(one['points']) or 'no point'} is held by process {pids} too, which is not"
                f" of this unit: left. To take it off: -e scope=program={one['tag']}"
            )


# --- in words ----------------------------------------------------------------------------------


def line(step: Json) -> str:
    """A step as a person reads it before it is done."""
    if step["do"] == "keep":
        return f"keep {named({**step, 'id': step['program_id']})} by a pin of ours, to put it back"
    if step["do"] == "stop":
        return f"stop unit {step['unit']} ({step['active']}, {step['enabled'] or 'no unit file'})"
    if step["do"] == "mask":
        return f"mask unit {step['unit']} ({step['path']})"
    if step["do"] == "kill":
        who = f"{step['comm'] or 'unknown'}, {step['exe'] or 'no file'}"
        return f"end process {step['pid']} ({who}, began at tick {step['start_ticks']})"
    if step["do"] == "unpin":
        return f"remove pin {step['path']} ({step['at']})"
    back = "" if step["back"] or step["how"] == "link" and not step["pins"] else "; this cannot put it back"
    return f"detach {step['at']}{back}"


def lines(made: Plan) -> list[str]:
    """The plan as a person reads it."""
    outlives = ", where it outlives that"
    said = [line(step) + (outlives if step["do"] == "detach" else "") for step in made.steps]
    return said + made.goes + [f"LEFT: {one}" for one in made.left]
