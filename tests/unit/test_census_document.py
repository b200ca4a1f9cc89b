# SPDX-License-Identifier: GPL-3.0-or-later
"""A census that is read again: each field at its limit and beyond, each that must be there, and BTF that is none."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import (
    capability_document,
    hookask,
    kernelfacts,
    nextkernel,
)

REACHED = {"profile": "full", "variant": "full"}
PREDICTION = {**REACHED, "reason_code": "EF_OK", "reason": "fits", "sentence": "it fits"}
COUNTS = {"full": 1, "reduced": 0, "disabled": 0}
CHANGE = {"feature": "f", "from": REACHED, "to": REACHED, "reason_code": "EF_OK", "sentence": "none"}
HOST = {
    "kernel": {"release": "6.1.0", "family": "6.1", "machine": "x86_64"}, "btf": "vmlinux", "privileged": True,
    "stratum": "6.1/x86_64/debian", "deployable": {"answer": "yes", "reason_code": "EF_OK", "reason": "it is"},
    "profiles": {"f": PREDICTION},
    "policy": [{"feature": "p", "ready": True, "reason_code": "EF_OK", "reason": "ready"}],
    "next_kernel": {"release": "6.2", "chosen_by": "a link", "btf": {"answer": "yes", "evidence": "x"},
                    "source": "/boot/x", "profiles": {"f": PREDICTION}, "changes": [CHANGE], "unknown": ["x"]},
    "trust": {"release": "1.0.0", "ok": True, "reason_code": "EF_OK", "reason": "known", "clock_known": True},
}  # fmt: skip
CENSUS: dict[str, Any] = {
    "schema": "ebpf.fleet/census/v1", "time": "2026-01-01T00:00:00Z", "bundle": {"version": "1"}, "digest": "d" * 64,
    "strata": {"6.1/x86_64/debian": ["h"]},
    "features": {"f": {"hosts": COUNTS, "strata": {"6.1/x86_64/debian": COUNTS},
                       "reasons": {"EF_OK": [{**REACHED, "reason_code": "EF_OK", "reason": "fits", "hosts": ["h"]}]}}},
    "silent": ["gone"], "silence": "gone: no answer", "silent_reasons": {"gone": "no answer"}, "sentences": ["one"],
    "hosts": {"h": HOST},
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """The census with one value of it changed, or taken away; `path` has a blank between its names and numbers."""
    document: dict[str, Any] = json.loads(json.dumps(CENSUS))
    place: Any = document
    *before, last = [int(part) if part.isdigit() else part for part in path.split()]
    for part in before:
        place = place[part]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return document


REMOVED = object()
faults = capability_document.census_faults


def test_a_whole_census_is_read_again() -> None:
    assert faults(CENSUS) is None


TEXTS = {
    "time": 64, "digest": 128, "silent 0": 300, "strata 6.1/x86_64/debian 0": 300, "hosts h btf": 64,
    "hosts h stratum": 200, "hosts h deployable reason_code": 64, "hosts h deployable reason": 4096,
    "hosts h policy 0 feature": 64, "hosts h policy 0 reason_code": 64, "hosts h policy 0 reason": 4096,
    "hosts h trust release": 200, "hosts h trust reason_code": 64, "hosts h kernel release": 65,
    "hosts h next_kernel release": 128, "features f reasons EF_OK 0 reason_code": 64,
    "features f reasons EF_OK 0 reason": 4096, "features f reasons EF_OK 0 hosts 0": 300,
}  # fmt: skip


@pytest.mark.parametrize("path", TEXTS)
def test_each_text_is_read_up_to_its_limit(path: str) -> None:
    limit = TEXTS[path]
    assert faults(changed(path, "x" * limit)) is None
    assert "characters; at most " in str(faults(changed(path, "x" * (limit + 1))))
    assert faults(changed(path, 7)) is not None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hosts h deployable answer", "maybe"),
        ("hosts h privileged", 1),
        ("hosts h policy 0 ready", 1),
        ("hosts h policy", {}),
        ("hosts h trust ok", "yes"),
        ("hosts h profiles f profile", "best"),
        ("hosts h next_kernel changes 0 from profile", "best"),
        ("features f hosts full", -1),
        ("features f hosts reduced", 0.5),
        ("features f strata 6.1/x86_64/debian full", -1),
        ("features f reasons EF_OK 0 profile", "best"),
        ("features f reasons EF_OK", {}),
        ("schema", "ebpf.fleet/census/v2"),
        ("bundle", []),
        ("silent", "gone"),
        ("silent_reasons gone", 7),
        ("sentences 0", None),
    ],
)
def test_what_a_field_may_not_be_is_told(path: str, value: Any) -> None:
    assert faults(changed(path, value)) is not None


@pytest.mark.parametrize("path", [
    "hosts", "hosts h stratum", "hosts h profiles", "hosts h policy", "hosts h policy 0 feature",
    "hosts h policy 0 ready", "hosts h policy 0 reason_code", "hosts h policy 0 reason", "hosts h trust ok",
    "hosts h trust release",
    "features f hosts", "features f hosts full", "features f hosts reduced", "features f hosts disabled",
    "features f strata", "features f reasons", "features f reasons EF_OK 0 hosts", "features f reasons EF_OK 0 variant",
])  # fmt: skip
def test_what_a_page_needs_must_be_there(path: str) -> None:
    assert faults(changed(path, REMOVED)) is not None


def test_a_fault_names_its_host() -> None:
    assert str(faults(changed("hosts h stratum", 7))).startswith("host h: stratum: is a number and not text")
    for odd in (None, [], {}, {"hosts": []}, json.dumps(CENSUS)):
        assert faults(odd) == "it has no hosts"


@pytest.mark.parametrize(("length", "whole"), [(300, True), (301, False)])
def test_what_is_told_of_a_silent_host_is_kept_whole_up_to_three_hundred_characters(length: int, whole: bool) -> None:
    """Of more the begin and the end: ssh says what went wrong last."""
    words = "a" * 100 + "b" * (length - 200) + "c" * 100
    found = str(capability_document._silence({"msg": words, "unreachable": True}))
    assert (found == f"unreachable: {words}") is whole
    assert whole or (found.startswith(f"unreachable: {'a' * 100} … b") and found.endswith("c" * 100))
    assert len(found) <= 300 + len("unreachable: ") + 10


PROGRAM = {"name": "ef_x", "insns": 1, "processed_insns": 2, "stack_bytes": 3}


@pytest.mark.parametrize(
    ("program", "good"),
    [
        (PROGRAM, True),
        (dict.fromkeys(PROGRAM, None) | {"name": "ef_x"}, True),
        ({**PROGRAM, "insns": 0}, True),
        ({**PROGRAM, "insns": -1}, False),
        ({**PROGRAM, "processed_insns": True}, False),
        ({**PROGRAM, "stack_bytes": "3"}, False),
        ({**PROGRAM, "name": "n" * 65}, False),
        ({**PROGRAM, "name": None}, False),
    ],
)
def test_what_the_verifier_counted_of_a_program_may_be_unknown(program: dict[str, Any], good: bool) -> None:
    tried = {"loads": True, "attaches": None, "reason_code": None, "reason": None, "programs": [program]}
    feature = {"predicted": PREDICTION, "reached": None, "equal": None, "variants": {"full": tried}}
    matrix = {"hosts": {"k61": {"kernel": HOST["kernel"], "family": "6.1", "features": {"f": feature}}}}
    assert (capability_document.matrix_faults(matrix) is None) is good


@pytest.mark.parametrize("gap", [0, 8])
def test_enumerators_are_found_wherever_the_types_stand_in_the_btf(gap: int) -> None:
    """An enum of two and one of 64 bits, behind another type."""
    strings = b"\0word\0one\0A\0B\0two\0C\0"
    at = {name: strings.index(b"\0" + name + b"\0") + 1 for name in (b"word", b"one", b"A", b"B", b"two", b"C")}
    types = struct.pack("=4I", at[b"word"], 1 << 24, 4, 32)
    types += struct.pack("=3I4I", at[b"one"], 6 << 24 | 2, 4, at[b"A"], 7, at[b"B"], 9)
    types += struct.pack("=3I3I", at[b"two"], 19 << 24 | 1, 8, at[b"C"], 5, 1)
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, gap, len(types), gap + len(types), len(strings))
    found = nextkernel.enumerators(head + bytes(gap) + types + strings, ["one", "two", "none"])
    assert found == {"one": {"A": 7, "B": 9}, "two": {"C": 5}}


def test_the_active_lsms_are_those_of_the_file_where_it_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/security").mkdir(parents=True)
    (tmp_path / "sys/kernel/security/lsm").write_text("capability,own,bpf\n")
    assert kernelfacts.read_host(tmp_path)["lsms"] == ["capability", "own", "bpf"]
    assert kernelfacts.read_host(tmp_path / "none")["lsms"] == kernelfacts.list_lsms()


def test_btf_that_cannot_be_read_is_no_btf_and_a_path_that_cannot_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"this is not BTF")
    for name, answer, code in (("bad", "no", "EF_BTF_UNREADABLE"), ("none", "no", None), (".", "unknown", None)):
        types = hookask.KernelTypes(tmp_path / name, [(1, "int")])
        assert (types.answer["answer"], types.answer.get("reason_code")) == (answer, code)
        assert str(tmp_path) in types.answer["evidence"] and types.find(1, "int") == 0
