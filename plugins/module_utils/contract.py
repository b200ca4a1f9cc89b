# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of a feature's contract, alone and against what was compiled. Pure."""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable, Collection, Optional

from ansible_collections.ebpf.fleet.plugins.module_utils.errors import FleetError, did_you_mean

SCHEMA = "ebpf.fleet/contract/v1"
CODE = "EF_CONTRACT_MALFORMED"
MAX_KERNEL_NAME = 15
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
SIGNAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
KERNEL_NAME = re.compile(r"ef_[a-z0-9_]{1,12}\Z")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
U32_MAX = 2**32 - 1
U63_MAX = 2**63 - 1

# fmt: off
PROGRAM_TYPES = frozenset([
    "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event",
    "cgroup_skb", "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb",
    "cgroup_device", "sk_msg", "raw_tracepoint", "cgroup_sock_addr", "lwt_seg6local", "lirc_mode2",
    "sk_reuseport", "flow_dissector", "cgroup_sysctl", "raw_tracepoint_writable", "cgroup_sockopt",
    "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
])
MAP_TYPES = frozenset([
    "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace",
    "cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps",
    "devmap", "sockmap", "cpumap", "xskmap", "sockhash", "cgroup_storage", "reuseport_sockarray",
    "percpu_cgroup_storage", "queue", "stack", "sk_storage", "devmap_hash", "struct_ops", "ringbuf",
    "inode_storage", "task_storage", "bloom_filter", "user_ringbuf", "cgrp_storage", "arena",
])
# fmt: on
PER_CPU_TYPES = frozenset(["percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage"])
LRU_TYPES = frozenset(["lru_hash", "lru_percpu_hash"])
PLAIN_HOOKS = ("tp_btf", "raw_tp", "kprobe", "fentry", "lsm")
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
TRACEPOINT = re.compile(r"[a-z0-9_]+/[a-z0-9_]+\Z")
KERNEL_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,4}\Z")
SECTION_HOOKS = {
    "tp_btf": "tp_btf", "raw_tp": "raw_tp", "raw_tracepoint": "raw_tp", "tracepoint": "tracepoint",
    "tp": "tracepoint", "kprobe": "kprobe", "fentry": "fentry", "lsm": "lsm",
}  # fmt: skip

Check = Callable[[Any], Optional[str]]


