# SPDX-License-Identifier: GPL-3.0-or-later
"""What a contract may say by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import rules
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import (
    MAX_SERIES,
    default_sample_every,
    validate_contract,
    variant_maps,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import ATTACH

from tests.support.requirement_cases import ALTERNATIVES

MAPS = [
    {"name": "ef_counters", "type": "percpu_array", "max_entries": 4, "scope": "per_cpu"},
    {"name": "ef_hist", "type": "percpu_array", "max_entries": 65, "scope": "per_cpu"},
]
GOOD: dict[str, Any] = {
    "schema": "ebpf.fleet/contract/v1",
    "feature": "runqlat",
    "summary": "How long tasks wait.",
    "owner": {"team": "platform", "contact": "platform@example.org"},
    "data_path": "metrics",
    "lifetime": "permanent",
    "cost_order": 10,
    "budget": {
        "cpu_millicores": 10,
        "map_memory_bytes": 4194304,
        "event_rate_per_second": 0,
        "drop_ratio_ppm": 10000,
    },
    "signals": [
        {
            "name": "run_queue_latency_seconds",
            "kind": "histogram",
            "help": "Time on a run queue.",
            "map": "ef_hist",
            "scale": "nanoseconds",
            "consumer": {"alert": "Slow", "runbook": "docs/runbooks/runqlat.md"},
            "retention_days": 30,
            "sample_every": 4,
            "backpressure": "aggregate",
        }
    ],
    "maps": [{**entry, "eviction": "none", "cardinality": "Few.", "why": "Fast."} for entry in MAPS],
    "variants": [
        {
            "name": "full",
            "programs": ["ef_rql_switch"],
            "requires": ["btf:vmlinux", "prog_type:tracing", "attach:tp_btf:sched_switch"],
        }
    ],
}
# One of each of the other paths and origins, each good as it stands.
COUNTERS = copy.deepcopy(GOOD)
COUNTERS["signals"][0] = {
    **GOOD["signals"][0],
    "name": "errors",
    "kind": "counters",
    "map": "ef_count",
    "key": "ef_key",
}
del COUNTERS["signals"][0]["scale"]
COUNTERS["maps"][1] = {**GOOD["maps"][1], "name": "ef_count", "type": "percpu_hash", "max_entries": 512}
EVENTS = copy.deepcopy(GOOD)
EVENTS["data_path"] = "events"
EVENTS["budget"]["event_rate_per_second"] = 100
EVENTS["signals"][0] = {**GOOD["signals"][0], "kind": "events", "map": "ef_events", "event": "ef_exec_event"}
del EVENTS["signals"][0]["scale"]
EVENTS["signals"][0].update(perf_map="ef_perf_events", backpressure="drop", retention="shipper")
EVENTS["maps"] = [
    GOOD["maps"][0],
    {**GOOD["maps"][1], "name": "ef_events", "type": "ringbuf", "scope": "global", "variants": ["full"]},
    {
        **GOOD["maps"][1],
        "name": "ef_perf_events",
        "type": "perf_event_array",
        "max_entries": 0,
        "scope": "global",
        "variants": ["perf"],
    },
]
EVENTS["variants"].append(
    {
        "name": "perf",
        "programs": ["ef_rql_switch"],
        "profile": "reduced",
        "requires": ["btf:any", "prog_type:raw_tracepoint", "attach:raw_tp:sched_switch"],
    }
)
EVENTS["bcc"] = {"programs": ["ef_rql_switch"], "requires": ["prog_type:raw_tracepoint", "attach:raw_tp:sched_switch"]}
POLICY = copy.deepcopy(EVENTS)
POLICY["data_path"] = "policy"
POLICY["mode"] = "observe"
POLICY["variants"][0]["requires"] = ["btf:vmlinux", "prog_type:lsm", "attach:lsm:bprm_check_security"]
THIRD_PARTY = copy.deepcopy(EVENTS)
THIRD_PARTY.update(origin="third_party", accounting="none")
THIRD_PARTY["signals"][0].update(map="rb", event="event", sample_every=1)
del THIRD_PARTY["signals"][0]["perf_map"]
THIRD_PARTY["maps"] = [{**EVENTS["maps"][1], "name": "rb"}, {**GOOD["maps"][0], "name": ".rodata", "scope": "global"}]
THIRD_PARTY["maps"][0].pop("variants")
THIRD_PARTY["maps"][1]["type"] = "array"
THIRD_PARTY["variants"] = [{**GOOD["variants"][0], "programs": ["handle_exec", "a_name_that_the_kernel_cuts_off"]}]
FAIR = copy.deepcopy(EVENTS)
FAIR["signals"][0]["fairness"] = ["uid", "cgroup"]
FAIR["maps"] += [
    {**GOOD["maps"][1], "name": "ef_fair", "type": "lru_hash", "max_entries": 64, "scope": "global", "eviction": "lru"},
    {**GOOD["maps"][1], "name": "ef_fair_all", "type": "array", "max_entries": 1, "scope": "global"},
]
REMOVE = object()


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a path such as ``budget.cpu_millicores`` or ``maps.0.name`` replaced."""
    result = copy.deepcopy(document)
    place: Any = result
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value
    return result


