# SPDX-License-Identifier: GPL-3.0-or-later
"""A contract held against what was compiled: every difference by file, field and remedy."""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import objects as contract_objects
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.objects import (
    compare_with_objects,
    least_bytes,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfobject import has_core_relocations, reads_kernel

from tests.unit.test_contract import COUNTERS, EVENTS, FAIR, GOOD, POLICY, REMOVE, THIRD_PARTY, changed

COUNTER_MAP = {"name": "ef_counters", "type": "percpu_array", "key_size": 4, "value_size": 8, "max_entries": 4}
CONFIG_MAP = {"name": "ef_config", "type": "array", "key_size": 4, "value_size": 24, "max_entries": 1}
HIST_MAP = {"name": "ef_hist", "type": "percpu_array", "key_size": 4, "value_size": 16, "max_entries": 65}
OBJECT: dict[str, Any] = {
    "programs": [{"name": "ef_rql_switch", "section": "tp_btf/sched_switch", "type": "tracing", "returns_zero": True}],
    "maps": [COUNTER_MAP, CONFIG_MAP, HIST_MAP],
    "structs": {},
    "license": "GPL",
    "relocates": True,
}
CONFIG = {**GOOD["maps"][0], "name": "ef_config", "type": "array", "max_entries": 1, "scope": "global"}


def with_config(document: dict[str, Any]) -> dict[str, Any]:
    """A contract of the other tests, which leave out the map that every object of ours holds."""
    return changed(document, "maps", [*document["maps"], CONFIG])


HISTOGRAM = with_config(GOOD)
COUNTS = with_config(COUNTERS)
RECORDS = with_config(EVENTS)
LOOKS_ON = with_config(POLICY)
KEY = [
    {"name": "family", "offset": 0, "size": 4, "kind": "uint"},
    {"name": "comm", "offset": 4, "size": 16, "kind": "chars"},
    {"name": "_pad", "offset": 20, "size": 3, "kind": "bytes"},
]
COUNT_MAP = {"name": "ef_count", "type": "percpu_hash", "key_size": 24, "value_size": 16, "max_entries": 512}
COUNTING = {**OBJECT, "maps": [COUNTER_MAP, CONFIG_MAP, COUNT_MAP], "structs": {"ef_key": KEY}}
WEIGHT = {"name": "weight", "offset": 8, "size": 8, "kind": "uint"}
EVENT = {"ef_exec_event": [{"name": "ktime_ns", "offset": 0, "size": 8, "kind": "uint"}, WEIGHT]}
RING = {"name": "ef_events", "type": "ringbuf", "key_size": 0, "value_size": 0, "max_entries": 65}
PERF = {"name": "ef_perf_events", "type": "perf_event_array", "key_size": 4, "value_size": 4, "max_entries": 0}
RECORDING = {**OBJECT, "maps": [COUNTER_MAP, CONFIG_MAP, RING], "structs": EVENT}
PERF_PROGRAM = {"name": "ef_rql_switch", "section": "raw_tp/sched_switch", "type": "raw_tracepoint"}
PERF_OBJECT = {**OBJECT, "programs": [PERF_PROGRAM], "maps": [COUNTER_MAP, CONFIG_MAP, PERF], "structs": EVENT}
RECORDS = changed(RECORDS, "variants.0.requires", [*GOOD["variants"][0]["requires"], "map_type:ringbuf"])
LSM_PROGRAM = {"name": "ef_rql_switch", "section": "lsm/bprm_check_security", "type": "lsm", "returns_zero": True}
LSM_OBJECT = {**RECORDING, "programs": [LSM_PROGRAM]}
LOOKS_ON = changed(LOOKS_ON, "variants.0.requires", [*POLICY["variants"][0]["requires"], "map_type:ringbuf"])
OTHERS = changed(THIRD_PARTY, "variants.0.requires", [*GOOD["variants"][0]["requires"], "map_type:ringbuf"])
OTHERS_OBJECT: dict[str, Any] = {
    **OBJECT,
    "programs": [
        {"name": "handle_exec", "section": "tp_btf/sched_switch", "type": "tracing"},
        {"name": "a_name_that_the_kernel_cuts_off", "section": "tp_btf/sched_switch", "type": "tracing"},
    ],
    "maps": [
        {**RING, "name": "rb"},
        {"name": ".rodata", "type": "array", "key_size": 4, "value_size": 40, "max_entries": 4},
    ],
    "structs": {"event": [{"name": "pid", "offset": 0, "size": 4, "kind": "int"}]},
    "license": "Dual BSD/GPL",
}


def compared(contract: dict[str, Any], **variants: Any) -> str:
    assert validate_contract(contract, "x/contract.yml") == []
    found = compare_with_objects(contract, variants, "x/contract.yml")
    assert all(error.code == "EF_CONTRACT_MALFORMED" and error.file == "x/contract.yml" for error in found)
    return " | ".join(error.message for error in found)


def test_a_contract_that_equals_its_objects_has_no_difference() -> None:
    assert compared(HISTOGRAM, full=OBJECT) == ""
    assert compared(COUNTS, full=COUNTING) == ""
    assert compared(RECORDS, full=RECORDING, perf=PERF_OBJECT) == ""
    assert compared(LOOKS_ON, full=LSM_OBJECT, perf=PERF_OBJECT) == ""
    assert compared(OTHERS, full=OTHERS_OBJECT) == ""


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("programs", [], ["variants[0].programs", "'ef_rql_switch' is not in the object"]),
        ("programs.0.name", "ef_rql_swich", ["did you mean 'ef_rql_swich'?"]),
        ("programs.0.type", "raw_tracepoint", ["lacks 'prog_type:raw_tracepoint'", "has 'prog_type:tracing'"]),
        ("programs.0.section", "tp_btf/sched_wakeup",
         ["lacks 'attach:tp_btf:sched_wakeup'", "has 'attach:tp_btf:sched_switch'", "remove it"]),
        ("programs.0.section", "xdp", ["is in section 'xdp'", "the loader attaches only tp_btf/…"]),
        ("programs.0.section", "tc", ["is in section 'tc'", "take it out"]),
        ("programs.0.section", "cgroup_skb/egress", ["is in section 'cgroup_skb/egress'", "attaches only"]),
        ("programs.0.section", "fmod_ret/x", ["changes what the kernel does", "take it out"]),
        ("programs.0.section", "lsm_cgroup/x", ["changes what the kernel does"]),
        ("programs.0.section", "raw_tp.w/x", ["changes what the kernel does"]),
        ("optional", ["?tp_btf/sched_switch"], ["variants[0].programs", "remove the '?'"]),
        ("programs.0.section", "kprobe", ['SEC("kprobe/SYMBOL")']),
        ("programs.0.section", "kprobe/do exit", ['SEC("kprobe/SYMBOL")']),
        ("programs.0.section", "tp/sched_switch", ['SEC("tp/GROUP/NAME")']),
        ("programs.0.section", "kprobe/do_exit+0x8", ["without an offset"]),
        ("programs.0.section", "lsm/file_open", ["an LSM program on the metrics data path", "'data_path: policy'"]),
        ("maps.2.max_entries", 1000000, ["maps[1].max_entries", "65", "1000000", "make them equal"]),
        ("maps.2.type", "hash", ["maps[1].type"]),
        ("maps.2.name", "ef_other", ["'ef_other'", "not declared", "'ef_hist' is not in variant 'full'", "no object"]),
        ("maps.2.value_size", 10000000, ["budget.map_memory_bytes", "on one CPU"]),
        ("maps.2.value_size", 4, ["signals[0].map", "65 values of 16 bytes"]),
        ("maps.0.max_entries", 2, ["'ef_counters' of variant 'full' is not a percpu_array of 4 values"]),
        ("maps.1.value_size", 4, ["'ef_config' of variant 'full' is not", 'include "ef.h"']),
        ("maps", [COUNTER_MAP, HIST_MAP], ["variant 'full' holds no 'ef_config'"]),
        ("maps", [*OBJECT["maps"], {**RING, "name": "ef_ring"}], ["lacks 'map_type:ringbuf'", "'ef_ring' of variant"]),
        ("license", "Proprietary", ["GPL"]),
        ("license", None, ["GPL"]),
    ],
)  # fmt: skip
def test_a_difference_is_named(path: str, value: Any, words: list[str]) -> None:
    said = compared(HISTOGRAM, full=changed(OBJECT, path, value))
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("maps.2.value_size", 24, ["signals[0].map", "values of 24 bytes", "a struct ef_sum, or one u64"]),
        ("maps.2.key_size", 40, ["signals[0].key", "has 23 bytes", "40"]),
        ("structs", {}, ["signals[0].key", "struct 'ef_key' is not in the BTF"]),
        ("structs.ef_key.0.kind", "bytes", ["field 'family'", "neither a number nor text", "begin its name with '_'"]),
        ("structs.ef_key", [{**KEY[0], "offset": 2 * at, "size": 2, "name": f"f{at}"} for at in range(12)],
         ["gives 12 labels", "1 to 8 fields"]),
        ("structs.ef_key", [{**KEY[0], "size": 24, "name": "_all"}], ["gives 0 labels"]),
    ],
)  # fmt: skip
def test_a_counters_map_that_cannot_be_labelled_is_named(path: str, value: Any, words: list[str]) -> None:
    said = compared(COUNTS, full=changed(COUNTING, path, value))
    assert all(word in said for word in words), said


