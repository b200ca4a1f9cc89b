# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader takes as a contract: the kinds of signals, third-party objects, profiles; and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.loader.bundles import Trust
from tests.loader.objects import bundle_of, check, compile_source, contract, plain, variant
from tests.support.requirement_cases import ALTERNATIVES

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF: needs root")

COUNTERS: dict[str, Any] = contract("test", [])["signals"][0]
EVENTS = {**COUNTERS, "name": "told", "kind": "events", "map": "ring", "event": "record", "backpressure": "drop"}
HISTOGRAM = {**COUNTERS, "name": "took", "kind": "histogram", "map": "hist", "scale": "bytes"}


def judge(loader: Path, folder: Path, trust: Trust, expected: int, **changes: Any) -> dict[str, Any]:
    """Check a bundle whose one contract has these changes."""
    names = [each["name"] for each in changes.get("variants", [{"name": "full"}])]
    document = {**contract("test", [variant("full", ["theirs"], ["btf:any"])]), **changes}
    document = {key: value for key, value in document.items() if value is not None}
    data = compile_source(folder, "test", plain("raw_tp/sched_switch", "theirs"))
    bundle = bundle_of(folder, trust, test=(document, {name: data for name in names}))
    return check(loader, bundle, trust, expected=expected)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="counters of an array"),
        pytest.param({"signals": [{**COUNTERS, "key": "their_key"}]}, id="counters with a key"),
        pytest.param({"signals": [COUNTERS, EVENTS, HISTOGRAM]}, id="one of each kind"),
        pytest.param({"signals": [{**EVENTS, "perf_map": "perf"}], "data_path": "events"}, id="a perf buffer"),
        pytest.param({"signals": [{**EVENTS, "backpressure": "sample"}], "data_path": "events"}, id="that samples"),
        pytest.param(
            {"signals": [{**EVENTS, "backpressure": "aggregate", "aggregate_by": ["pid"]}], "data_path": "events"},
            id="that aggregates",
        ),
        pytest.param({"data_path": "policy", "mode": "observe", "signals": [COUNTERS]}, id="policy that observes"),
        pytest.param({"accounting": None}, id="third party that counts as we do"),
        pytest.param({"origin": None, "accounting": None}, id="ours"),
        pytest.param({"maps": [{"name": "hist", "variants": ["full"]}, {"name": "ring"}]}, id="a variant's own map"),
        pytest.param({"bcc": {"programs": ["theirs"], "requires": ["prog_type:raw_tracepoint"]}}, id="a BCC fallback"),
    ],
)
def test_a_contract_that_is_taken(loader: Path, tmp_path: Path, trust: Trust, changes: dict[str, Any]) -> None:
    found = judge(loader, tmp_path, trust, 0, **changes)["features"]["test"]
    assert (found["profile"], found["reason_code"]) == ("full", "EF_OK")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"feature": "other"}, "feature"),
        ({"feature": None}, "feature"),
        ({"signals": [{**COUNTERS, "kind": "gauge"}]}, "signals.kind"),
        ({"signals": [COUNTERS, {**COUNTERS, "name": "again"}]}, "signals.kind"),
        ({"signals": [{**COUNTERS, "key": 7}]}, "key"),
        ({"signals": [{**COUNTERS, "key": ""}]}, "key"),
        ({"signals": [{**COUNTERS, "map": None}]}, "map"),
        ({"signals": [{**EVENTS, "event": ""}]}, "event"),
        ({"signals": [{**EVENTS, "perf_map": 7}]}, "perf_map"),
        ({"signals": [{**EVENTS, "perf_map": "ring"}]}, "signals.perf_map"),
        ({"signals": [{**HISTOGRAM, "scale": "hours"}]}, "signals.scale"),
        ({"signals": [{**COUNTERS, "sample_every": 0}]}, "signals.sample_every"),
        ({"signals": [{**COUNTERS, "backpressure": "drop"}]}, "signals.backpressure"),
        ({"signals": [{**COUNTERS, "aggregate_by": ["pid"]}]}, "signals.backpressure"),
        ({"signals": [{**EVENTS, "backpressure": None}]}, "signals.backpressure"),
        ({"cost_order": None}, "cost_order"),
        ({"cost_order": "last"}, "cost_order"),
        ({"budget": None}, "cpu_millicores"),
        ({"budget": {"cpu_millicores": -1}}, "cpu_millicores"),
        ({"budget": {"cpu_millicores": 1}}, "map_memory_bytes"),
        ({"origin": "ours"}, "origin"),
        ({"accounting": "full"}, "accounting"),
        ({"origin": None}, "accounting"),
        ({"data_path": "logs"}, "data_path"),
        ({"data_path": None}, "data_path"),
        ({"mode": "observe"}, "mode"),
        ({"data_path": "policy"}, "mode"),
        ({"data_path": "policy", "mode": "enforce"}, "mode"),
        ({"maps": [{"name": "hist", "variants": []}]}, "maps.variants"),
        ({"maps": [{"name": "hist", "variants": "full"}]}, "maps.variants"),
        ({"variants": [variant("full", ["theirs"], ["btf:any"], profile="best")]}, "variants.profile"),
        ({"variants": [variant("full", ["theirs"], ["btf:any"], profile=None)]}, "variants.profile"),
        ({"variants": [variant("full", ["theirs"], [])]}, "requires"),
    ],
)
def test_a_contract_that_is_refused(
    loader: Path, tmp_path: Path, trust: Trust, changes: dict[str, Any], field: str
) -> None:
    found = judge(loader, tmp_path, trust, 3, **changes)
    assert (found["reason_code"], found["file"]) == ("EF_CONTRACT_MALFORMED", "features/test/contract.json")
    assert f"'{field}'" in found["reason"] and "build the release again" in found["reason"]