def messages(document: Any, **options: Any) -> list[str]:
    found = validate_contract(document, "x/contract.yml", **options)
    assert all(error.code == "EF_CONTRACT_MALFORMED" and error.file == "x/contract.yml" for error in found)
    return [error.message for error in found]


@pytest.mark.parametrize("document", [GOOD, COUNTERS, EVENTS, FAIR, POLICY, THIRD_PARTY])
def test_a_good_contract_has_no_error(document: dict[str, Any]) -> None:
    assert messages(document, folder="runqlat", today="2026-11-23") == []


def test_what_others_read_of_a_contract() -> None:
    assert default_sample_every(GOOD) == 4
    assert variant_maps(EVENTS, "full") == {"ef_counters", "ef_events"}
    assert variant_maps(EVENTS, "perf") == {"ef_counters", "ef_perf_events"}


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_one_error(document: Any) -> None:
    assert len(messages(document)) == 1


def _leaves(value: Any, path: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    found = []
    for key, item in items:
        here = f"{path}.{key}" if path else str(key)
        found += [here, *_leaves(item, here)]
    return found


@pytest.mark.parametrize("path", [path for path in _leaves(GOOD) if not path.rsplit(".", 1)[-1].isdigit()])
def test_every_key_is_required(path: str) -> None:
    said = messages(changed(GOOD, path, REMOVE))
    assert any(path.rsplit(".", 1)[-1] in sentence for sentence in said), said


@pytest.mark.parametrize("value", [None, 1.5, True, {}, [], "", -1, "no\nline", [[]], [{}], {"a": []}])
@pytest.mark.parametrize("document", [GOOD, COUNTERS, EVENTS, POLICY, THIRD_PARTY])
def test_no_value_of_a_wrong_kind_passes_or_crashes(document: dict[str, Any], value: Any) -> None:
    for path in _leaves(document):
        assert messages(changed(document, path, value)), f"{path}={value!r} passed"


@pytest.mark.parametrize(
    ("document", "path", "value", "words"),
    [
        (GOOD, "accounting", "none", ["accounting:", "without 'origin: third_party'", "remove it"]),
        (GOOD, "mode", "observe", ["mode:", "metrics data path", "'data_path: policy'"]),
        (GOOD, "origin", "ours", ["origin:", "third_party"]),
        (GOOD, "variants.0.profile", "best", ["variants[0].profile", "full"]),
        (GOOD, "maps.1.variants", ["fulll"], ["maps[1].variants[0]", "did you mean 'full'?"]),
        (GOOD, "maps.1.variants", [], ["maps[1].variants", "at least one"]),
        (GOOD, "signals.0.perf_map", "ef_hist", ["signals[0].perf_map", "remove it"]),
        (GOOD, "variants.0.requires.0", "btf:any", ["variants[0].requires", "without 'btf:vmlinux'", "add it"]),
        (GOOD, "maps.1.type", "arena", ["maps[1].type: is 'arena'; ", "did you mean 'array'?"]),
        (GOOD, "maps.1.type", "unspec", ["maps[1].type: is 'unspec'; "]),
        (GOOD, "variants.0.requires.1", "prog_type:kprobe", ["without 'prog_type:tracing'", "add it"]),
        (GOOD, "variants.0.requires.1", "helper:kprobe:d_path", ["no program of type 'kprobe'"]),
        (GOOD, "variants.0.requires.2", "attach:uprobe:x", ["variants[0].requires[2]", "did you mean 'kprobe'?"]),
        (GOOD, "variants.0.requires.2", "btf:any", ["'btf:any' and 'btf:vmlinux'", "remove 'btf:any'"]),
        (GOOD, "variants.0.requires", ["btf:any", "btf:vmlinux"], ["'btf:any' and 'btf:vmlinux'", "remove 'btf:any'"]),
        (GOOD, "variants.0.requires.2", "attach:lsm:file_open", ["on the metrics data path", "'data_path: policy'"]),
        (EVENTS, "variants.0.requires.2", "attach:lsm:file_open", ["on the events data path", "'data_path: policy'"]),
        (GOOD, "bcc", {"programs": ["switch"], "requires": ["btf:any"]},
         ["bcc.programs[0]", "ef_", "bcc.requires", "'btf:any'", "remove it"]),
        (GOOD, "bcc", {"programs": ["ef_switch"]}, ["bcc.requires: is missing"]),
        (EVENTS, "bcc.programs", ["ef_a", "ef_b"], ["bcc.requires", "1 hooks for 2 programs", "in their order"]),
        (EVENTS, "bcc.requires.1", "attach:tracepoint:a/b", ["bcc.requires", "raw_tp, kprobe, kretprobe only"]),
        (COUNTERS, "signals.0.key", REMOVE, ["signals[0].key", "is missing", "the key of 'ef_count'"]),
        (COUNTERS, "signals.0.name", "errors_total", ["signals[0].name", "leave '_total' out"]),
        (COUNTERS, "signals.0.scale", "count", ["signals[0].scale", "remove it"]),
        (COUNTERS, "maps.1.max_entries", MAX_SERIES + 1, ["signals[0].map", "time series", f"at most {MAX_SERIES}"]),
        (COUNTERS, "maps.1.type", "percpu_array", ["signals[0].key", "given for an array", "remove it"]),
        (COUNTERS, "maps.1.type", "ringbuf", ["signals[0].map", "of type 'ringbuf'", "percpu_hash"]),
        (COUNTERS, "data_path", "events", ["signals[0].kind", "'counters' on the events data path", "use 'events'"]),
        (COUNTERS, "signals", [*COUNTERS["signals"], {**COUNTERS["signals"][0], "name": "more"}],
         ["signals[1].kind", "'counters' is there twice", "two features"]),
        (GOOD, "signals.0.backpressure", "drop", ["signals[0].backpressure", "kind 'histogram'", "set 'aggregate'"]),
        (COUNTERS, "signals.0.backpressure", "sample", ["signals[0].backpressure", "kind 'counters'", "no reader"]),
        (COUNTERS, "signals.0.aggregate_by", ["comm"], ["signals[0].aggregate_by", "remove it"]),
        (EVENTS, "signals.0.backpressure", "sample", ["signals[0].backpressure", "bcc fallback", "set 'drop'"]),
        (EVENTS, "signals.0.backpressure", "aggregate", ["signals[0].aggregate_by", "is missing", "[comm, uid]"]),
        (EVENTS, "signals.0.aggregate_by", ["comm"], ["aggregate_by", "with backpressure 'drop'", "remove it"]),
        (EVENTS, "signals.0.aggregate_by", [], ["signals[0].aggregate_by", "1 to 8 different fields"]),
        (EVENTS, "signals.0.aggregate_by", ["pid", "pid"], ["signals[0].aggregate_by", "different"]),
        (EVENTS, "signals.0.aggregate_by", ["a b"], ["signals[0].aggregate_by", "fields of the event's struct"]),
        (EVENTS, "signals.0.retention", REMOVE, ["signals[0].retention", "needs it"]),
        (EVENTS, "signals.0.retention", "shiper", ["signals[0].retention", "shipper"]),
        (GOOD, "signals.0.retention", "host", ["signals[0].retention", "is given for kind 'histogram'", "remove it"]),
        (FAIR, "signals.0.fairness", ["uid"], ["signals[0].fairness", "[uid, cgroup]"]),
        (FAIR, "budget.event_rate_per_second", 99, ["signals[0].fairness", "99 events a second", "100 or more"]),
        (FAIR, "maps.4.name", "ef_fair_al", ["signals[0].fairness", "'ef_fair_all' is not in maps"]),
        (COUNTERS, "signals.0.fairness", ["uid", "cgroup"], ["signals[0].fairness", "remove it"]),
        (THIRD_PARTY, "signals.0.fairness", ["uid", "cgroup"], ["signals[0].fairness", "others compiled", "remove it"]),
        (EVENTS, "signals.0.event", REMOVE, ["signals[0].event", "needs it"]),
        (EVENTS, "signals.0.perf_map", "ef_perf_event", ["signals[0].perf_map", "did you mean 'ef_perf_events'?"]),
        (EVENTS, "signals.0.perf_map", REMOVE, ["signals[0].map", "variant 'perf' does not hold ef_events"]),
        (EVENTS, "signals.0.map", "ef_perf_events", ["is not a ring buffer, and there is a perf_map"]),
        (EVENTS, "maps.1.max_entries", 0, ["maps[1].max_entries", "from 1"]),
        (EVENTS, "variants.1.requires", ["btf:any", "btf:vmlinux", *GOOD["variants"][0]["requires"][1:]],
         ["variants[1].requires", "'perf' can never be chosen", "put it before 'full'"]),
        (EVENTS, "variants.1.requires", [*GOOD["variants"][0]["requires"], "kernel:5.8"], ["can never be chosen"]),
        (POLICY, "mode", REMOVE, ["mode:", "is missing on the policy data path", "'mode: observe'"]),
        (POLICY, "mode", "enforce", ["mode:", "observe"]),
        (POLICY, "budget.event_rate_per_second", 0, ["budget.event_rate_per_second", "policy data path"]),
        (THIRD_PARTY, "variants.0.programs.0", "handle exec", ["variants[0].programs[0]", "C identifier"]),
        (THIRD_PARTY, "maps.1.name", "/rodata", ["maps[1].name", "ebpf-loader inspect"]),
    ],
)  # fmt: skip
def test_a_rule_that_is_broken_is_named_with_field_and_remedy(
    document: dict[str, Any], path: str, value: Any, words: list[str]
) -> None:
    said = " | ".join(messages(changed(document, path, value)))
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("requires", "reachable"),
    [
        (["kernel:5.8", "prog_type:tracing"], True),
        (["kernel:5.10", "prog_type:tracing"], False),
        (["kernel:5.9", "prog_type:tracing", "map_type:hash"], False),
        (["kernel:5.9", "prog_type:kprobe"], True),
    ],
)
def test_a_newer_kernel_asks_for_an_older_one_too(requires: list[str], reachable: bool) -> None:
    variants = [
        {**GOOD["variants"][0], "requires": ["kernel:5.9", "prog_type:tracing"]},
        {**GOOD["variants"][0], "name": "reduced", "requires": requires},
    ]
    assert (messages(changed(GOOD, "variants", variants)) == []) is reachable


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("owners", {}, ["owners", "did you mean 'owner'?"]),
        ("budget.cpu_milicores", 1, ["budget.cpu_milicores", "did you mean 'cpu_millicores'?"]),
        ("budget.cpu_millicores", 1001, ["budget.cpu_millicores", "1 to 1000"]),
        ("budget.event_rate_per_second", 5, ["budget.event_rate_per_second", "metrics data path"]),
        ("data_path", "events", ["budget.event_rate_per_second", "events data path"]),
        ("data_path", "metric", ["did you mean 'metrics'?"]),
        ("lifetime", "temporary", ["expires", "is missing"]),
        ("expires", "2027-01-01", ["expires", "permanent"]),
        ("expires", "2027-02-30", ["expires", "YYYY-MM-DD"]),
        ("signals.0.kind", "events", ["signals[0]"]),
        ("signals.0.map", "ef_hust", ["signals[0].map", "did you mean 'ef_hist'?"]),
        ("signals.0.event", "ef_x_event", ["signals[0].event", "remove it"]),
        ("maps.1.scope", "global", ["maps[1].scope", "'per_cpu'"]),
        ("maps.1.eviction", "lru", ["maps[1].eviction"]),
        ("maps.1.type", "percpu_aray", ["maps[1].type", "did you mean 'percpu_array'?"]),
        ("maps.1.name", "hist", ["maps[1].name", "ef_"]),
        ("maps.1.name", "ef_counters", ["maps[1].name", "twice"]),
        ("maps.1.name", "ef_much_too_long_name", ["maps[1].name", "15 characters"]),
        ("variants.0.programs", ["ef_a", "ef_a"], ["variants[0].programs[1]", "twice"]),
        ("variants.0.requires", ["btf:vmlinux", "kernel"], ["variants[0].requires[1]", "MAJOR.MINOR"]),
    ],
)
def test_an_error_names_field_and_remedy(path: str, value: Any, words: list[str]) -> None:
    said = " | ".join(messages(changed(GOOD, path, value)))
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("requires", "refused"),
    [
        (["btf:any", "btf:vmlinux"], True),
        (["btf:vmlinux", "kernel:5.9", "btf:any"], True),
        (["btf:any"], False),
        (["btf:vmlinux"], False),
        (["btf:vmlinux", "kernel:5.9"], False),
        (["kernel:5.9"], False),
    ],
)
def test_a_variant_that_asks_for_the_kernels_own_btf_asks_for_no_other(requires: list[str], refused: bool) -> None:
    said = [one for one in messages(changed(GOOD, "variants.0.requires", requires)) if "has 'btf:any'" in one]
    words = "has 'btf:any' and 'btf:vmlinux'; remove 'btf:any': the other asks for more"
    assert said == ([f"x/contract.yml: variants[0].requires: {words}"] if refused else [])