def test_an_event_must_be_in_the_btf_and_begin_with_its_time() -> None:
    assert "struct 'ef_exec_event' is not in the BTF of variant 'full'" in compared(
        RECORDS, full=changed(RECORDING, "structs", {}), perf=PERF_OBJECT
    )
    late = [{"name": "pid", "offset": 0, "size": 4}, {"name": "ktime_ns", "offset": 8, "size": 8}]
    said = compared(RECORDS, full=RECORDING, perf=changed(PERF_OBJECT, "structs", {"ef_exec_event": late}))
    assert "variant 'perf'" in said and "first member" in said


def test_what_backpressure_needs_is_in_the_object() -> None:
    members = [*EVENT["ef_exec_event"], {"name": "comm", "offset": 16, "size": 16, "kind": "chars"}]
    good = {**RECORDING, "structs": {"ef_exec_event": members}}
    perf = {**PERF_OBJECT, "structs": good["structs"]}
    alone = changed(RECORDS, "bcc", REMOVE)
    told = changed(changed(alone, "signals.0.backpressure", "aggregate"), "signals.0.aggregate_by", ["comm"])
    assert compared(told, full=good, perf=perf) == ""
    said = compared(changed(told, "signals.0.aggregate_by", ["com"]), full=good, perf=perf)
    assert "signals[0].aggregate_by: struct 'ef_exec_event' of variant 'full' has no field 'com'" in said
    assert "did you mean 'comm'?" in said
    long = changed(good, "structs.ef_exec_event.2.size", 257)
    said = compared(told, full=long, perf=perf)
    assert "signals[0].aggregate_by: is 257 bytes in variant 'full'" in said
    sampled = changed(changed(OTHERS, "bcc", REMOVE), "signals.0.backpressure", "sample")
    said = compared(sampled, full=OTHERS_OBJECT)
    assert "signals[0].backpressure: is 'sample', but variant 'full' holds no ef_config" in said