def test_programs_are_held_against_the_contract(loader: Path, tmp_path: Path, trust: Trust) -> None:
    listed = [variant("full", ["theirs", "more"], ["btf:any"]), variant("reduced", ["others"], ["btf:any"])]
    variants = judge(loader, tmp_path, trust, 0, variants=listed)["features"]["test"]["variants"]
    assert [each["reason_code"] for each in variants.values()] == ["EF_CONTRACT_MALFORMED"] * 2
    assert "lacks" in variants["full"]["reason"] and "'theirs'" in variants["reduced"]["reason"]


@pytest.mark.parametrize(("hooks", "refused"), ALTERNATIVES)
def test_two_alternatives_for_one_hook_are_refused_as_the_build_refuses_them(
    loader: Path, tmp_path: Path, trust: Trust, hooks: list[str], refused: bool
) -> None:
    requires = ["btf:any", *(f"attach:{word}" for word in hooks)]
    found = judge(loader, tmp_path, trust, 3 if refused else 0, variants=[variant("full", ["theirs"], requires)])
    if refused:
        assert (found["reason_code"], found["file"]) == ("EF_CONTRACT_MALFORMED", "features/test/contract.json")
        assert "two programs for one hook, and both would attach" in found["reason"]


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ("raw_tp/sched_switch", "raw_tracepoint/sched_switch", False),
        ("raw_tp/sched_switch", "raw_tp/sched_switch", False),
        ("raw_tp/sched_switch", "tp/sched/sched_switch", True),
        ("kprobe/vfs_read", "fentry/vfs_read", True),
        ("kretprobe/vfs_read", "fexit/vfs_read", True),
        ("kprobe/vfs_read", "kretprobe/vfs_read", False),
        ("raw_tp/sched_switch", "raw_tp/sched_wakeup", False),
    ],
)
def test_an_object_with_two_programs_for_one_hook_is_refused_before_it_is_loaded(
    loader: Path, tmp_path: Path, trust: Trust, one: str, other: str, refused: bool
) -> None:
    source = plain(one, "first") + f'SEC("{other}") int second(void *ctx) {{ return 0; }}\n'
    document = contract("test", [variant("full", ["first", "second"], ["btf:any"])])
    bundle = bundle_of(tmp_path, trust, test=(document, {"full": compile_source(tmp_path, "test", source)}))
    found = check(loader, bundle, trust)["features"]["test"]["variants"]["full"]
    assert (found["reason_code"] == "EF_CONTRACT_MALFORMED") is refused, found
    if refused:
        assert f"'first' ({one}) and 'second' ({other})" in found["reason"] and found["loads"] is False


@pytest.mark.parametrize(
    ("bytes_", "ring", "words"),
    [
        (8192, 16384, None),
        (8193, 16384, "has 8200 bytes; this loader carries records of at most 8192"),
        (70000, 1 << 20, "this loader carries records of at most 8192"),
        (4088, 4096, None),
        (4089, 4096, "map 'ring' of variant 'full' has 4096 bytes, fewer than one record and its header (4104)"),
    ],
)
def test_a_record_that_no_reader_could_carry_is_refused_before_it_is_loaded(
    loader: Path, tmp_path: Path, trust: Trust, bytes_: int, ring: int, words: str | None
) -> None:
    source = (
        plain("raw_tp/sched_switch", "theirs")
        + f"struct record {{ unsigned char data[{bytes_}]; }};\n"
        + "struct { __uint(type, BPF_MAP_TYPE_RINGBUF);"
        + f' __uint(max_entries, {ring}); }} ring SEC(".maps");\n'
        + "struct record *keep __attribute__((unused));\n"
    )
    document = contract("test", [variant("full", ["theirs"], ["btf:any"])], signals=[EVENTS], data_path="events")
    bundle = bundle_of(tmp_path, trust, test=(document, {"full": compile_source(tmp_path, "test", source)}))
    found = check(loader, bundle, trust)["features"]["test"]["variants"]["full"]
    if words is None:
        assert found["reason_code"] == "EF_OK", found
        return
    assert (found["reason_code"], found["loads"]) == ("EF_CONTRACT_MALFORMED", False)
    assert words in found["reason"]
