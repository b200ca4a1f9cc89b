# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of a feature's contract by itself; contract_objects holds it against what was compiled. Pure."""

from __future__ import annotations

import datetime
import difflib
import re
from typing import Any, Callable, Collection, Optional

from ansible_collections.ebpf.fleet.plugins.module_utils.bpfnames import HELPERS
from ansible_collections.ebpf.fleet.plugins.module_utils.errors import FleetError, did_you_mean

SCHEMA = "ebpf.fleet/contract/v1"
CODE = "EF_CONTRACT_MALFORMED"
MAX_SERIES = 16384
MAX_AGGREGATE_FIELDS = 8
FAIRNESS = ["uid", "cgroup"]
FAIR_MAPS = ("ef_fair", "ef_fair_all")
# Below this a window of the programs (268 ms) has too few places to share them.
MIN_FAIR_RATE = 100
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
SIGNAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
KERNEL_NAME = re.compile(r"ef_[a-z0-9_]{1,12}\Z")
STRUCT_NAME = re.compile(r"ef_[a-z0-9_]{1,60}\Z")
FREE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
FREE_MAP_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]{0,127}\Z")
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
COUNTER_TYPES = ("hash", "lru_hash", "percpu_hash", "array", "percpu_array")
SIGNAL_MAP_TYPES: dict[str, tuple[str, ...]] = {
    "histogram": ("percpu_array",),
    "events": ("ringbuf", "perf_event_array"),
    "counters": COUNTER_TYPES,
}
PATH_KINDS = {"metrics": ("histogram", "counters"), "events": ("events",), "policy": ("events", "counters")}
KIND_KEYS = {
    "histogram": ("scale",),
    "events": ("event", "perf_map", "aggregate_by", "fairness", "retention"),
    "counters": ("key",),
}
# What a hook makes certain: the program type, and whether the kernel's own BTF is needed to find it.
HOOKS = {
    "tp_btf": ("tracing", True), "fentry": ("tracing", True), "fexit": ("tracing", True), "lsm": ("lsm", True),
    "raw_tp": ("raw_tracepoint", False), "tracepoint": ("tracepoint", False), "kprobe": ("kprobe", False),
    "kretprobe": ("kprobe", False),
}  # fmt: skip
BCC_HOOKS = ("raw_tp", "kprobe", "kretprobe")
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
TRACEPOINT = re.compile(r"[a-z0-9_]+/[a-z0-9_]+\Z")
KERNEL_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,4}\Z")
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


def _names(value: Any) -> str | None:
    return _list(value) or (None if all(isinstance(word, str) for word in value) else "give a list of names")


def _fields(value: Any) -> str | None:
    good = isinstance(value, list) and 1 <= len(value) <= MAX_AGGREGATE_FIELDS
    good = good and all(isinstance(word, str) and FREE_NAME.match(word) for word in value)
    good = good and len(set(value)) == len(value)
    return None if good else f"give a list of 1 to {MAX_AGGREGATE_FIELDS} different fields of the event's struct"


def _fairness(value: Any) -> str | None:
    return None if value == FAIRNESS else "write [uid, cgroup]: sources are told apart by both"


