# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A contract against its compiled objects, on the controller. Pure.

``inspected`` maps each variant to what ``ebpf-loader inspect`` printed of its object, and what
bpfobject read of it: ``relocates`` (whether it has CO-RE relocations), ``optional`` (sections)
and ``reads_kernel`` (whether it calls a helper that reads the kernel's memory).
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import FAIR_MAPS, variant_maps
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import (
    ATTACH_KINDS,
    OF_SECTION,
    of_program,
    parse,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import Findings, is_third_party

Inspected = Mapping[str, Mapping[str, Any]]
# Sections whose programs change what the kernel does; an observer has none.
ACTING = ("fmod_ret", "fmod_ret.s", "lsm_cgroup", "freplace", "struct_ops", "raw_tp.w", "raw_tracepoint.w")
# On every kernel with BTF that we know; all later types are worth a reason of their own where they are missing.
OLD_MAP_TYPES = frozenset([
    "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace", "cgroup_array",
    "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps",
])  # fmt: skip
MAX_LABELS = 8
# Longest record that the loader reads (EF_RECORD_BYTES in format.h), and what the kernel's ring adds to one.
MAX_RECORD_BYTES = 8192
RING_HEADER_BYTES = 8
MAX_AGGREGATE_BYTES = 256
HASH_ENTRY_OVERHEAD = 48


class _Shape(NamedTuple):
    """What a map that our loader reads by name must look like."""

    type: str
    key_size: int
    value_size: int
    max_entries: int
    former_size: int = 0  # of the value, in objects that others built before; 0: there was no other


COUNTERS = _Shape("percpu_array", 4, 8, 4)
CONFIG = _Shape("array", 4, 24, 1, former_size=8)
HISTOGRAM = _Shape("percpu_array", 4, 16, 65, former_size=8)
# Of any number of entries: the contract says how many.
FAIR_SOURCES = _Shape("lru_hash", 16, 120, 0)
FAIR_ALL = _Shape("array", 4, 120, 1)
# What one host keeps of all its events where policy.json says nothing: 8 files of 16 MiB (sink_policy.c).
HOST_EVENT_BYTES = 8 * 16 * 1024 * 1024
LINE_BYTES = 96  # time, feature and event of a line, at most


def compare_with_objects(contract: dict[str, Any], inspected: Inspected, file: str) -> list[FleetError]:
    """Where a valid contract and its compiled objects differ."""
    findings = Findings(file)
    for index, variant in enumerate(contract["variants"]):
        field = f"variants[{index}]"
        found = inspected.get(variant["name"])
        if found is None:
            findings.add(field, f"{variant['name']!r} has no object", _remedy_for_object(contract, variant["name"]))
            continue
        _compare_programs(findings, field, variant, found)
        _compare_sections(findings, field, contract, found)
        _compare_requirements(findings, field, variant, found)
        _compare_license(findings, field, variant, found)
        _compare_read_maps(findings, contract, variant["name"], found)
    _compare_maps(findings, contract, inspected)
    for index, signal in enumerate(contract["signals"]):
        for variant_name in sorted(inspected):
            _compare_signal(findings, f"signals[{index}]", contract, signal, variant_name, inspected[variant_name])
    _compare_memory(findings, contract, inspected)
    return findings.errors


def _remedy_for_object(contract: dict[str, Any], variant: str) -> str:
    if is_third_party(contract):
        return f"put the compiled object into the feature's folder as {variant}.bpf.o"
    return f"build it with -DEF_VARIANT_{variant.upper()}"


# Programs


def _compare_programs(findings: Findings, field: str, variant: dict[str, Any], found: Mapping[str, Any]) -> None:
    wanted, built = set(variant["programs"]), {program["name"] for program in found["programs"]}
    for name in sorted(wanted - built):
        findings.add(field + ".programs", f"{name!r} is not in the object", did_you_mean(name, built))
    for name in sorted(built - wanted):
        findings.add(field + ".programs", f"the object also holds {name!r}", "add it or compile it out")


def _section(program: Mapping[str, Any]) -> tuple[str, str]:
    prefix, _sep, target = str(program["section"]).partition("/")
    return prefix, target


def _compare_sections(findings: Findings, field: str, contract: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Each program hangs on a hook that the loader attaches, and acts on nothing."""
    for section in found.get("optional", []):
        findings.add(field + ".programs", f"the object has the section {section!r}",
                     "remove the '?': the loader loads every program of a variant")  # fmt: skip
    for program in found["programs"]:
        remedy = _section_remedy(program)
        if remedy:
            findings.add(field + ".programs", f"{program['name']} is in section {str(program['section'])!r}", remedy)
        elif OF_SECTION[_section(program)[0]].program_type == "lsm":
            _compare_lsm(findings, field + ".programs", contract, program)
    _compare_hooks(findings, field + ".programs", found)


def _compare_hooks(findings: Findings, field: str, found: Mapping[str, Any]) -> None:
    """Every program of an object is attached: alternatives for one hook would count each event twice.

    Two programs of one kind on one hook are not alternatives: no kernel takes only one of them.
    """
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for program in found["programs"]:
        if _section_remedy(program):
            continue
        prefix, target = _section(program)
        other = first.setdefault(OF_SECTION[prefix].hook(target), program)
        if OF_SECTION[_section(other)[0]] is not OF_SECTION[prefix]:
            both = " and ".join(f"{one['name']} ({one['section']})" for one in (other, program))
            findings.add(field, f"{both} are for one hook, and both would attach",
                         "compile one of them out, and make a variant of the other")  # fmt: skip


def _section_remedy(program: Mapping[str, Any]) -> str | None:
    """None for a section that the loader attaches, else what to do."""
    prefix, target = _section(program)
    if prefix in ACTING:
        return "take it out: it changes what the kernel does, and features observe only"
    if prefix not in OF_SECTION:
        known = ", ".join(kind.name + "/…" for kind in ATTACH_KINDS)
        return f"the loader attaches only {known}; move the program to one of these hooks or take it out"
    if "+" in target or "*" in target:
        return "name one function without an offset or a pattern"
    form = OF_SECTION[prefix].target
    return None if form.fits(target) else f'name the hook, as SEC("{prefix}/{form.form}")'


def _compare_lsm(findings: Findings, field: str, contract: dict[str, Any], program: Mapping[str, Any]) -> None:
    if contract["data_path"] != "policy":
        findings.add(field, f"{program['name']} is an LSM program on the {contract['data_path']} data path",
                     "set 'data_path: policy' and 'mode: observe'")  # fmt: skip
    if program.get("returns_zero") is not True:
        findings.add(field, f"{program['name']} is not proven to return 0 always, so it may deny",
                     "end every path with 'return 0'")  # fmt: skip


def _needed(programs: Sequence[Mapping[str, Any]], map_types: set[str]) -> dict[str, str]:
    """The requirements that an object makes certain, and what needs each."""
    needed: dict[str, str] = {}
    for program in programs:
        if _section_remedy(program) is None:
            for requirement in of_program(str(program["section"]), str(program["type"])):
                needed.setdefault(requirement, str(program["name"]))
    for kind in sorted(map_types - OLD_MAP_TYPES):
        needed["map_type:" + kind] = f"a map of type {kind}"
    return needed


def _compare_requirements(findings: Findings, field: str, variant: dict[str, Any], found: Mapping[str, Any]) -> None:
    types = {str(built["type"]) for built in found["maps"]}
    needed = _needed(found["programs"], types)
    field += ".requires"
    for requirement, who in needed.items():
        if requirement not in variant["requires"]:
            findings.add(field, f"lacks {requirement!r}, which {who} needs", "add it")
    for one in map(parse, variant["requires"]):
        if one.kind in ("prog_type", "attach") and one.text not in needed:
            findings.add(field, f"has {one.text!r}, which no program of the object needs", "remove it")
        if one.kind == "map_type" and one.key not in types:
            findings.add(field, f"has {one.text!r}, but the object has no such map", "remove it")
    if found.get("relocates") and not {"btf:any", "btf:vmlinux"} & set(variant["requires"]):
        findings.add(field, "lacks the BTF that the object's CO-RE relocations need",
                     "add 'btf:any', or 'btf:vmlinux' where a program needs the kernel's own")  # fmt: skip

    _compare_reads(findings, field, variant, found)


def _compare_reads(findings: Findings, field: str, variant: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Lockdown forbids to read kernel memory; without the requirement that could not be predicted."""
    if not found.get("reads_kernel"):
        return
    types = sorted({str(program["type"]) for program in found["programs"]})
    wanted = [f"helper:{kind}:probe_read_kernel" for kind in types]
    if types and not set(wanted) & set(variant["requires"]):
        findings.add(field, "lacks the helper by which the object reads kernel memory",
                     f"add {wanted[0]!r}, so that lockdown can be predicted")  # fmt: skip


def _compare_license(findings: Findings, field: str, variant: dict[str, Any], found: Mapping[str, Any]) -> None:
    if "GPL" not in str(found.get("license")):
        findings.add(field, f"the object of {variant['name']!r} has licence {str(found.get('license'))[:60]!r}",
                     "declare a GPL licence: the tracing helpers need it")  # fmt: skip


# Maps


def _compare_maps(findings: Findings, contract: dict[str, Any], inspected: Inspected) -> None:
    declared = {entry["name"]: (index, entry) for index, entry in enumerate(contract["maps"])}
    for variant in sorted(inspected):
        here = variant_maps(contract, variant)
        built_here = {built["name"]: built for built in inspected[variant]["maps"]}
        for name in sorted(set(built_here) - set(declared)):
            findings.add("maps", f"{name!r} of variant {variant!r} is not declared",
                         "declare it with its bound, or take it out of the program")  # fmt: skip
        for name, (index, entry) in declared.items():
            if name in built_here and name not in here:
                findings.add(f"maps[{index}].variants", f"{name!r} is in variant {variant!r} too", "add the variant")
            if name in here and name not in built_here:
                findings.add(f"maps[{index}]", f"{name!r} is not in variant {variant!r}",
                             _remedy_for_absent(name, inspected))  # fmt: skip
            if name in here and name in built_here:
                _compare_map(findings, f"maps[{index}]", entry, built_here[name], variant)


def _remedy_for_absent(name: str, inspected: Inspected) -> str:
    """What to do about a declared map that a variant lacks."""
    holders = [variant for variant in inspected if any(built["name"] == name for built in inspected[variant]["maps"])]
    if holders:
        return f"write 'variants: [{', '.join(holders)}]'"
    built = {str(built["name"]) for found in inspected.values() for built in found["maps"]}
    return f"it is in no object; {did_you_mean(name, built)}"


def _compare_map(findings: Findings, field: str, entry: dict[str, Any], built: Mapping[str, Any], variant: str) -> None:
    for key in ("type", "max_entries"):
        if entry[key] != built[key]:
            findings.add(f"{field}.{key}", f"{entry['name']!r} has {entry[key]!r} here and "
                         f"{built[key]!r} in variant {variant!r}", "make them equal")  # fmt: skip


def _compare_read_maps(findings: Findings, contract: dict[str, Any], variant: str, found: Mapping[str, Any]) -> None:
    """The maps that the loader reads or writes by name."""
    maps = {str(built["name"]): built for built in found["maps"]}
    if "ef_counters" in maps or contract.get("accounting") != "none":
        remedy = 'include "ef.h"'
        if is_third_party(contract):
            remedy = "define it as docs/formats/records.md says, or write 'accounting: none'"
        _compare_shape(findings, "maps", "ef_counters", maps.get("ef_counters"), COUNTERS, variant, remedy)
    if "ef_config" in maps or not is_third_party(contract):
        _compare_shape(findings, "maps", "ef_config", maps.get("ef_config"), CONFIG, variant, 'include "ef.h"')
    elif any(signal["sample_every"] != 1 for signal in contract["signals"]):
        findings.add("signals[0].sample_every", f"is {contract['signals'][0]['sample_every']}, but variant "
                     f"{variant!r} holds no ef_config by which it could sample", "set 1")  # fmt: skip


def _fits(built: Mapping[str, Any], shape: _Shape) -> bool:
    sizes = {shape.value_size, shape.former_size or shape.value_size}
    return built["value_size"] in sizes and all(
        built[key] == getattr(shape, key) for key in ("type", "key_size", "max_entries")
    )


def _compare_shape(
    findings: Findings, field: str, name: str, built: Mapping[str, Any] | None, shape: _Shape, variant: str, remedy: str
) -> None:
    wanted = f"a {shape.type} of {shape.max_entries} values of {shape.value_size} bytes"
    if built is None:
        findings.add(field, f"variant {variant!r} holds no {name!r}, {wanted}", remedy)
    elif not _fits(built, shape):
        findings.add(field, f"{name!r} of variant {variant!r} is not {wanted}", remedy)


# Signals


def _compare_signal(
    findings: Findings,
    field: str,
    contract: dict[str, Any],
    signal: dict[str, Any],
    variant: str,
    found: Mapping[str, Any],
) -> None:
    source = {str(built["name"]): built for built in found["maps"]}.get(signal["map"])
    if signal["kind"] == "events":
        _compare_event(findings, f"{field}.event", contract, signal["event"], variant, found)
        _compare_record(findings, field, signal, variant, found)
        _compare_backpressure(findings, field, signal, variant, found)
        _compare_fairness(findings, field, contract, signal, variant, found)
        _compare_retention(findings, field, contract, signal, variant, found)
    elif source is not None and signal["kind"] == "histogram":
        _compare_shape(findings, f"{field}.map", signal["map"], source, HISTOGRAM, variant,
                       "64 slots of powers of two and one sum, as in ef.h")  # fmt: skip
    elif source is not None:
        _compare_counters(findings, field, signal, source, variant, found)


def _members(
    findings: Findings, field: str, struct: str, variant: str, found: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    structs = found.get("structs", {})
    members: list[dict[str, Any]] | None = structs.get(struct)
    if members is None:
        findings.add(field, f"struct {struct!r} is not in the BTF of variant {variant!r}, or has bit fields",
                     did_you_mean(struct, structs))  # fmt: skip
    return members


def _compare_event(
    findings: Findings, field: str, contract: dict[str, Any], struct: str, variant: str, found: Mapping[str, Any]
) -> None:
    members = _members(findings, field, struct, variant, found)
    if members is None or is_third_party(contract):
        return
    first = members[0] if members else {}
    if (first.get("name"), first.get("offset"), first.get("size")) != ("ktime_ns", 0, 8):
        findings.add(field, f"struct {struct!r} of variant {variant!r} does not start with "
                     "a 64-bit ktime_ns", "make 'u64 ktime_ns' its first member")  # fmt: skip
    second = members[1] if len(members) > 1 else {}
    if (second.get("name"), second.get("offset"), second.get("size")) != ("weight", 8, 8):
        findings.add(field, f"struct {struct!r} of variant {variant!r} does not go on with a 64-bit weight",
                     "make 'u64 weight' its second member, and put in what ef_produce() returns")  # fmt: skip


def _compare_record(
    findings: Findings, field: str, signal: dict[str, Any], variant: str, found: Mapping[str, Any]
) -> None:
    """A record must fit what the loader reads, and the ring that it goes through."""
    members = found.get("structs", {}).get(signal["event"]) or []
    size = -(-max((one["offset"] + one["size"] for one in members), default=0) // 8) * 8
    if size > MAX_RECORD_BYTES:
        findings.add(f"{field}.event", f"struct {signal['event']!r} of variant {variant!r} has {size} bytes; "
                     f"the loader carries records of at most {MAX_RECORD_BYTES}",
                     "make the record smaller")  # fmt: skip
    source = {str(built["name"]): built for built in found["maps"]}.get(signal["map"]) or {}
    if source.get("type") == "ringbuf" and size + RING_HEADER_BYTES > int(source["max_entries"]):
        findings.add(f"{field}.map", f"{signal['map']!r} of variant {variant!r} has {source['max_entries']} bytes, "
                     f"fewer than one record and its header ({size + RING_HEADER_BYTES})",
                     "make the ring larger, or the record smaller")  # fmt: skip


def _compare_fairness(
    findings: Findings,
    field: str,
    contract: dict[str, Any],
    signal: dict[str, Any],
    variant: str,
    found: Mapping[str, Any],
) -> None:
    """Contract and object agree on fairness: the loader believes the contract."""
    maps = {str(built["name"]): built for built in found["maps"]}
    field += ".fairness"
    if "fairness" not in signal:
        if set(FAIR_MAPS) & set(maps) and not is_third_party(contract):
            findings.add(field, f"is missing, but variant {variant!r} is fair to its sources",
                         "add 'fairness: [uid, cgroup]': without it the loader sets no rate")  # fmt: skip
        return
    remedy = "define EF_FAIR before ef.h is included, and call ef_produce_fairly()"
    sources = maps.get(FAIR_MAPS[0])
    shape = FAIR_SOURCES._replace(max_entries=sources["max_entries"] if sources else 0)
    _compare_shape(findings, field, FAIR_MAPS[0], sources, shape, variant, remedy)
    _compare_shape(findings, field, FAIR_MAPS[1], maps.get(FAIR_MAPS[1]), FAIR_ALL, variant, remedy)


def _line_bytes(members: list[dict[str, Any]]) -> int:
    """Bytes of a record's line at most: each byte of a text may be escaped, to six characters."""
    of_kind = {"chars": 6, "bytes": 2}
    texts = sum(of_kind.get(str(member["kind"]), 0) * int(member["size"]) for member in members)
    return LINE_BYTES + texts + sum(len(str(member["name"])) + 26 for member in members)


def _compare_retention(
    findings: Findings,
    field: str,
    contract: dict[str, Any],
    signal: dict[str, Any],
    variant: str,
    found: Mapping[str, Any],
) -> None:
    """A host keeps what fits on it: a promise beyond that belongs to the log shipper."""
    members = found.get("structs", {}).get(signal["event"])
    if signal["retention"] != "host" or members is None:
        return
    rate, days = contract["budget"]["event_rate_per_second"], signal["retention_days"]
    need = _line_bytes(members) * rate * days * 86400
    if need > HOST_EVENT_BYTES:
        findings.add(f"{field}.retention", f"is 'host' for {days} days of {rate} events a second, which are up to "
                     f"{need} bytes of variant {variant!r}; a host keeps {HOST_EVENT_BYTES}",
                     "set 'shipper', or lower retention_days or event_rate_per_second")  # fmt: skip


def _compare_backpressure(
    findings: Findings, field: str, signal: dict[str, Any], variant: str, found: Mapping[str, Any]
) -> None:
    """Sampling needs ef_config; what records are told together by needs its fields."""
    if signal["backpressure"] == "sample" and "ef_config" not in {str(built["name"]) for built in found["maps"]}:
        findings.add(f"{field}.backpressure", f"is 'sample', but variant {variant!r} holds no ef_config by which "
                     "it could sample", "set 'drop' or 'aggregate'")  # fmt: skip
    members = {str(member["name"]): member for member in found.get("structs", {}).get(signal["event"]) or ()}
    by = signal.get("aggregate_by", [])
    if "weight" in by:
        findings.add(f"{field}.aggregate_by", "names 'weight', which each line of a group has for all of it",
                     "remove it")  # fmt: skip
    for name in by if members else ():
        if name not in members:
            findings.add(f"{field}.aggregate_by", f"struct {signal['event']!r} of variant {variant!r} has no field "
                         f"{name!r}", did_you_mean(name, members))  # fmt: skip
    size = sum(int(members[name]["size"]) for name in by if name in members)
    if size > MAX_AGGREGATE_BYTES:
        findings.add(f"{field}.aggregate_by", f"is {size} bytes in variant {variant!r}",
                     f"name fields of at most {MAX_AGGREGATE_BYTES} bytes together")  # fmt: skip


def _compare_counters(
    findings: Findings,
    field: str,
    signal: dict[str, Any],
    source: Mapping[str, Any],
    variant: str,
    found: Mapping[str, Any],
) -> None:
    if source["value_size"] not in (8, 16):
        findings.add(f"{field}.map", f"{signal['map']!r} of variant {variant!r} has values of "
                     f"{source['value_size']} bytes", "make the value a struct ef_sum, or one u64")  # fmt: skip
    if "key" not in signal:
        return
    members = _members(findings, f"{field}.key", signal["key"], variant, found)
    if members is None:
        return
    end = max((member["offset"] + member["size"] for member in members), default=0)
    if not end <= source["key_size"] < end + 8:
        findings.add(f"{field}.key", f"struct {signal['key']!r} of variant {variant!r} has {end} bytes, the keys of "
                     f"{signal['map']!r} {source['key_size']}", "name the struct that is the map's key")  # fmt: skip
    _compare_labels(findings, f"{field}.key", signal["key"], members, variant)


def _compare_labels(findings: Findings, field: str, struct: str, members: list[dict[str, Any]], variant: str) -> None:
    labels = [member for member in members if not str(member["name"]).startswith(("_", "pad"))]
    if not 1 <= len(labels) <= MAX_LABELS:
        findings.add(field, f"struct {struct!r} of variant {variant!r} gives {len(labels)} labels",
                     f"give it 1 to {MAX_LABELS} fields")  # fmt: skip
    for member in labels:
        if member.get("kind") == "bytes":
            findings.add(field, f"field {member['name']!r} of struct {struct!r} is neither a number nor text",
                         "make it an integer or a char array, or begin its name with '_'")  # fmt: skip


# Memory


def _compare_memory(findings: Findings, contract: dict[str, Any], inspected: Inspected) -> None:
    """A budget that one CPU already exceeds can hold on no host."""
    budget = contract["budget"]["map_memory_bytes"]
    for variant in sorted(inspected):
        least = sum(least_bytes(built) for built in inspected[variant]["maps"])
        if least > budget:
            findings.add("budget.map_memory_bytes", f"is {budget}, but the maps of variant {variant!r} hold "
                         f"{least} bytes on one CPU already", "raise it or make the maps smaller")  # fmt: skip


def least_bytes(built: Mapping[str, Any]) -> int:
    """The least memory of a full map on a 64-bit kernel with one CPU, in bytes."""
    kind, entries = str(built["type"]), int(built["max_entries"])
    key, value = (-(-int(built[size]) // 8) * 8 for size in ("key_size", "value_size"))
    if kind in ("ringbuf", "user_ringbuf"):
        return entries
    if kind.endswith("hash"):
        return (HASH_ENTRY_OVERHEAD + key + value) * entries
    return value * entries
