# SPDX-License-Identifier: GPL-3.0-or-later
"""One grammar of requirements and one table of attach kinds: whoever reads a requirement comes to the same verdict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import bundle as bcc_bundle
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import RefusedError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import (
    ATTACH,
    ATTACH_KINDS,
    KINDS,
    OF_SECTION,
    AttachKind,
    of_program,
    parse,
    remedy,
    version_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import hookask, nextkernel, profile
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import kernelask

from tests.support.requirement_cases import CASES
from tests.unit.test_contract import GOOD, changed

ROOT = Path(__file__).resolve().parents[2]
EACH_CASE = pytest.mark.parametrize(("text", "code"), CASES.items(), ids=[ascii(text)[:60] for text in CASES])


# The same verdict everywhere. The loader's is in tests/loader/test_requirements.py.


@EACH_CASE
def test_the_rules_of_a_contract(text: str, code: str | None) -> None:
    requires = [*GOOD["variants"][0]["requires"], text]
    errors = validate_contract(changed(GOOD, "variants.0.requires", requires), "features/f/contract.yml")
    found = [error for error in errors if f"variants[0].requires[{len(requires) - 1}]: is " in error.message]
    assert [error.code for error in found] == ([code] if code else [])
    for error in found:
        problem = error.message.partition(": is ")[2].rpartition("; ")
        assert error.message.startswith("features/f/contract.yml: ") and error.file == "features/f/contract.yml"
        assert re.search(r"^(write|did you mean|choose one of)|without 'bpf_'", problem[2] + problem[0]), error.message


@EACH_CASE
def test_the_prediction(text: str, code: str | None) -> None:
    contract = {"feature": "f", "variants": [{"name": "full", "requires": ["btf:any", text]}]}
    if code is None:
        assert [one.text for one in profile.requirements([contract])] == list(dict.fromkeys(["btf:any", text]))
        assert profile.predict(contract, {})["reason_code"] == "EF_UNKNOWN"
        return
    for refuse in (lambda: profile.requirements([contract]), lambda: profile.predict(contract, {})):
        with pytest.raises(FleetError) as caught:
            refuse()
        assert (caught.value.code, caught.value.file) == (code, "features/f/contract.json")
        expected = f"features/f/contract.json: variants[0].requires[1]: is {text!r}; {remedy(text)}"
        assert caught.value.message == expected


@pytest.mark.parametrize(
    ("text", "code"), [(text, code) for text, code in CASES.items() if text.startswith("attach:")], ids=ascii
)
def test_the_bcc_collector(text: str, code: str | None) -> None:
    """It reads the hooks only, in a process that knows nothing of the collection."""
    kind = None if code else parse(text).attach
    document = {"programs": ["ef_x"], "requires": [text]}
    if kind and kind.bcc:
        assert bcc_bundle.read_hooks("f", document) == {"ef_x": (kind.name, parse(text).target)}
        return
    with pytest.raises(RefusedError) as caught:
        bcc_bundle.read_hooks("f", document)
    assert caught.value.code == "EF_CONTRACT_MALFORMED"


@pytest.mark.parametrize("value", [None, 5, 6.1, True, ["btf:any"], {"btf": "any"}])
def test_what_is_not_text_is_not_a_requirement(value: Any) -> None:
    assert remedy(value) == "give a requirement as text, such as 'btf:vmlinux'"
    with pytest.raises(FleetError, match="give a requirement as text"):
        parse(value)
    with pytest.raises(FleetError, match=r"variants\[0\]\.requires\[0\]: is .*; give a requirement as text"):
        profile.requirements([{"feature": "f", "variants": [{"name": "full", "requires": [value]}]}])


# What a requirement says.


def test_a_requirement_is_read_apart() -> None:
    hook, helper, kind = parse("attach:fexit:do_exit"), parse("helper:kprobe:probe_read"), parse("prog_type:lsm")
    assert (hook.kind, hook.key, hook.target, hook.program_type) == ("attach", "fexit:do_exit", "do_exit", "tracing")
    assert hook.attach is ATTACH["fexit"]
    assert (helper.kind, helper.target, helper.program_type, helper.attach) == ("helper", "probe_read", "kprobe", None)
    assert (kind.key, kind.program_type, kind.attach) == ("lsm", "lsm", None)
    assert parse("btf:any").program_type is None


def test_versions_are_numbers() -> None:
    versions = [version_of(text) for text in ("5.9", "5.10", "05.010", "6.0", "6.0.1")]
    assert versions == [(5, 9), (5, 10), (5, 10), (6, 0), None]


@pytest.mark.parametrize(
    ("section", "kind", "needed"),
    [
        ("tp/sched/sched_switch", "tracepoint", ["prog_type:tracepoint", "attach:tracepoint:sched/sched_switch"]),
        ("raw_tracepoint/x", "raw_tracepoint", ["prog_type:raw_tracepoint", "attach:raw_tp:x"]),
        ("kretprobe/x", "kprobe", ["prog_type:kprobe", "attach:kretprobe:x"]),
        ("fexit.s/x", "tracing", ["prog_type:tracing", "attach:fexit:x", "btf:vmlinux"]),
        ("lsm.s/x", "lsm", ["prog_type:lsm", "attach:lsm:x", "btf:vmlinux"]),
        ("xdp", "xdp", ["prog_type:xdp"]),
    ],
)
def test_what_a_program_surely_needs(section: str, kind: str, needed: list[str]) -> None:
    assert of_program(section, kind) == needed
    assert all(remedy(word) is None for word in needed)


# One table: what else knows attach kinds has exactly its kinds.


def test_every_kind_is_asked_of_a_running_kernel_and_of_the_next_one() -> None:
    assert set(hookask._HOOKS) == set(nextkernel._ATTACH) == set(ATTACH) == {kind.name for kind in ATTACH_KINDS}
    assert len(ATTACH_KINDS) == len(ATTACH) == 8


def test_every_kind_of_requirement_has_its_facts() -> None:
    assert {*profile._TABLES, "btf", "kernel"} == {kind.name for kind in KINDS}
    assert len({kind.reason_code for kind in KINDS}) == len(KINDS) == 6


def test_a_section_is_of_one_kind() -> None:
    assert len(OF_SECTION) == sum(len(kind.sections) for kind in ATTACH_KINDS) == 13
    assert all(OF_SECTION[kind.name] is kind for kind in ATTACH_KINDS)


def test_what_is_looked_for_in_the_kernels_types() -> None:
    names = [kind.btf_type("group/name" if kind.name == "tracepoint" else "name")[1] for kind in ATTACH_KINDS]
    trace, lsm = "btf_trace_name", "bpf_lsm_name"
    assert names == [trace, "name", "name", lsm, trace, trace, "name", "name"]


def test_the_grammar_that_is_documented_is_the_one_that_is_read() -> None:
    text = (ROOT / "docs/formats/requirements.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`attach:(\w+):([A-Z/]+)`", text))
    assert documented == {(kind.name, kind.target.form) for kind in ATTACH_KINDS}
    for kind in KINDS:
        assert f"`{kind.name}:" in text and f"`{kind.reason_code}`" in text


def asker(root: Path) -> hookask.HookAsker:
    """Of a host under lockdown `confidentiality` that has kprobes, tracefs and the BPF LSM, and no BTF of its own."""
    files = {"sys/bus/event_source/devices/kprobe/type": "8", "sys/kernel/security/lsm": "bpf"}
    for name, text in {**files, "sys/kernel/tracing/events/sched/sched_switch/id": "1"}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    types = hookask.KernelTypes(root / "sys/kernel/btf/vmlinux", [])
    return hookask.HookAsker(root, kernelask.Standing(trusted=True, confidential=True), types)


@pytest.mark.parametrize(
    "kind", [kind for kind in ATTACH_KINDS if kind.lockdown or kind.own_btf], ids=lambda one: one.name
)
def test_the_facts_refuse_by_the_tables_word(tmp_path: Path, kind: AttachKind) -> None:
    """Two columns of the table, lockdown and own_btf, against what is asked of a host."""
    target = "sched/sched_switch" if kind.name == "tracepoint" else "sched_switch"
    found = asker(tmp_path).ask(f"{kind.name}:{target}")
    assert (found["answer"], found.get("reason_code")) == ("no", "EF_LOCKDOWN" if kind.lockdown else "EF_NO_BTF")
    assert kind.lockdown is not kind.own_btf


def test_what_needs_neither_is_the_raw_tracepoint() -> None:
    assert [kind.name for kind in ATTACH_KINDS if not kind.lockdown and not kind.own_btf] == ["raw_tp"]
    assert [kind.name for kind in ATTACH_KINDS if kind.perf_event] == ["tracepoint", "kprobe", "kretprobe"]
