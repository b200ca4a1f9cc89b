# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of one host: what the kernel said in parts, put together. Pure.

The format is in docs/formats/bpf-inventory.md.
"""

from __future__ import annotations

import datetime
from typing import Any, Dict, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import attribution
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.ask import Raw
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.points import point_of

SCHEMA = "ebpf.fleet/bpf-inventory/v1"
OWN_UNITS = ("ebpf-fleet-loader.service", "ebpf-fleet-bcc.service")
ATTACHMENTS, PROCESSES, UNKNOWN = 4096, 1024, 200
# Of each object; a fleet's document is not to be filled by one that forks.
HOLDERS = 64
_TEXT = 2000
_FUNCTION_PREFIXES = ("btf_trace_", "bpf_lsm_", "bpf_iter_")
_NO_USER = 65534  # the kernel's word for a user that this namespace does not have

Json = Mapping[str, Any]
Row = Dict[str, Any]


def assemble(raw: Raw) -> Row:
    """The host's document out of what the kernel said."""
    held, more = raw.held.holdings[:PROCESSES], len(raw.held.holdings) - PROCESSES
    raw = raw._replace(held=raw.held._replace(holdings=held))
    processes = {one.process["pid"]: _process(one.process) for one in held}
    kinds = {one["id"]: one["type"] for one in raw.programs.found or []}
    links = [_link(one, raw, kinds.get(one["program_id"])) for one in raw.links.found or []]
    attachments, dropped = _attachments(raw, links)
    holders = _holders(raw, links)
    known = _Known(_points(attachments), _pins(raw, links), holders, _map_holders(raw), processes)
    programs = [_program(one, raw, known) for one in raw.programs.found or []]
    maps = raw.maps.found
    return {
        "schema": SCHEMA,
        "time": _iso(raw.time_unix_ns),
        "kernel": raw.kernel,
        "boot_id": raw.boot_id,
        "privileged": raw.privileged,
        "stats": dict(raw.stats),
        "programs": None if raw.programs.found is None else programs,
        "maps": None if maps is None else [_map(one, known) for one in maps],
        "links": None if raw.links.found is None else [_shown(one) for one in links],
        "pins": [_pin(one) for one in raw.pins.found],
        "attachments": attachments,
        "processes": {str(pid): one for pid, one in sorted(processes.items())},
        "network_namespaces": [_namespace(one, raw) for one in raw.namespaces],
        "evidence": "; ".join((raw.programs.remark, raw.maps.remark, raw.links.remark)),
        "unknown": _unknown(raw, {"attachments": dropped, "processes": more}, known),
    }


class _Known(NamedTuple):
    """What is looked up for each program: points, pins by kind, holders with by what, holders of maps, processes."""

    points: dict[int, set[str]]
    pins: dict[int, list[Row]]
    holders: dict[int, dict[int, set[str]]]
    by_map: dict[int, list[int]]
    processes: dict[int, Row]


def _plain(text: str | None) -> str | None:
    """A text that JSON can carry: names in file systems are bytes, and may be long."""
    if text is None:
        return None
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:_TEXT]