@pytest.mark.parametrize(
    ("document", "field", "least", "most"),
    [(GOOD, "cpu_millicores", 1, 1000), (EVENTS, "map_memory_bytes", None, 2**63 - 1),
     (EVENTS, "event_rate_per_second", None, 2**63 - 1)],
)  # fmt: skip
def test_a_budget_is_taken_up_to_its_last_value(
    document: dict[str, Any], field: str, least: int | None, most: int
) -> None:
    taken = [most] if least is None else [least, most]
    assert [messages(changed(document, f"budget.{field}", value)) for value in taken] == [[]] * len(taken)
    for value in [most + 1] if least is None else [least - 1, most + 1]:
        assert field in " ".join(messages(changed(document, f"budget.{field}", value)))


def test_all_errors_are_said_at_once() -> None:
    broken = changed(changed(GOOD, "budget.cpu_millicores", 0), "maps.0.max_entries", 0)
    assert len(messages(changed(broken, "summary", REMOVE), folder="other")) == 4


def test_an_expired_feature_is_refused_from_its_day_on() -> None:
    temporary = changed(changed(GOOD, "lifetime", "temporary"), "expires", "2027-06-30")
    assert messages(temporary, today="2027-06-29") == []
    assert "has come" in messages(temporary, today="2027-06-30")[0]