class Findings:
    """Everything wrong with one document, in order; each names file, field and remedy."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[FleetError] = []

    def add(self, field: str, problem: str, remedy: str) -> None:
        self.errors.append(FleetError(CODE, f"{self.file}: {field}: {problem}; {remedy}", self.file))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any) -> str | None:
    good = isinstance(value, str) and value.strip() and value.isprintable()
    return None if good else "give one line of text"


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"give an integer from {low} to {high}"

    return check


def _choice(*words: str) -> Check:
    def check(value: Any) -> str | None:
        return _one_of(value, words)

    return check


def _pattern(pattern: re.Pattern[str], remedy: str) -> Check:
    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and pattern.match(value) else remedy

    return check


def _date(value: Any) -> str | None:
    remedy = "give a UTC date as YYYY-MM-DD"
    if not isinstance(value, str) or not DATE.match(value):
        return remedy
    try:
        datetime.date(int(value[:4]), int(value[5:7]), int(value[8:]))
    except ValueError:
        return remedy
    return None


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) and value else "give a list with at least one entry"


def _mapping(value: Any) -> str | None:
    return None if isinstance(value, dict) else "give a mapping"


KERNEL_NAME_REMEDY = "use 'ef_' and at most 12 of [a-z0-9_] (the kernel keeps 15 characters)"
TOP: dict[str, Check] = {
    "schema": _choice(SCHEMA),
    "feature": _pattern(NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "summary": _text,
    "owner": _mapping,
    "data_path": _choice("metrics", "events", "policy"),
    "lifetime": _choice("permanent", "temporary"),
    "expires": _date,
    "cost_order": _integer(0, 1000000),
    "budget": _mapping,
    "signals": _list,
    "maps": _list,
    "variants": _list,
}
OWNER: dict[str, Check] = {"team": _text, "contact": _text}
BUDGET: dict[str, Check] = {
    "cpu_millicores": _integer(1, 1000),
    "map_memory_bytes": _integer(1, U63_MAX),
    "event_rate_per_second": _integer(0, U63_MAX),
    "drop_ratio_ppm": _integer(0, 1000000),
}
SIGNAL: dict[str, Check] = {
    "name": _pattern(SIGNAL_NAME, "use [a-z][a-z0-9_]*, at most 64 characters"),
    "kind": _choice("histogram", "events"),
    "help": _text,
    "map": _pattern(KERNEL_NAME, KERNEL_NAME_REMEDY),
    "scale": _choice("nanoseconds", "microseconds", "bytes", "count"),
    "event": _pattern(re.compile(r"ef_[a-z0-9_]{1,60}\Z"), "name the event's struct, ef_..."),
    "consumer": _mapping,
    "retention_days": _integer(1, 36500),
    "sample_every": _integer(1, U32_MAX),
    "backpressure": _choice("drop", "sample", "aggregate"),
}
CONSUMER: dict[str, Check] = {"alert": _text, "runbook": _text}
MAP: dict[str, Check] = {
    "name": _pattern(KERNEL_NAME, KERNEL_NAME_REMEDY),
    "type": _choice(*sorted(MAP_TYPES)),
    "max_entries": _integer(1, U32_MAX),
    "scope": _choice("per_cpu", "global"),
    "eviction": _choice("none", "lru", "manual"),
    "cardinality": _text,
    "why": _text,
}
VARIANT: dict[str, Check] = {
    "name": _pattern(NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "programs": _list,
    "requires": _list,
}


def validate_contract(doc: Any, file: str, folder: str | None = None, today: str | None = None) -> list[FleetError]:
    """Every error of a contract, an empty list for a good one.

    ``folder`` is the name that ``feature`` must have, ``today`` a UTC date
    (``YYYY-MM-DD``) at which the contract must not have expired; None leaves
    that check out.
    """
    findings = Findings(file)
    if not isinstance(doc, dict):
        findings.add("document", "is not a mapping", "begin with 'schema: " + SCHEMA + "'")
        return findings.errors
    _keys(findings, "", doc, TOP, optional={"expires"})
    _keys(findings, "owner", doc.get("owner"), OWNER)
    _keys(findings, "budget", doc.get("budget"), BUDGET)
    if folder is not None and doc.get("feature") != folder:
        remedy = f"name the feature as its folder, {folder!r}"
        findings.add("feature", f"is {_shown(doc.get('feature'))}", remedy)
    _lifetime(findings, doc, today)
    _maps(findings, doc)
    _signals(findings, doc)
    _variants(findings, doc)
    return findings.errors


def _at(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _keys(
    findings: Findings, prefix: str, value: Any, spec: dict[str, Check], optional: set[str] | None = None
) -> None:
    """Check presence, spelling and value of every key; a value that is no mapping was said elsewhere."""
    if not isinstance(value, dict):
        return
    for key in value:
        if key not in spec:
            findings.add(_at(prefix, key), "is not a key of the contract", did_you_mean(key, spec))
    for key, check in spec.items():
        if key in value:
            remedy = check(value[key])
            if remedy:
                findings.add(_at(prefix, key), f"is {_shown(value[key])}", remedy)
        elif key not in (optional or set()):
            findings.add(_at(prefix, key), "is missing", "add it")


def _entries(findings: Findings, doc: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """The mappings of a list with their field names; anything else and a repeated name is said."""
    values = doc.get(key)
    found: list[tuple[str, dict[str, Any]]] = []
    names: set[str] = set()
    for index, value in enumerate(values if isinstance(values, list) else []):
        field = f"{key}[{index}]"
        if not isinstance(value, dict):
            findings.add(field, f"is {_shown(value)}", "give a mapping")
            continue
        name = value.get("name")
        if isinstance(name, str) and name in names:
            findings.add(_at(field, "name"), f"{name!r} is there twice", "give each a name of its own")
        names.add(str(name))
        found.append((field, value))
    return found


def _lifetime(findings: Findings, doc: dict[str, Any], today: str | None) -> None:
    lifetime, expires = doc.get("lifetime"), doc.get("expires")
    if lifetime == "temporary" and "expires" not in doc:
        findings.add("expires", "is missing", "a temporary feature needs the day on which it stops to run")
    if lifetime == "permanent" and "expires" in doc:
        findings.add("expires", "is given for a permanent feature", "remove it or set 'lifetime: temporary'")
    if today and _date(expires) is None and str(expires) <= today:
        findings.add("expires", f"{expires} has come", "extend it or leave the feature out")


def _maps(findings: Findings, doc: dict[str, Any]) -> None:
    for field, entry in _entries(findings, doc, "maps"):
        _keys(findings, field, entry, MAP)
        kind = str(entry.get("type"))
        scope = "per_cpu" if kind in PER_CPU_TYPES else "global"
        if kind in MAP_TYPES and entry.get("scope") in ("per_cpu", "global") and entry["scope"] != scope:
            findings.add(_at(field, "scope"), f"is {entry['scope']!r} for a {kind}", f"set {scope!r}")
        if kind in MAP_TYPES and (entry.get("eviction") == "lru") != (kind in LRU_TYPES):
            findings.add(_at(field, "eviction"), f"is {_shown(entry.get('eviction'))} for a {kind}",
                         "'lru' belongs to the lru map types and only to them")  # fmt: skip


def _map_names(doc: dict[str, Any]) -> set[str]:
    entries = doc.get("maps")
    if not isinstance(entries, list):
        return set()
    return {str(entry.get("name")) for entry in entries if isinstance(entry, dict)}


def _signals(findings: Findings, doc: dict[str, Any]) -> None:
    maps = _map_names(doc)
    sampling: set[int] = set()
    for field, signal in _entries(findings, doc, "signals"):
        _signal(findings, field, signal, str(doc.get("data_path")))
        if str(signal.get("map")) not in maps:
            findings.add(_at(field, "map"), f"{_shown(signal.get('map'))} is not in maps",
                         did_you_mean(signal.get("map"), maps))  # fmt: skip
        if isinstance(signal.get("sample_every"), int):
            sampling.add(signal["sample_every"])
    if len(sampling) > 1:
        findings.add("signals", "differ in sample_every", "give all one value: a feature has one ef_config")
    _event_rate(findings, doc)


def _signal(findings: Findings, field: str, signal: dict[str, Any], data_path: str) -> None:
    kind = signal.get("kind")
    _keys(findings, field, signal, SIGNAL, optional={"scale", "event"})
    _keys(findings, _at(field, "consumer"), signal.get("consumer"), CONSUMER)
    for key, owner in (("scale", "histogram"), ("event", "events")):
        if kind == owner and key not in signal:
            findings.add(_at(field, key), "is missing", f"a signal of kind {owner!r} needs it")
        if kind in ("histogram", "events") and kind != owner and key in signal:
            findings.add(_at(field, key), f"is given for kind {kind!r}", "remove it")
    fitting = {"metrics": "histogram", "events": "events"}.get(data_path)
    if fitting and kind in ("histogram", "events") and kind != fitting:
        findings.add(_at(field, "kind"), f"is {kind!r} on the {data_path} path", f"use {fitting!r}")


def _event_rate(findings: Findings, doc: dict[str, Any]) -> None:
    budget = doc.get("budget")
    rate = budget.get("event_rate_per_second") if isinstance(budget, dict) else None
    if not isinstance(rate, int):
        return
    field = "budget.event_rate_per_second"
    if doc.get("data_path") == "metrics" and rate != 0:
        findings.add(field, f"is {rate} on the metrics path", "set 0")
    if doc.get("data_path") in ("events", "policy") and rate == 0:
        findings.add(field, f"is 0 on the {doc['data_path']} path", "give the rate that it may reach, 1 or more")


def _variants(findings: Findings, doc: dict[str, Any]) -> None:
    for field, variant in _entries(findings, doc, "variants"):
        _keys(findings, field, variant, VARIANT)
        _words(findings, _at(field, "programs"), variant.get("programs"), _program_remedy)
        _words(findings, _at(field, "requires"), variant.get("requires"), requirement_remedy)


def _words(findings: Findings, field: str, values: Any, check: Check) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values if isinstance(values, list) else []):
        remedy = check(value)
        if remedy:
            findings.add(f"{field}[{index}]", f"is {_shown(value)}", remedy)
        if str(value) in seen:
            findings.add(f"{field}[{index}]", f"{value!r} is there twice", "remove one")
        seen.add(str(value))


_program_remedy = _pattern(KERNEL_NAME, KERNEL_NAME_REMEDY)


def requirement_remedy(requirement: Any) -> str | None:
    """None for a requirement of the grammar, else what to write instead."""
    if not isinstance(requirement, str):
        return "give a requirement as text, such as 'btf:vmlinux'"
    kind, _sep, rest = requirement.partition(":")
    if kind == "btf":
        return None if rest == "vmlinux" else "write 'btf:vmlinux'"
    if kind == "kernel":
        return None if KERNEL_VERSION.match(rest) else "write 'kernel:MAJOR.MINOR'"
    if kind == "prog_type":
        return _one_of(rest, PROGRAM_TYPES)
    if kind == "map_type":
        return _one_of(rest, MAP_TYPES)
    if kind == "helper":
        return _helper_remedy(rest)
    if kind == "attach":
        return _attach_remedy(rest)
    return _one_of(kind, ("btf", "kernel", "prog_type", "map_type", "helper", "attach"))


def _one_of(word: object, known: Collection[str]) -> str | None:
    """None for a known word, else what to write instead."""
    remedy: str | None = None if word in known else did_you_mean(word, known)
    return remedy


def _helper_remedy(rest: str) -> str | None:
    program_type, _sep, helper = rest.partition(":")
    if program_type not in PROGRAM_TYPES:
        return _one_of(program_type, PROGRAM_TYPES)
    return None if SYMBOL.match(helper) else "write 'helper:PROGTYPE:NAME'"


def _attach_remedy(rest: str) -> str | None:
    hook, _sep, target = rest.partition(":")
    if hook == "tracepoint":
        return None if TRACEPOINT.match(target) else "write 'attach:tracepoint:GROUP/NAME'"
    if hook not in PLAIN_HOOKS:
        return _one_of(hook, (*PLAIN_HOOKS, "tracepoint"))
    return None if SYMBOL.match(target) else f"write 'attach:{hook}:NAME'"


def default_sample_every(contract: dict[str, Any]) -> int:
    """The sampling that the contract asks for; all signals of a feature share one."""
    return int(contract["signals"][0]["sample_every"])


def compare_with_objects(contract: dict[str, Any], inspected: dict[str, dict[str, Any]], file: str) -> list[FleetError]:
    """Where a valid contract and its compiled objects differ.

    ``inspected`` maps each variant to what ``ebpf-loader inspect`` printed of its object.
    """
    findings = Findings(file)
    for index, variant in enumerate(contract["variants"]):
        found = inspected.get(variant["name"])
        if found is None:
            remedy = f"build it with -DEF_VARIANT_{variant['name'].upper()}"
            findings.add(f"variants[{index}]", f"{variant['name']!r} has no object", remedy)
            continue
        _compare_programs(findings, f"variants[{index}]", variant, found)
        _compare_license(findings, f"variants[{index}]", variant, found)
    _compare_maps(findings, contract, inspected)
    _compare_events(findings, contract, inspected)
    _compare_memory(findings, contract, inspected)
    return findings.errors


def _compare_programs(findings: Findings, field: str, variant: dict[str, Any], found: dict[str, Any]) -> None:
    wanted, built = set(variant["programs"]), {program["name"] for program in found["programs"]}
    for name in sorted(wanted - built):
        findings.add(field + ".programs", f"{name!r} is not in the object", did_you_mean(name, built))
    for name in sorted(built - wanted):
        findings.add(field + ".programs", f"the object also holds {name!r}", "add it or compile it out")
    for program in found["programs"]:
        for requirement in needed_by_program(program):
            if requirement not in variant["requires"]:
                findings.add(field + ".requires", f"lacks {requirement!r}, which {program['name']} needs",
                             "add it")  # fmt: skip


def needed_by_program(program: dict[str, Any]) -> list[str]:
    """The requirements that a program's type and section make certain."""
    needed = ["prog_type:" + str(program["type"])]
    prefix, _sep, target = str(program["section"]).lstrip("?").partition("/")
    hook = SECTION_HOOKS.get(prefix)
    if hook and target:
        needed.append(f"attach:{hook}:{target}")
    return needed


