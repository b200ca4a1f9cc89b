"""What a contract may say, alone and against what was compiled."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import (
    compare_with_objects,
    default_sample_every,
    needed_by_program,
    requirement_remedy,
    validate_contract,
)

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
OBJECT: dict[str, Any] = {
    "programs": [{"name": "ef_rql_switch", "section": "tp_btf/sched_switch", "type": "tracing"}],
    "maps": [
        {
            "name": entry["name"],
            "type": entry["type"],
            "max_entries": entry["max_entries"],
            "key_size": 4,
            "value_size": 8,
        }
        for entry in MAPS
    ],
    "structs": {},
    "license": "GPL",
}
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


def test_a_good_contract_has_no_error() -> None:
    assert messages(GOOD, folder="runqlat", today="2026-11-23") == []
    assert default_sample_every(GOOD) == 4


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


@pytest.mark.parametrize("path", _leaves(GOOD))
@pytest.mark.parametrize("value", [None, 1.5, True, {}, [], "", -1, "no\nline"])
def test_no_value_of_a_wrong_kind_passes_or_crashes(path: str, value: Any) -> None:
    assert messages(changed(GOOD, path, value)), f"{path}={value!r} passed"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("owners", {}, ["owners", "did you mean 'owner'?"]),
        ("budget.cpu_milicores", 1, ["budget.cpu_milicores", "did you mean 'cpu_millicores'?"]),
        ("budget.cpu_millicores", 1001, ["budget.cpu_millicores", "1 to 1000"]),
        ("budget.event_rate_per_second", 5, ["budget.event_rate_per_second", "metrics path"]),
        ("data_path", "events", ["budget.event_rate_per_second", "events path"]),
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


def test_all_errors_are_said_at_once() -> None:
    broken = changed(changed(GOOD, "budget.cpu_millicores", 0), "maps.0.max_entries", 0)
    assert len(messages(changed(broken, "summary", REMOVE), folder="other")) == 4


def test_an_expired_feature_is_refused_from_its_day_on() -> None:
    temporary = changed(changed(GOOD, "lifetime", "temporary"), "expires", "2027-06-30")
    assert messages(temporary, today="2027-06-29") == []
    assert "has come" in messages(temporary, today="2027-06-30")[0]


@pytest.mark.parametrize(
    "requirement",
    [
        "btf:vmlinux", "prog_type:raw_tracepoint", "map_type:ringbuf", "helper:tracing:bpf_ktime_get_ns",
        "attach:tp_btf:sched_switch", "attach:raw_tp:sched_switch", "attach:tracepoint:sched/sched_switch",
        "attach:kprobe:vfs_unlink", "attach:fentry:do_exit", "attach:lsm:bprm_check_security", "kernel:5.10",
    ],
)  # fmt: skip
def test_requirements_of_the_grammar(requirement: str) -> None:
    assert requirement_remedy(requirement) is None


@pytest.mark.parametrize(
    "requirement",
    [
        "", "btf", "btf:module", "prog_type:tracng", "map_type:", "helper:tracing", "helper:nothing:bpf_x", "attach:",
        "attach:tracepoint:sched_switch", "attach:kprobe:a b", "attach:uprobe:x", "kernel:6", "kernel:6.1.0", "cpu:4",
        None, 5, "kernel:6.1\n",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_a_remedy(requirement: Any) -> None:
    assert requirement_remedy(requirement)


def compared(contract: dict[str, Any], **variants: Any) -> str:
    return " | ".join(error.message for error in compare_with_objects(contract, variants, "x/contract.yml"))


def test_a_contract_that_equals_its_object_has_no_difference() -> None:
    assert compared(GOOD, full=OBJECT) == ""


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("programs", [], ["'ef_rql_switch' is not in the object"]),
        ("programs.0.name", "ef_rql_swich", ["did you mean 'ef_rql_swich'?"]),
        ("programs.0.type", "raw_tracepoint", ["lacks 'prog_type:raw_tracepoint'"]),
        ("programs.0.section", "tp_btf/sched_wakeup", ["lacks 'attach:tp_btf:sched_wakeup'"]),
        ("maps.1.max_entries", 1000000, ["maps[1].max_entries", "65", "1000000"]),
        ("maps.1.type", "hash", ["maps[1].type"]),
        ("maps.1.name", "ef_other", ["'ef_other'", "not declared", "'ef_hist' is in no object"]),
        ("maps.1.value_size", 10000000, ["budget.map_memory_bytes", "on one CPU"]),
        ("license", "Proprietary", ["GPL"]),
    ],
)
def test_a_difference_is_named(path: str, value: Any, words: list[str]) -> None:
    said = compared(GOOD, full=changed(OBJECT, path, value))
    assert all(word in said for word in words), said


def test_a_variant_without_an_object_is_named() -> None:
    assert "-DEF_VARIANT_FULL" in compared(GOOD)


def test_an_event_must_be_in_the_btf_and_begin_with_its_time() -> None:
    contract = changed(GOOD, "signals.0.kind", "events")
    contract = changed(changed(contract, "signals.0.scale", REMOVE), "signals.0.event", "ef_exec_event")
    assert "not in the BTF" in compared(contract, full=OBJECT)
    late = [{"name": "pid", "offset": 0, "size": 4}, {"name": "ktime_ns", "offset": 8, "size": 8}]
    assert "first member" in compared(contract, full=changed(OBJECT, "structs", {"ef_exec_event": late}))
    good = [{"name": "ktime_ns", "offset": 0, "size": 8}]
    assert compared(contract, full=changed(OBJECT, "structs", {"ef_exec_event": good})) == ""


def test_what_a_program_surely_needs() -> None:
    program = {"name": "ef_x", "section": "tp/sched/sched_switch", "type": "tracepoint"}
    assert needed_by_program(program) == ["prog_type:tracepoint", "attach:tracepoint:sched/sched_switch"]
    assert needed_by_program({"name": "ef_x", "section": "xdp", "type": "xdp"}) == ["prog_type:xdp"]