FAIR_MAP = {"name": "ef_fair", "type": "lru_hash", "key_size": 16, "value_size": 120, "max_entries": 64}
FAIR_ALL_MAP = {"name": "ef_fair_all", "type": "array", "key_size": 4, "value_size": 120, "max_entries": 1}


def test_contract_and_object_agree_on_fairness() -> None:
    """A contract that promises what the object lacks, and an object whose promise the loader would not keep."""
    contract = changed(with_config(FAIR), "variants.0.requires", RECORDS["variants"][0]["requires"])
    full = {**RECORDING, "maps": [*RECORDING["maps"], FAIR_MAP, FAIR_ALL_MAP]}
    perf = {**PERF_OBJECT, "maps": [*PERF_OBJECT["maps"], FAIR_MAP, FAIR_ALL_MAP]}
    assert compared(contract, full=full, perf=perf) == ""
    said = compared(changed(contract, "signals.0.fairness", REMOVE), full=full, perf=perf)
    assert "signals[0].fairness: is missing, but variant 'full' is fair to its sources" in said
    small = changed(full, "maps.3.value_size", 8)
    said = compared(contract, full=small, perf=perf)
    assert "signals[0].fairness: 'ef_fair' of variant 'full' is not a lru_hash of 64 values of 120 bytes" in said
    said = compared(contract, full=full, perf=PERF_OBJECT)
    assert "signals[0].fairness: variant 'perf' holds no 'ef_fair'" in said and "define EF_FAIR" in said