def _compare_license(findings: Findings, field: str, variant: dict[str, Any], found: dict[str, Any]) -> None:
    if "GPL" not in str(found.get("license")):
        findings.add(field, f"the object of {variant['name']!r} has licence {_shown(found.get('license'))}",
                     "declare a GPL licence: the tracing helpers need it")  # fmt: skip


def _compare_maps(findings: Findings, contract: dict[str, Any], inspected: dict[str, dict[str, Any]]) -> None:
    declared = {entry["name"]: (index, entry) for index, entry in enumerate(contract["maps"])}
    used: set[str] = set()
    for variant in sorted(inspected):
        for built in inspected[variant]["maps"]:
            used.add(built["name"])
            if built["name"] not in declared:
                findings.add("maps", f"{built['name']!r} of variant {variant!r} is not declared",
                             "declare it with its bound, or take it out of the program")  # fmt: skip
                continue
            index, entry = declared[built["name"]]
            _compare_map(findings, f"maps[{index}]", entry, built, variant)
    for name in sorted(set(declared) - used):
        findings.add(f"maps[{declared[name][0]}]", f"{name!r} is in no object", did_you_mean(name, used))


def _compare_map(findings: Findings, field: str, entry: dict[str, Any], built: dict[str, Any], variant: str) -> None:
    for key in ("type", "max_entries"):
        if entry[key] != built[key]:
            findings.add(_at(field, key), f"{entry['name']!r} has {_shown(entry[key])} here and "
                         f"{_shown(built[key])} in variant {variant!r}", "make them equal")  # fmt: skip