@pytest.mark.parametrize(("hooks", "refused"), ALTERNATIVES)
def test_two_alternatives_for_one_hook_would_both_attach(hooks: list[str], refused: bool) -> None:
    types = {f"prog_type:{ATTACH[word.partition(':')[0]].program_type}" for word in hooks}
    requires = ["btf:vmlinux", *sorted(types), *(f"attach:{word}" for word in hooks)]
    said = "\n".join(error.message for error in validate_contract(changed(GOOD, "variants.0.requires", requires), "c"))
    assert ("which are one hook, and both programs would attach" in said) is refused, said
    assert refused or said == ""
    if refused:
        assert "variants[0].requires" in said and "make a variant of the other" in said


def test_two_alternatives_of_the_bcc_fallback_are_refused_too() -> None:
    requires = ["prog_type:kprobe", "prog_type:raw_tracepoint", "attach:raw_tp:oom", "attach:kprobe:oom"]
    good = changed(GOOD, "bcc", {"programs": ["ef_a", "ef_b"], "requires": requires})
    assert validate_contract(good, "c") == []
    bad = changed(good, "bcc.requires", ["prog_type:kprobe", "attach:kprobe:oom", "attach:kprobe:oom"])
    assert "bcc.requires" in validate_contract(bad, "c")[0].message


def test_a_number_of_a_contract_at_both_ends() -> None:
    check = rules.integer(2, 4)
    assert [check(value) for value in (2, 3, 4)] == [None] * 3
    for value in (1, 5, -2, True, 3.0, "3", None):
        assert check(value) == "give an integer from 2 to 4", value