def test_a_host_promises_only_what_it_can_keep() -> None:
    """100 events a second for 30 days are more than a host's files hold; two a second for one day are not."""
    kept = changed(RECORDS, "signals.0.retention", "host")
    said = compared(kept, full=RECORDING, perf=PERF_OBJECT)
    assert "signals[0].retention: is 'host' for 30 days of 100 events a second" in said and "set 'shipper'" in said
    few = changed(changed(kept, "signals.0.retention_days", 1), "budget.event_rate_per_second", 2)
    assert compared(few, full=RECORDING, perf=PERF_OBJECT) == ""


def test_a_map_of_some_variants_must_be_in_just_these() -> None:
    both = {**RECORDING, "maps": [*RECORDING["maps"], PERF]}
    assert "maps[2].variants: 'ef_perf_events' is in variant 'full' too; add the variant" in compared(
        RECORDS, full=both, perf=PERF_OBJECT
    )
    without = changed(RECORDS, "maps.2.variants", REMOVE)
    said = compared(without, full=RECORDING, perf=PERF_OBJECT)
    assert "'ef_perf_events' is not in variant 'full'; write 'variants: [perf]'" in said


def test_btf_that_relocations_need_must_be_required() -> None:
    none = changed(RECORDS, "variants.1.requires", RECORDS["variants"][1]["requires"][1:])
    assert "variants[1].requires: lacks the BTF" in compared(none, full=RECORDING, perf=PERF_OBJECT)
    assert compared(none, full=RECORDING, perf={**PERF_OBJECT, "relocates": False}) == ""


def test_a_map_type_that_no_map_has_is_named() -> None:
    more = changed(HISTOGRAM, "variants.0.requires", [*GOOD["variants"][0]["requires"], "map_type:ringbuf"])
    assert "has 'map_type:ringbuf', but the object has no such map; remove it" in compared(more, full=OBJECT)


@pytest.mark.parametrize("proven", [False, None, REMOVE])
def test_an_lsm_program_that_may_deny_is_refused(proven: Any) -> None:
    doubtful = changed(LSM_OBJECT, "programs.0.returns_zero", proven)
    said = compared(LOOKS_ON, full=doubtful, perf=PERF_OBJECT)
    assert "not proven to return 0 always" in said and "end every path with 'return 0'" in said


def test_what_others_compiled_counts_itself_or_says_that_it_does_not() -> None:
    counted = changed(OTHERS, "accounting", REMOVE)
    said = compared(counted, full=OTHERS_OBJECT)
    assert "holds no 'ef_counters'" in said and "'accounting: none'" in said
    sampled = changed(OTHERS, "signals.0.sample_every", 4)
    assert "holds no ef_config by which it could sample; set 1" in compared(sampled, full=OTHERS_OBJECT)
    proprietary = changed(OTHERS_OBJECT, "license", "BSD")
    assert "declare a GPL licence" in compared(OTHERS, full=proprietary)