def _compare_events(findings: Findings, contract: dict[str, Any], inspected: dict[str, dict[str, Any]]) -> None:
    for index, signal in enumerate(contract["signals"]):
        if signal["kind"] != "events":
            continue
        for variant in sorted(inspected):
            structs = inspected[variant].get("structs", {})
            members = structs.get(signal["event"])
            field = f"signals[{index}].event"
            if members is None:
                findings.add(field, f"struct {signal['event']!r} is not in the BTF of variant {variant!r}",
                             did_you_mean(signal["event"], structs))  # fmt: skip
            elif not _starts_with_time(members):
                findings.add(field, f"struct {signal['event']!r} of variant {variant!r} does not start with "
                             "a 64-bit ktime_ns", "make 'u64 ktime_ns' its first member")  # fmt: skip


def _starts_with_time(members: list[dict[str, Any]]) -> bool:
    first = members[0] if members else {}
    return (first.get("name"), first.get("offset"), first.get("size")) == ("ktime_ns", 0, 8)


def _compare_memory(findings: Findings, contract: dict[str, Any], inspected: dict[str, dict[str, Any]]) -> None:
    """A budget that one CPU already exceeds can hold on no host."""
    budget = contract["budget"]["map_memory_bytes"]
    for variant in sorted(inspected):
        least = sum(_least_bytes(built) for built in inspected[variant]["maps"])
        if least > budget:
            findings.add("budget.map_memory_bytes", f"is {budget}, but the maps of variant {variant!r} hold "
                         f"{least} bytes on one CPU already", "raise it or make the maps smaller")  # fmt: skip


def _least_bytes(built: dict[str, Any]) -> int:
    if built["type"] in ("ringbuf", "user_ringbuf"):
        return int(built["max_entries"])
    return (int(built["key_size"]) + int(built["value_size"])) * int(built["max_entries"])