def _iso(unix_ns: int) -> str:
    moment = datetime.datetime.fromtimestamp(unix_ns // 1_000_000_000, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _process(found: Json) -> Row:
    cgroup = _plain(found["cgroup"])
    found = {**found, "cgroup": cgroup, "comm": _plain(found["comm"]), "exe": _plain(found["exe"])}
    return {**found, "unit": attribution.unit_of(cgroup), "container": attribution.container_of(cgroup)}


# --- attachments -------------------------------------------------------------------------------


def _link(one: Json, raw: Raw, program_type: str | None) -> Row:
    """A link with the name of its target, where only a number was told."""
    found = dict(one)
    if found["hook"] == "raw_tp" and program_type == "tracing":
        # One kind of link stands for both; the program's type tells them apart.
        found["hook"] = "tp_btf"
    if found.get("btf"):
        name = raw.btf_names.get(tuple(found["btf"]))
        found["target"] = _bare(name) if name else None
    if found["hook"] == "struct_ops":
        found["target"] = next((of["name"] for of in raw.maps.found or [] if of["id"] == found["map_id"]), None)
    if "cgroup_id" in found:
        found["target"] = raw.cgroups.paths.get(found["cgroup_id"])
    return found


def _bare(name: str) -> str:
    for prefix in _FUNCTION_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _shown(link: Json) -> Row:
    found = {name: link[name] for name in ("id", "type", "program_id", "hook", "target", "mode", "attached")}
    return {**found, "target": _plain(found["target"])}


def _pin(one: Json) -> Row:
    return {**one, "path": _plain(one["path"]), "time": _iso(one["time_unix_ns"])}


def _map(one: Json, known: _Known) -> Row:
    return {**one, "pids": known.by_map.get(one["id"], [])[:HOLDERS]}


def _attachments(raw: Raw, links: Sequence[Row]) -> tuple[list[Row], int]:
    """Every attachment once, with its link where it has one; and how many there are beyond the bound."""
    found: list[Row] = []
    for namespace in raw.namespaces:
        for attached in namespace.found.attachments if namespace.found is not None else ():
            found.append({**attached, "netns": namespace.place.inode})
    found += [dict(one) for one in raw.cgroups.attachments + raw.by_map]
    for holding in raw.held.holdings:
        found += map(dict, holding.attachments)
    by_hook: dict[tuple[int, str], list[Row]] = {}
    for one in found:
        by_hook.setdefault((one["program_id"], one["hook"]), []).append(one)
    known = {one["link_id"] for one in found if one["link_id"]}
    for link in links:
        if link["id"] not in known and link["attached"] is not False:
            twin = _same_place(link, by_hook.get((link["program_id"], link["hook"]), ()))
            if twin is None:
                found.append(_of_link(link))
            else:
                twin["link_id"] = link["id"]
    targets = {one["link_id"]: one["target"] for one in found if one["link_id"]}
    for link in links:
        link["target"] = link["target"] or targets.get(link["id"])
    found += _sampled(raw, found)
    rows = [_attachment(one) for one in found]
    rows.sort(key=lambda one: (one["program_id"], one["point"], one["netns"] or 0, one["link_id"] or 0))
    return rows[:ATTACHMENTS], max(0, len(rows) - ATTACHMENTS)


def _same_place(link: Json, found: Sequence[Row]) -> Row | None:
    """The attachment that was also found by its hook, which names the target and the namespace."""
    for one in found:
        if one["link_id"]:
            continue
        if one["source"] == "perf_event" and link["target"] in (None, one["target"]):
            return one
        if any(key in link and one.get(key) == link[key] for key in ("ifindex", "cgroup_id", "netns", "map_id")):
            return one
    return None


def _of_link(link: Json) -> Row:
    target = link["target"]
    if target is None and link.get("ifindex"):
        target = f"ifindex {link['ifindex']}"
    if target is None and link.get("cgroup_id"):
        target = f"cgroup {link['cgroup_id']}"
    return {**link, "target": target, "link_id": link["id"], "source": "link"}


def _sampled(raw: Raw, found: Sequence[Json]) -> list[Row]:
    """Programs of type perf_event that a process with such events holds: the kernel does not tell which runs which."""
    attached = {one["program_id"] for one in found}
    rows = []
    kinds = {one["id"]: one["type"] for one in raw.programs.found or []}
    for holding in raw.held.holdings:
        for kind, number in holding.objects if holding.unnamed_events else ():
            if kind == "program" and kinds.get(number) == "perf_event" and number not in attached:
                rows.append(
                    {"program_id": number, "hook": "perf_event", "target": None, "mode": None, "link_id": None,
                     "pid": holding.process["pid"], "source": "guess"}
                )  # fmt: skip
    return rows


def _attachment(one: Json) -> Row:
    one = {**one, "target": _plain(one["target"])}
    return {
        "program_id": one["program_id"],
        "hook": one["hook"],
        "target": one["target"],
        "point": point_of(one),
        "mode": one["mode"] or None,
        "decides": bool(one.get("decides")),
        "netns": one.get("netns"),
        "link_id": one["link_id"],
        "map_id": one.get("map_id"),
        "source": one["source"],
    }


def _namespace(one: Any, raw: Raw) -> Row:
    place, own = one.place, raw.namespaces[0].place.inode == one.place.inode
    return {
        "inode": place.inode,
        "name": _plain(place.name),
        "pid": place.pid,
        "own": own,
        "asked": one.found is not None,
    }


# --- holders and owners ------------------------------------------------------------------------


def _holders(raw: Raw, links: Sequence[Json]) -> dict[int, dict[int, set[str]]]:
    """{program: {pid: by what it holds it}}."""
    of_link = {one["id"]: one["program_id"] for one in links}
    found: dict[int, dict[int, set[str]]] = {}
    for holding in raw.held.holdings:
        pid = holding.process["pid"]
        for kind, number in holding.objects:
            program = number if kind == "program" else of_link.get(number) if kind == "link" else None
            if program is not None:
                found.setdefault(program, {}).setdefault(pid, set()).add(kind)
        for one in holding.attachments:
            found.setdefault(one["program_id"], {}).setdefault(pid, set()).add("perf_event")
    return found


def _map_holders(raw: Raw) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for holding in raw.held.holdings:
        for kind, number in holding.objects:
            if kind == "map":
                found.setdefault(number, []).append(holding.process["pid"])
    return found


def _points(attachments: Sequence[Json]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for one in attachments:
        found.setdefault(one["program_id"], set()).add(one["point"])
    return found


def _pins(raw: Raw, links: Sequence[Json]) -> dict[int, list[Row]]:
    """{program: pins that keep it, and those of its maps, which tell of who uses it}."""
    of: dict[tuple[str, int], list[Row]] = {}
    for pin in raw.pins.found:
        of.setdefault((pin["kind"], pin["id"]), []).append(_pin(pin))
    found: dict[int, list[Row]] = {}
    for one in raw.programs.found or []:
        found[one["id"]] = list(of.get(("program", one["id"]), []))
    for link in links:
        found.setdefault(link["program_id"], []).extend(of.get(("link", link["id"]), []))
    for one in raw.programs.found or []:
        found[one["id"]] += [pin for number in one["map_ids"] for pin in of.get(("map", number), [])]
    return found


def _program(one: Json, raw: Raw, known: _Known) -> Row:
    holders, processes, pins = known.holders.get(one["id"], {}), known.processes, known.pins[one["id"]]
    sharing = [processes[pid] for number in one["map_ids"] for pid in known.by_map.get(number, ())]
    held = [processes[pid] for pid in sorted(holders)]
    owner = attribution.owner_of(one, held, sharing, [pin["path"] for pin in pins])
    return {
        **one,
        "ours": one["ours"] or any(process["unit"] in OWN_UNITS for process in held),
        "user": raw.users.get(one["uid"]) if one["uid"] != _NO_USER else None,
        "loaded_at": None if one["load_time_ns"] is None else _iso(raw.booted_unix_ns + one["load_time_ns"]),
        "points": sorted(known.points.get(one["id"], ())),
        "holders": [{"pid": pid, "by": sorted(holders[pid])} for pid in sorted(holders)[:HOLDERS]],
        "pins": [pin["path"] for pin in pins if pin["kind"] != "map"],
        "owner": owner._asdict(),
    }


def _unknown(raw: Raw, dropped: Mapping[str, int], known: _Known) -> list[str]:
    """Each thing that was refused or left out, in a sentence part; the first word is the kind."""
    found = list(raw.unknown)
    for listing in (raw.programs, raw.maps, raw.links):
        partly = any(words in listing.remark for words in ("more are not", "could not", "stopped"))
        if listing.found is None or partly:
            found.append(listing.remark)
    found += [f"{kind}: {count} more are not listed" for kind, count in dropped.items() if count > 0]
    crowded = sum(len(pids) > HOLDERS for pids in (*known.holders.values(), *known.by_map.values()))
    found += [f"holders: of {crowded} programs or maps only {HOLDERS} are listed"] if crowded else []
    found += raw.held.unknown + raw.pins.unknown + raw.cgroups.unknown
    for one in raw.namespaces:
        of = one.place.name or ("this host" if one is raw.namespaces[0] else str(one.place.inode))
        found += [f"{words} ({of})" for words in (one.found.unknown if one.found is not None else ())]
    found += _unnamed_events(raw)
    more = [f"unknown: {len(found) - UNKNOWN} more are not told"] if len(found) > UNKNOWN else []
    return [str(_plain(one)) for one in found[:UNKNOWN]] + more


def _unnamed_events(raw: Raw) -> list[str]:
    return [
        f"perf events: process {one.process['pid']} ({one.process['comm']}) has {one.unnamed_events} whose program "
        "the kernel does not name"
        for one in raw.held.holdings
        if one.unnamed_events
    ]