def test_a_variant_without_an_object_is_named() -> None:
    assert "-DEF_VARIANT_FULL" in compared(HISTOGRAM)
    assert "put the compiled object into the feature's folder as full.bpf.o" in compared(OTHERS)


def test_the_least_memory_of_a_map() -> None:
    assert least_bytes(RING) == 65
    assert least_bytes({**COUNT_MAP, "type": "hash", "max_entries": 10}) == (48 + 24 + 16) * 10
    assert least_bytes({**COUNTER_MAP, "value_size": 9}) == 4 * 16
    assert least_bytes(PERF) == 0


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x02" + bytes(60), b"\x7fELF\x02\x01" + b"\xff" * 60])
def test_what_is_no_object_is_no_answer(data: bytes) -> None:
    with pytest.raises(ValueError):
        has_core_relocations(data)


def elf(ext: bytes) -> bytes:
    """A least object with one section, .BTF.ext."""
    names = b"\0.BTF.ext\0.names\0"
    headers = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64 + len(names), len(ext), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64, len(names), 0, 0, 1, 0),
    ]
    body = names + ext
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<QIHHHHHH", 64 + len(body), 0, 64, 0, 0, 64, 3, 2)
    return head + body + b"".join(headers)


@pytest.mark.parametrize(("length", "relocates"), [(16, True), (0, False)])
def test_relocations_are_told_by_the_header_of_btf_ext(length: int, relocates: bool) -> None:
    header = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 8, 8, 8, 16, length)
    assert has_core_relocations(elf(header)) is relocates
    assert has_core_relocations(elf(header[:24])) is False


def test_no_odd_answer_of_inspect_is_taken_for_a_good_object() -> None:
    for variant in ("programs", "maps"):
        empty = copy.deepcopy(OBJECT)
        empty[variant] = []
        assert compared(HISTOGRAM, full=empty)


def test_an_object_that_reads_kernel_memory_says_so() -> None:
    reading = {**OBJECT, "reads_kernel": True}
    assert compared(HISTOGRAM, full=reading) == (
        "x/contract.yml: variants[0].requires: lacks the helper by which the object reads kernel memory; "
        "add 'helper:tracing:probe_read_kernel', so that lockdown can be predicted"
    )
    requires = [*GOOD["variants"][0]["requires"], "helper:tracing:probe_read_kernel"]
    assert compared(changed(HISTOGRAM, "variants.0.requires", requires), full=reading) == ""


@pytest.mark.parametrize(
    ("helper", "source", "reads"),
    [(113, 0, True), (115, 0, True), (4, 0, True), (45, 0, True), (112, 0, False), (1, 0, False), (113, 1, False)],
)
def test_what_a_program_calls_is_read_from_its_code(helper: int, source: int, reads: bool) -> None:
    code = struct.pack("<BBhi", 0x85, source << 4, 0, helper) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    assert reads_kernel(program(code, flags=4)) is reads
    assert not reads_kernel(program(code, flags=0)), "data is no code"


def program(code: bytes, flags: int) -> bytes:
    """The least ELF file with one section of these flags."""
    header = b"\x7fELF\x02\x01".ljust(40, b"\0") + struct.pack("<QIHHHHHH", 64 + len(code), 0, 64, 0, 0, 64, 1, 0)
    section = struct.pack("<IIQQQQIIQQ", 0, 1, flags, 0, 64, len(code), 0, 0, 8, 0)
    return header.ljust(64, b"\0") + code + section


