# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a feature's contract by itself; objects.py holds it against what was compiled. Pure.

The rules of variants are in variants.py, what they may require in requirements.py, what all are written with in
rules.py.
"""

from __future__ import annotations

import re
from typing import Any, Collection

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import rules
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import MAP_TYPES
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import Check, Findings
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.variants import check_bcc, check_variants

SCHEMA = "ebpf.fleet/contract/v1"
MAX_SERIES = 16384
MAX_AGGREGATE_FIELDS = 8
FAIRNESS = ["uid", "cgroup"]
FAIR_MAPS = ("ef_fair", "ef_fair_all")
# Below this a window of the programs (268 ms) has too few places to share them.
MIN_FAIR_RATE = 100
SIGNAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
STRUCT_NAME = re.compile(r"ef_[a-z0-9_]{1,60}\Z")
FREE_MAP_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]{0,127}\Z")
U63_MAX = 2**63 - 1
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


def _fields(value: Any) -> str | None:
    good = isinstance(value, list) and 1 <= len(value) <= MAX_AGGREGATE_FIELDS
    good = good and all(isinstance(word, str) and rules.FREE_NAME.match(word) for word in value)
    good = good and len(set(value)) == len(value)
    return None if good else f"give a list of 1 to {MAX_AGGREGATE_FIELDS} different fields of the event's struct"


def _fairness(value: Any) -> str | None:
    return None if value == FAIRNESS else "write [uid, cgroup]: sources are told apart by both"


TOP: dict[str, Check] = {
    "schema": rules.choice(SCHEMA),
    "feature": rules.pattern_of(rules.NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "summary": rules.one_line,
    "owner": rules.mapping_remedy,
    "data_path": rules.choice("metrics", "events", "policy"),
    "lifetime": rules.choice("permanent", "temporary"),
    "expires": rules.date_remedy,
    "origin": rules.choice("third_party"),
    "accounting": rules.choice("none"),
    "mode": rules.choice("observe"),
    "cost_order": rules.integer(0, 1000000),
    "budget": rules.mapping_remedy,
    "signals": rules.list_remedy,
    "maps": rules.list_remedy,
    "variants": rules.list_remedy,
    "bcc": rules.mapping_remedy,
}
OPTIONAL = frozenset(["expires", "origin", "accounting", "mode", "bcc"])
OWNER: dict[str, Check] = {"team": rules.one_line, "contact": rules.one_line}
BUDGET: dict[str, Check] = {
    "cpu_millicores": rules.integer(1, 1000),
    "map_memory_bytes": rules.integer(1, U63_MAX),
    "event_rate_per_second": rules.integer(0, U63_MAX),
    "drop_ratio_ppm": rules.integer(0, 1000000),
}
SIGNAL: dict[str, Check] = {
    "name": rules.pattern_of(SIGNAL_NAME, "use [a-z][a-z0-9_]*, at most 64 characters"),
    "kind": rules.choice("histogram", "events", "counters"),
    "help": rules.one_line,
    "map": rules.pattern_of(rules.KERNEL_NAME, rules.KERNEL_NAME_REMEDY),
    "scale": rules.choice("nanoseconds", "microseconds", "bytes", "count"),
    "event": rules.pattern_of(STRUCT_NAME, "name the event's struct, ef_..."),
    "perf_map": rules.pattern_of(rules.KERNEL_NAME, rules.KERNEL_NAME_REMEDY),
    "key": rules.pattern_of(STRUCT_NAME, "name the key's struct, ef_..."),
    "consumer": rules.mapping_remedy,
    "retention_days": rules.integer(1, 36500),
    "sample_every": rules.integer(1, rules.U32_MAX),
    "backpressure": rules.choice("drop", "sample", "aggregate"),
    "aggregate_by": _fields,
    "fairness": _fairness,
    "retention": rules.choice("host", "shipper"),
}
CONSUMER: dict[str, Check] = {"alert": rules.one_line, "runbook": rules.one_line}
MAP: dict[str, Check] = {
    "name": rules.pattern_of(rules.KERNEL_NAME, rules.KERNEL_NAME_REMEDY),
    "type": rules.choice(*sorted(MAP_TYPES)),
    "max_entries": rules.integer(1, rules.U32_MAX),
    "scope": rules.choice("per_cpu", "global"),
    "eviction": rules.choice("none", "lru", "manual"),
    "cardinality": rules.one_line,
    "why": rules.one_line,
    "variants": rules.names_remedy,
}
SIGNAL_OPTIONAL = frozenset(key for keys in KIND_KEYS.values() for key in keys)
FREE_MAP_CHECK = rules.pattern_of(FREE_MAP_NAME, "use the name in the object, as 'ebpf-loader inspect' prints it")
FREE_SIGNAL: dict[str, Check] = {
    **SIGNAL,
    "map": FREE_MAP_CHECK,
    "perf_map": FREE_MAP_CHECK,
    "event": rules.FREE_NAME_CHECK,
    "key": rules.FREE_NAME_CHECK,
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
        return list(findings.errors)
    rules.check_keys(findings, "", doc, TOP, optional=OPTIONAL)
    rules.check_keys(findings, "owner", doc.get("owner"), OWNER)
    rules.check_keys(findings, "budget", doc.get("budget"), BUDGET)
    if folder is not None and doc.get("feature") != folder:
        remedy = f"name the feature as its folder, {folder!r}"
        findings.add("feature", f"is {rules.shown(doc.get('feature'))}", remedy)
    _lifetime(findings, doc, today)
    _modes(findings, doc)
    _maps(findings, doc)
    _signals(findings, doc)
    check_variants(findings, doc)
    check_bcc(findings, doc)
    return list(findings.errors)


def variant_maps(contract: dict[str, Any], variant: str) -> set[str]:
    """The names of the maps that a variant holds, by the contract."""
    return {
        str(entry.get("name"))
        for entry in rules.mappings_in(contract, "maps")
        if not isinstance(entry.get("variants"), list) or variant in entry["variants"]
    }


def _lifetime(findings: Findings, doc: dict[str, Any], today: str | None) -> None:
    lifetime, expires = doc.get("lifetime"), doc.get("expires")
    if lifetime == "temporary" and "expires" not in doc:
        findings.add("expires", "is missing", "a temporary feature needs the day on which it stops to run")
    if lifetime == "permanent" and "expires" in doc:
        findings.add("expires", "is given for a permanent feature", "remove it or set 'lifetime: temporary'")
    if today and rules.date_remedy(expires) is None and str(expires) <= today:
        findings.add("expires", f"{expires} has come", "extend it or leave the feature out")


def _modes(findings: Findings, doc: dict[str, Any]) -> None:
    """What the contract says of the object as a whole: whose it is, what it counts, what it may do."""
    if "accounting" in doc and not rules.is_third_party(doc):
        findings.add("accounting", f"is {rules.shown(doc['accounting'])} without 'origin: third_party'",
                     "remove it: a feature of ours counts what it produces and drops")  # fmt: skip
    path = doc.get("data_path")
    if path == "policy" and "mode" not in doc:
        findings.add("mode", "is missing on the policy data path",
                     "write 'mode: observe': no program may deny anything yet")  # fmt: skip
    if path in ("metrics", "events") and "mode" in doc:
        findings.add("mode", f"is given on the {path} data path", "remove it or set 'data_path: policy'")


def _maps(findings: Findings, doc: dict[str, Any]) -> None:
    spec = FREE_MAP if rules.is_third_party(doc) else MAP
    variants = {str(variant.get("name")) for variant in rules.mappings_in(doc, "variants")}
    for field, entry in rules.check_entries(findings, doc, "maps"):
        kind = str(entry.get("type"))
        rules.check_keys(findings, field, entry, _sized(spec, kind), optional={"variants"})
        rules.check_words(findings, rules.at(field, "variants"), entry.get("variants"), rules.choice(*sorted(variants)))
        scope = "per_cpu" if kind in PER_CPU_TYPES else "global"
        if kind in MAP_TYPES and entry.get("scope") in ("per_cpu", "global") and entry["scope"] != scope:
            findings.add(rules.at(field, "scope"), f"is {entry['scope']!r} for a {kind}", f"set {scope!r}")
        if kind in MAP_TYPES and (entry.get("eviction") == "lru") != (kind in LRU_TYPES):
            findings.add(rules.at(field, "eviction"), f"is {rules.shown(entry.get('eviction'))} for a {kind}",
                         "'lru' belongs to the lru map types and only to them")  # fmt: skip


def _sized(spec: dict[str, Check], kind: str) -> dict[str, Check]:
    """A perf buffer with 0 entries has one for each CPU, as libbpf makes it."""
    return {**spec, "max_entries": rules.integer(0, rules.U32_MAX)} if kind == "perf_event_array" else spec


def _signals(findings: Findings, doc: dict[str, Any]) -> None:
    sampling: set[int] = set()
    kinds: set[str] = set()
    for field, signal in rules.check_entries(findings, doc, "signals"):
        _signal(findings, field, signal, doc)
        _signal_maps(findings, field, signal, doc)
        if isinstance(signal.get("sample_every"), int):
            sampling.add(signal["sample_every"])
        if str(signal.get("kind")) in kinds:
            findings.add(rules.at(field, "kind"), f"{signal['kind']!r} is there twice",
                         "a feature has one signal of each kind; make two features")  # fmt: skip
        kinds.add(str(signal.get("kind")))
    if len(sampling) > 1:
        findings.add("signals", "differ in sample_every", "give all one value: a feature has one ef_config")
    _event_rate(findings, doc)


def _signal(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    kind, path = signal.get("kind"), doc.get("data_path")
    spec = FREE_SIGNAL if rules.is_third_party(doc) else SIGNAL
    rules.check_keys(findings, field, signal, spec, optional=SIGNAL_OPTIONAL)
    rules.check_keys(findings, rules.at(field, "consumer"), signal.get("consumer"), CONSUMER)
    if not isinstance(kind, str) or kind not in KIND_KEYS:
        return
    for owner, keys in KIND_KEYS.items():
        for key in keys:
            if owner != kind and key in signal:
                findings.add(rules.at(field, key), f"is given for kind {kind!r}", "remove it")
    for key in ("scale", "event", "retention"):
        if key in KIND_KEYS[kind] and key not in signal:
            findings.add(rules.at(field, key), "is missing", f"a signal of kind {kind!r} needs it")
    if isinstance(path, str) and path in PATH_KINDS and kind not in PATH_KINDS[path]:
        fitting = " or ".join(repr(word) for word in PATH_KINDS[path])
        findings.add(rules.at(field, "kind"), f"is {kind!r} on the {path} data path", f"use {fitting}")
    _backpressure(findings, field, signal, doc)
    _fair(findings, field, signal, doc)
    if kind == "counters" and str(signal.get("name")).endswith("_total"):
        findings.add(rules.at(field, "name"), f"is {signal['name']!r}", "leave '_total' out: the metric's name gets it")


def _backpressure(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    """What a signal does when its reader is behind, and what that needs."""
    kind, policy = signal.get("kind"), signal.get("backpressure")
    if kind in ("histogram", "counters") and policy in ("drop", "sample"):
        findings.add(rules.at(field, "backpressure"), f"is {policy!r} for kind {kind!r}",
                     "set 'aggregate': what is counted in the kernel waits for no reader")  # fmt: skip
    if kind != "events":
        return
    if policy == "aggregate" and "aggregate_by" not in signal:
        findings.add(rules.at(field, "aggregate_by"), "is missing",
                     "name the fields by which records are told together, such as [comm, uid]")  # fmt: skip
    if policy in ("drop", "sample") and "aggregate_by" in signal:
        findings.add(rules.at(field, "aggregate_by"), f"is given with backpressure {policy!r}",
                     "remove it, or set 'backpressure: aggregate'")  # fmt: skip
    if policy in ("sample", "aggregate") and "bcc" in doc:
        findings.add(rules.at(field, "backpressure"), f"is {policy!r}, and there is a bcc fallback",
                     "set 'drop', the only one that the BCC collector knows, or remove 'bcc'")  # fmt: skip


def _fair(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    """What a signal needs in which no source takes the room of the others."""
    if "fairness" not in signal:
        return
    field = rules.at(field, "fairness")
    if rules.is_third_party(doc):
        findings.add(field, "is given for an object that others compiled",
                     "remove it: fairness is in programs that include ef.h with EF_FAIR")  # fmt: skip
    budget = doc.get("budget")
    rate = budget.get("event_rate_per_second") if isinstance(budget, dict) else None
    if isinstance(rate, int) and rate < MIN_FAIR_RATE:
        findings.add(field, f"is given with {rate} events a second", f"set event_rate_per_second to {MIN_FAIR_RATE} "
                     "or more: less cannot be shared")  # fmt: skip
    maps = {str(entry.get("name")) for entry in rules.mappings_in(doc, "maps")}
    for name in FAIR_MAPS:
        if name not in maps:
            findings.add(field, f"is given, but {name!r} is not in maps", "declare it, as docs/contract.md says")


def _signal_maps(findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any]) -> None:
    """The maps that a signal is read from: declared, of a type that can be read, in every variant."""
    maps = {str(entry.get("name")): entry for entry in rules.mappings_in(doc, "maps")}
    for key in ("map", "perf_map"):
        if key in signal and str(signal[key]) not in maps:
            remedy = did_you_mean(signal[key], maps)
            findings.add(rules.at(field, key), f"{rules.shown(signal[key])} is not in maps", remedy)
    main, perf = (maps.get(str(signal.get(key))) for key in ("map", "perf_map"))
    kind = signal.get("kind")
    if main is not None and isinstance(kind, str) and kind in SIGNAL_MAP_TYPES:
        _signal_map_type(findings, rules.at(field, "map"), main, SIGNAL_MAP_TYPES[kind], kind)
    if perf is not None:
        _signal_map_type(findings, rules.at(field, "perf_map"), perf, ("perf_event_array",), "events")
        if main is not None and main.get("type") != "ringbuf":
            findings.add(rules.at(field, "map"), "is not a ring buffer, and there is a perf_map",
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
        findings.add(rules.at(field, "key"), "is given for an array", "remove it: the label of an array is its index")
    if not is_array and "key" not in signal:
        findings.add(rules.at(field, "key"), "is missing", f"name the struct that is the key of {entry.get('name')!r}")
    entries = entry.get("max_entries")
    if isinstance(entries, int) and entries > MAX_SERIES:
        findings.add(rules.at(field, "map"), f"{entry.get('name')!r} has room for {entries} time series",
                     f"set its max_entries to at most {MAX_SERIES}")  # fmt: skip


def _held_by_variants(
    findings: Findings, field: str, signal: dict[str, Any], doc: dict[str, Any], maps: Collection[str]
) -> None:
    sources = {str(signal[key]) for key in ("map", "perf_map") if key in signal}
    if not sources <= set(maps):
        return
    for variant in rules.mappings_in(doc, "variants"):
        if not sources & variant_maps(doc, str(variant.get("name"))):
            findings.add(rules.at(field, "map"), f"variant {rules.shown(variant.get('name'))} does not hold "
                         f"{' or '.join(sorted(sources))}", "add the variant to the map's 'variants'")  # fmt: skip


def _event_rate(findings: Findings, doc: dict[str, Any]) -> None:
    budget = doc.get("budget")
    rate = budget.get("event_rate_per_second") if isinstance(budget, dict) else None
    if not isinstance(rate, int):
        return
    field = "budget.event_rate_per_second"
    if doc.get("data_path") == "metrics" and rate != 0:
        findings.add(field, f"is {rate} on the metrics data path", "set 0")
    if doc.get("data_path") in ("events", "policy") and rate == 0:
        path = f"the {doc['data_path']} data path"
        findings.add(field, f"is 0 on {path}", "give the rate that it may reach, 1 or more")


def default_sample_every(contract: dict[str, Any]) -> int:
    """The sampling that the contract asks for; all signals of a feature share one."""
    return int(contract["signals"][0]["sample_every"])