KERNEL_NAME_REMEDY = "use 'ef_' and at most 12 of [a-z0-9_] (the kernel keeps 15 characters)"
TOP: dict[str, Check] = {
    "schema": _choice(SCHEMA),
    "feature": _pattern(NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "summary": _text,
    "owner": _mapping,
    "data_path": _choice("metrics", "events", "policy"),
    "lifetime": _choice("permanent", "temporary"),
    "expires": _date,
    "origin": _choice("third_party"),
    "accounting": _choice("none"),
    "mode": _choice("observe"),
    "cost_order": _integer(0, 1000000),
    "budget": _mapping,
    "signals": _list,
    "maps": _list,
    "variants": _list,
    "bcc": _mapping,
}
OPTIONAL = frozenset(["expires", "origin", "accounting", "mode", "bcc"])
OWNER: dict[str, Check] = {"team": _text, "contact": _text}
BUDGET: dict[str, Check] = {
    "cpu_millicores": _integer(1, 1000),
    "map_memory_bytes": _integer(1, U63_MAX),
    "event_rate_per_second": _integer(0, U63_MAX),
    "drop_ratio_ppm": _integer(0, 1000000),
}
SIGNAL: dict[str, Check] = {
    "name": _pattern(SIGNAL_NAME, "use [a-z][a-z0-9_]*, at most 64 characters"),
    "kind": _choice("histogram", "events", "counters"),
    "help": _text,
    "map": _pattern(KERNEL_NAME, KERNEL_NAME_REMEDY),
    "scale": _choice("nanoseconds", "microseconds", "bytes", "count"),
    "event": _pattern(STRUCT_NAME, "name the event's struct, ef_..."),
    "perf_map": _pattern(KERNEL_NAME, KERNEL_NAME_REMEDY),
    "key": _pattern(STRUCT_NAME, "name the key's struct, ef_..."),
    "consumer": _mapping,
    "retention_days": _integer(1, 36500),
    "sample_every": _integer(1, U32_MAX),
    "backpressure": _choice("drop", "sample", "aggregate"),
    "aggregate_by": _fields,
    "fairness": _fairness,
    "retention": _choice("host", "shipper"),
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
    "variants": _names,
}
VARIANT: dict[str, Check] = {
    "name": _pattern(NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "programs": _list,
    "profile": _choice("full", "reduced"),
    "requires": _list,
}
BCC: dict[str, Check] = {"programs": _list, "requires": _list}
SIGNAL_OPTIONAL = frozenset(key for keys in KIND_KEYS.values() for key in keys)
# Names in objects that others compiled are free.
FREE_NAME_CHECK = _pattern(FREE_NAME, "use the name in the object, a C identifier")
FREE_MAP_CHECK = _pattern(FREE_MAP_NAME, "use the name in the object, as 'ebpf-loader inspect' prints it")
FREE_SIGNAL: dict[str, Check] = {
    **SIGNAL,
    "map": FREE_MAP_CHECK,
    "perf_map": FREE_MAP_CHECK,
    "event": FREE_NAME_CHECK,
    "key": FREE_NAME_CHECK,
}
FREE_MAP: dict[str, Check] = {**MAP, "name": FREE_MAP_CHECK}


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
    _keys(findings, "", doc, TOP, optional=OPTIONAL)
    _keys(findings, "owner", doc.get("owner"), OWNER)
    _keys(findings, "budget", doc.get("budget"), BUDGET)
    if folder is not None and doc.get("feature") != folder:
        remedy = f"name the feature as its folder, {folder!r}"
        findings.add("feature", f"is {_shown(doc.get('feature'))}", remedy)
    _lifetime(findings, doc, today)
    _modes(findings, doc)
    _maps(findings, doc)
    _signals(findings, doc)
    _variants(findings, doc)
    _bcc(findings, doc)
    return findings.errors


def is_third_party(contract: dict[str, Any]) -> bool:
    """Whether the feature's objects were written and compiled by others."""
    return contract.get("origin") == "third_party"


def variant_maps(contract: dict[str, Any], variant: str) -> set[str]:
    """The names of the maps that a variant holds, by the contract."""
    return {
        str(entry.get("name"))
        for entry in _mappings(contract, "maps")
        if not isinstance(entry.get("variants"), list) or variant in entry["variants"]
    }


def _mappings(doc: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The entries of a list that are mappings; what is none was said elsewhere."""
    values = doc.get(key)
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _at(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _keys(findings: Findings, prefix: str, value: Any, spec: dict[str, Check], optional: Collection[str] = ()) -> None:
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
        elif key not in optional:
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


def _modes(findings: Findings, doc: dict[str, Any]) -> None:
    """What the contract says of the object as a whole: whose it is, what it counts, what it may do."""
    if "accounting" in doc and not is_third_party(doc):
        findings.add("accounting", f"is {_shown(doc['accounting'])} without 'origin: third_party'",
                     "remove it: a feature of ours counts what it produces and drops")  # fmt: skip
    path = doc.get("data_path")
    if path == "policy" and "mode" not in doc:
        findings.add("mode", "is missing on the policy path",
                     "write 'mode: observe': no program may deny anything yet")  # fmt: skip
    if path in ("metrics", "events") and "mode" in doc:
        findings.add("mode", f"is given on the {path} path", "remove it or set 'data_path: policy'")


def _maps(findings: Findings, doc: dict[str, Any]) -> None:
    spec = FREE_MAP if is_third_party(doc) else MAP
    variants = {str(variant.get("name")) for variant in _mappings(doc, "variants")}
    for field, entry in _entries(findings, doc, "maps"):
        kind = str(entry.get("type"))
        _keys(findings, field, entry, _sized(spec, kind), optional={"variants"})
        _words(findings, _at(field, "variants"), entry.get("variants"), _choice(*sorted(variants)))
        scope = "per_cpu" if kind in PER_CPU_TYPES else "global"
        if kind in MAP_TYPES and entry.get("scope") in ("per_cpu", "global") and entry["scope"] != scope:
            findings.add(_at(field, "scope"), f"is {entry['scope']!r} for a {kind}", f"set {scope!r}")
        if kind in MAP_TYPES and (entry.get("eviction") == "lru") != (kind in LRU_TYPES):
            findings.add(_at(field, "eviction"), f"is {_shown(entry.get('eviction'))} for a {kind}",
                         "'lru' belongs to the lru map types and only to them")  # fmt: skip


def _sized(spec: dict[str, Check], kind: str) -> dict[str, Check]:
    """A perf buffer with 0 entries has one for each CPU, as libbpf makes it."""
    return {**spec, "max_entries": _integer(0, U32_MAX)} if kind == "perf_event_array" else spec


def _signals(findings: Findings, doc: dict[str, Any]) -> None:
    sampling: set[int] = set()
    kinds: set[str] = set()
    for field, signal in _entries(findings, doc, "signals"):
        _signal(findings, field, signal, doc)
        _signal_maps(findings, field, signal, doc)
        if isinstance(signal.get("sample_every"), int):
            sampling.add(signal["sample_every"])
        if str(signal.get("kind")) in kinds:
            findings.add(_at(field, "kind"), f"{signal['kind']!r} is there twice",
                         "a feature has one signal of each kind; make two features")  # fmt: skip
        kinds.add(str(signal.get("kind")))
    if len(sampling) > 1:
        findings.add("signals", "differ in sample_every", "give all one value: a feature has one ef_config")
    _event_rate(findings, doc)


def _signal(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    kind, path = signal.get("kind"), doc.get("data_path")
    spec = FREE_SIGNAL if is_third_party(doc) else SIGNAL
    _keys(findings, field, signal, spec, optional=SIGNAL_OPTIONAL)
    _keys(findings, _at(field, "consumer"), signal.get("consumer"), CONSUMER)
    if not isinstance(kind, str) or kind not in KIND_KEYS:
        return
    for owner, keys in KIND_KEYS.items():
        for key in keys:
            if owner != kind and key in signal:
                findings.add(_at(field, key), f"is given for kind {kind!r}", "remove it")
    for key in ("scale", "event", "retention"):
        if key in KIND_KEYS[kind] and key not in signal:
            findings.add(_at(field, key), "is missing", f"a signal of kind {kind!r} needs it")
    if isinstance(path, str) and path in PATH_KINDS and kind not in PATH_KINDS[path]:
        fitting = " or ".join(repr(word) for word in PATH_KINDS[path])
        findings.add(_at(field, "kind"), f"is {kind!r} on the {path} path", f"use {fitting}")
    _backpressure(findings, field, signal, doc)
    _fair(findings, field, signal, doc)
    if kind == "counters" and str(signal.get("name")).endswith("_total"):
        findings.add(_at(field, "name"), f"is {signal['name']!r}", "leave '_total' out: the metric's name gets it")


def _backpressure(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    """What a signal does when its reader is behind, and what that needs."""
    kind, policy = signal.get("kind"), signal.get("backpressure")
    if kind in ("histogram", "counters") and policy in ("drop", "sample"):
        findings.add(_at(field, "backpressure"), f"is {policy!r} for kind {kind!r}",
                     "set 'aggregate': what is counted in the kernel waits for no reader")  # fmt: skip
    if kind != "events":
        return
    if policy == "aggregate" and "aggregate_by" not in signal:
        findings.add(_at(field, "aggregate_by"), "is missing",
                     "name the fields by which records are told together, such as [comm, uid]")  # fmt: skip
    if policy in ("drop", "sample") and "aggregate_by" in signal:
        findings.add(_at(field, "aggregate_by"), f"is given with backpressure {policy!r}",
                     "remove it, or set 'backpressure: aggregate'")  # fmt: skip
    if policy in ("sample", "aggregate") and "bcc" in doc:
        findings.add(_at(field, "backpressure"), f"is {policy!r}, and there is a bcc fallback",
                     "set 'drop', the only one that the BCC collector knows, or remove 'bcc'")  # fmt: skip


def _fair(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    """What a signal needs in which no source takes the room of the others."""
    if "fairness" not in signal:
        return
    field = _at(field, "fairness")
    if is_third_party(doc):
        findings.add(field, "is given for an object that others compiled",
                     "remove it: fairness is in programs that include ef.h with EF_FAIR")  # fmt: skip
    budget = doc.get("budget")
    rate = budget.get("event_rate_per_second") if isinstance(budget, dict) else None
    if isinstance(rate, int) and rate < MIN_FAIR_RATE:
        findings.add(field, f"is given with {rate} events a second", f"set event_rate_per_second to {MIN_FAIR_RATE} "
                     "or more: less cannot be shared")  # fmt: skip
    maps = {str(entry.get("name")) for entry in _mappings(doc, "maps")}
    for name in FAIR_MAPS:
        if name not in maps:
            findings.add(field, f"is given, but {name!r} is not in maps", "declare it, as docs/contract.md says")


def _signal_maps(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    """The maps that a signal is read from: declared, of a type that can be read, in every variant."""
    maps = {str(entry.get("name")): entry for entry in _mappings(doc, "maps")}
    for key in ("map", "perf_map"):
        if key in signal and str(signal[key]) not in maps:
            findings.add(_at(field, key), f"{_shown(signal[key])} is not in maps", did_you_mean(signal[key], maps))
    main, perf = (maps.get(str(signal.get(key))) for key in ("map", "perf_map"))
    kind = signal.get("kind")
    if main is not None and isinstance(kind, str) and kind in SIGNAL_MAP_TYPES:
        _signal_map_type(findings, _at(field, "map"), main, SIGNAL_MAP_TYPES[kind], kind)
    if perf is not None:
        _signal_map_type(findings, _at(field, "perf_map"), perf, ("perf_event_array",), "events")
        if main is not None and main.get("type") != "ringbuf":
            findings.add(_at(field, "map"), "is no ring buffer, and there is a perf_map",
                         "name the ring buffer in 'map', or leave 'perf_map' out")  # fmt: skip
    if main is not None and kind == "counters":
        _counters_map(findings, field, signal, main)
    _held_by_variants(findings, field, signal, doc, maps)


def _signal_map_type(findings: Findings, field: str, entry: dict[str, Any], types: tuple[str, ...], kind: str) -> None:
    found = str(entry.get("type"))
    if found in MAP_TYPES and found not in types:
        findings.add(field, f"{entry.get('name')!r} is of type {found!r}",
                     f"{kind} are read from: {', '.join(types)}")  # fmt: skip


def _counters_map(findings: Findings, field: str, signal: dict[str, Any], entry: dict[str, Any]) -> None:
    """Each entry of the map is a time series: bounded, and with the labels that its key gives."""
    is_array = str(entry.get("type")).endswith("array")
    if is_array and "key" in signal:
        findings.add(_at(field, "key"), "is given for an array", "remove it: the label of an array is its index")
    if not is_array and "key" not in signal:
        findings.add(_at(field, "key"), "is missing", f"name the struct that is the key of {entry.get('name')!r}")
    entries = entry.get("max_entries")
    if isinstance(entries, int) and entries > MAX_SERIES:
        findings.add(_at(field, "map"), f"{entry.get('name')!r} has room for {entries} time series",
                     f"set its max_entries to at most {MAX_SERIES}")  # fmt: skip


def _held_by_variants(
    findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any], maps: Collection[str]
) -> None:
    sources = {str(signal[key]) for key in ("map", "perf_map") if key in signal}
    if not sources <= set(maps):
        return
    for variant in _mappings(doc, "variants"):
        if not sources & variant_maps(doc, str(variant.get("name"))):
            findings.add(_at(field, "map"), f"variant {_shown(variant.get('name'))} does not hold "
                         f"{' or '.join(sorted(sources))}", "add the variant to the map's 'variants'")  # fmt: skip


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
    before: list[dict[str, Any]] = []
    for field, variant in _entries(findings, doc, "variants"):
        _keys(findings, field, variant, VARIANT, optional={"profile"})
        name_check = FREE_NAME_CHECK if is_third_party(doc) else _program_remedy
        _words(findings, _at(field, "programs"), variant.get("programs"), name_check)
        _words(findings, _at(field, "requires"), variant.get("requires"), requirement_remedy)
        _fitting(findings, _at(field, "requires"), requirements_of(variant))
        _lsm_path(findings, _at(field, "requires"), requirements_of(variant), doc)
        _reachable(findings, field, variant, before)
        before.append(variant)


def requirements_of(entry: dict[str, Any]) -> list[str]:
    """The requirements of a variant that are of the grammar."""
    values = entry.get("requires")
    return [value for value in values if not requirement_remedy(value)] if isinstance(values, list) else []


def _fitting(findings: Findings, field: str, requires: list[str]) -> None:
    """Requirements that contradict or miss each other."""
    types = {word.partition(":")[2] for word in requires if word.startswith("prog_type:")}
    for word in requires:
        kind, _sep, rest = word.partition(":")
        name = rest.partition(":")[0]
        if kind == "attach" and HOOKS[name][0] not in types:
            findings.add(field, f"has {word!r} without 'prog_type:{HOOKS[name][0]}'", "add it")
        if kind == "attach" and HOOKS[name][1] and "btf:vmlinux" not in requires:
            findings.add(field, f"has {word!r} without 'btf:vmlinux'",
                         f"add it: {name} needs the kernel's own BTF, a bundled one does not do")  # fmt: skip
        if kind == "helper" and name not in types:
            findings.add(field, f"has {word!r}, but no program of type {name!r}",
                         f"use a type of the variant's programs: {', '.join(sorted(types))}")  # fmt: skip
    if "btf:any" in requires and "btf:vmlinux" in requires:
        findings.add(field, "has 'btf:any' and 'btf:vmlinux'", "remove 'btf:any': the other asks for more")


def _lsm_path(findings: Findings, field: str, requires: list[str], doc: dict[str, Any]) -> None:
    words = [word for word in requires if word == "prog_type:lsm" or word.startswith("attach:lsm:")]
    if words and doc.get("data_path") in ("metrics", "events"):
        findings.add(field, f"has {words[0]!r} on the {doc['data_path']} path",
                     "an LSM program belongs to 'data_path: policy' with 'mode: observe'")  # fmt: skip


def _reachable(findings: Findings, field: str, variant: dict[str, Any], before: list[dict[str, Any]]) -> None:
    """A variant that asks for all that an earlier one asks for is never the first that works."""
    requires = requirements_of(variant)
    for earlier in before:
        wanted = requirements_of(earlier)
        if wanted and all(_implied(word, requires) for word in wanted):
            findings.add(_at(field, "requires"), f"holds all that {earlier.get('name')!r} requires, which comes before "
                         f"it: {variant.get('name')!r} can never be chosen",
                         f"put it before {earlier.get('name')!r}, or say what that one needs beyond it")  # fmt: skip
            return


def _implied(word: str, requires: Collection[str]) -> bool:
    """Whether a host that meets ``requires`` meets ``word`` too."""
    if word in requires or (word == "btf:any" and "btf:vmlinux" in requires):
        return True
    kind, _sep, version = word.partition(":")
    newer = [other.partition(":")[2] for other in requires if other.startswith("kernel:")]
    return kind == "kernel" and any(_version(other) >= _version(version) for other in newer)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _bcc(findings: Findings, doc: dict[str, Any]) -> None:
    fallback = doc.get("bcc")
    if not isinstance(fallback, dict):
        return
    _keys(findings, "bcc", fallback, BCC)
    _words(findings, "bcc.programs", fallback.get("programs"), _program_remedy)
    _words(findings, "bcc.requires", fallback.get("requires"), requirement_remedy)
    _fitting(findings, "bcc.requires", [word for word in requirements_of(fallback) if not word.startswith("btf:")])
    _lsm_path(findings, "bcc.requires", requirements_of(fallback), doc)
    for word in requirements_of(fallback):
        if word.startswith("btf:"):
            findings.add("bcc.requires", f"has {word!r}", "remove it: BCC compiles with the kernel's headers")
    _bcc_hooks(findings, fallback)


def _bcc_hooks(findings: Findings, fallback: dict[str, Any]) -> None:
    """BCC's sources name no hooks: the n-th program belongs to the n-th ``attach:``."""
    hooks = [word.split(":")[1] for word in requirements_of(fallback) if word.startswith("attach:")]
    programs = fallback.get("programs")
    for hook in hooks:
        if hook not in BCC_HOOKS:
            findings.add(
                "bcc.requires", f"has 'attach:{hook}:…'", f"the collector attaches {', '.join(BCC_HOOKS)} only"
            )
    if isinstance(programs, list) and len(programs) != len(hooks):
        findings.add("bcc.requires", f"has {len(hooks)} hooks for {len(programs)} programs",
                     "give one attach: for each program, in their order")  # fmt: skip


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
        return None if rest in ("vmlinux", "any") else "write 'btf:vmlinux' or 'btf:any'"
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
    if helper in HELPERS:
        return None
    near = difflib.get_close_matches(helper[4:] if helper.startswith("bpf_") else helper, HELPERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "names are those of bpf-helpers(7)"
    return f"write 'helper:PROGTYPE:NAME' without 'bpf_'; {hint}"


def _attach_remedy(rest: str) -> str | None:
    hook, _sep, target = rest.partition(":")
    if hook not in HOOKS:
        return _one_of(hook, HOOKS)
    if hook == "tracepoint":
        return None if TRACEPOINT.match(target) else "write 'attach:tracepoint:GROUP/NAME'"
    return None if SYMBOL.match(target) else f"write 'attach:{hook}:NAME'"


def default_sample_every(contract: dict[str, Any]) -> int:
    """The sampling that the contract asks for; all signals of a feature share one."""
    return int(contract["signals"][0]["sample_every"])