def twice(one: str, other: str) -> dict[str, Any]:
    """The object with a second program, in these sections."""
    first = {**OBJECT["programs"][0], "section": one}
    return {**OBJECT, "programs": [first, {**first, "name": "ef_second", "section": other}]}


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ("tp_btf/sched_switch", "raw_tracepoint/sched_switch", True),
        ("raw_tp/sched_switch", "tp/sched/sched_switch", True),
        ("fentry/vfs_read", "kprobe/vfs_read", True),
        ("fexit.s/vfs_read", "kretprobe/vfs_read", True),
        # Two of one kind are meant: no kernel takes only one of them.
        ("kprobe/vfs_read", "kprobe/vfs_read", False),
        ("raw_tp/sched_switch", "raw_tracepoint/sched_switch", False),
        ("fentry/vfs_read", "fexit/vfs_read", False),
        ("kprobe/vfs_read", "kprobe/vfs_write", False),
        ("kprobe/sched_switch", "raw_tp/sched_switch", False),
    ],
)
def test_two_programs_of_an_object_for_one_hook_are_refused(one: str, other: str, refused: bool) -> None:
    said = compared(HISTOGRAM, full=twice(one, other))
    assert ("are for one hook, and both would attach" in said) is refused, said
    if refused:
        assert f"ef_rql_switch ({one}) and ef_second ({other})" in said and "variants[0].programs" in said


@pytest.mark.parametrize(
    ("bytes_", "ring", "words"),
    [
        (8192, 16384, None),
        (8193, 16384, "has 8200 bytes; the loader carries records of at most 8192"),
        (8200, 16384, "signals[0].event"),
        (70000, 1 << 20, "make the record smaller"),
        (4088, 4096, None),
        (4089, 4096, "'ef_events' of variant 'full' has 4096 bytes, fewer than one record and its header (4104)"),
        (8192, 4096, "signals[0].map"),
    ],
)
def test_a_record_that_no_reader_could_carry_is_refused(bytes_: int, ring: int, words: str | None) -> None:
    time = EVENT["ef_exec_event"][0]
    rest = {"name": "data", "offset": 8, "size": bytes_ - 8, "kind": "bytes"}
    built = {**RECORDING, "maps": [COUNTER_MAP, CONFIG_MAP, {**RING, "max_entries": ring}]}
    said = compared(RECORDS, full={**built, "structs": {"ef_exec_event": [time, rest]}})
    about = [line for line in said.splitlines() if "record" in line]
    assert about == [] if words is None else words in "\n".join(about), said


def test_the_longest_record_is_the_loaders() -> None:
    header = (Path(__file__).resolve().parents[2] / "bpf/loader/kernel/format.h").read_text()
    assert f"#define EF_RECORD_BYTES {contract_objects.MAX_RECORD_BYTES} " in header
    assert f"#define EF_RING_HEADER_BYTES {contract_objects.RING_HEADER_BYTES} " in header


@pytest.mark.parametrize(
    "members", [[], [{**WEIGHT, "size": 4}], [{**WEIGHT, "offset": 16}], [{**WEIGHT, "name": "weights"}]]
)
def test_every_record_carries_its_weight(members: list[dict[str, Any]]) -> None:
    odd = {"ef_exec_event": [*EVENT["ef_exec_event"][:1], *members]}
    said = compared(RECORDS, full={**RECORDING, "structs": odd}, perf={**PERF_OBJECT, "structs": odd})
    assert "signals[0].event: struct 'ef_exec_event' of variant 'full' does not go on with a 64-bit weight" in said


def test_what_is_told_together_is_not_told_apart_by_weight() -> None:
    alone = changed(RECORDS, "bcc", REMOVE)
    told = changed(changed(alone, "signals.0.backpressure", "aggregate"), "signals.0.aggregate_by", ["weight"])
    said = compared(told, full=RECORDING, perf=PERF_OBJECT)
    assert "signals[0].aggregate_by: names 'weight'" in said


@pytest.mark.parametrize(("at", "sizes"), [(1, (8, 24)), (2, (8, 16))])
def test_a_map_may_have_the_values_that_objects_had_before(at: int, sizes: tuple[int, ...]) -> None:
    """Settings without a gate, a histogram without weights: the loader reads both."""
    for size in range(4, 33, 4):
        said = compared(HISTOGRAM, full=changed(OBJECT, f"maps.{at}.value_size", size))
        assert (said == "") == (size in sizes), (size, said)
