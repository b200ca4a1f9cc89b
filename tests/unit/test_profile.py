# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile that a feature is predicted to reach."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.profile import (
    ContractError,
    parse_requirement,
    predict,
    requirements,
)

YES = {"answer": "yes", "evidence": "tried"}
NO = {"answer": "no", "evidence": "EINVAL"}
EPERM = {"answer": "unknown", "evidence": "EPERM"}

CONTRACT = {
    "feature": "runqlat",
    "variants": [
        {"name": "full", "requires": ["btf:vmlinux", "attach:tp_btf:sched_switch", "kernel:5.5"]},
        {"name": "reduced", "requires": ["prog_type:raw_tracepoint", "attach:raw_tp:sched_switch"]},
    ],
}


def facts(**changes: Any) -> dict[str, Any]:
    """Facts of a host that can run everything in CONTRACT."""
    base = {
        "kernel": {"family": "6.1"},
        "btf": YES,
        "program_types": {"raw_tracepoint": YES},
        "map_types": {},
        "helpers": {},
        "attach_points": {"tp_btf:sched_switch": YES, "raw_tp:sched_switch": YES},
    }
    return {**base, **changes}


def test_every_requirement_met_is_full() -> None:
    assert predict(CONTRACT, facts()) == {
        "profile": "full",
        "variant": "full",
        "reason_code": "EF_OK",
        "reason": "every requirement of variant full is met",
        "sentence": "runqlat → full: every requirement of variant full is met",
    }


def test_a_no_leads_to_the_next_variant_and_says_why() -> None:
    found = predict(CONTRACT, facts(btf=NO))
    assert (found["profile"], found["variant"], found["reason_code"]) == ("reduced", "reduced", "EF_NO_BTF")
    assert "full needs btf:vmlinux: no (EINVAL)" in found["reason"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [(EPERM, "EF_PERMISSION"), ({"answer": "unknown", "evidence": "ENOMEM"}, "EF_UNKNOWN"), ({}, "EF_UNKNOWN")],
)
def test_unknown_is_never_yes(answer: dict[str, str], code: str) -> None:
    points = {"tp_btf:sched_switch": answer, "raw_tp:sched_switch": answer}
    found = predict(CONTRACT, facts(attach_points=points))
    assert (found["profile"], found["variant"], found["reason_code"]) == ("disabled", None, code)
    assert "unknown" in found["reason"]


def test_a_fact_that_was_not_asked_is_unknown() -> None:
    found = predict(CONTRACT, {"kernel": {"family": "6.1"}})
    assert found["profile"] == "disabled"
    assert "was not asked" in found["reason"]


def test_an_answer_that_is_a_bare_word_is_unknown() -> None:
    assert predict(CONTRACT, facts(btf="yes"))["variant"] == "reduced"


@pytest.mark.parametrize(
    ("family", "variant"), [("5.4", "reduced"), ("5.5", "full"), ("5.10", "full"), ("6.1", "full"), (None, "reduced")]
)
def test_kernel_versions_are_compared_as_numbers(family: str | None, variant: str) -> None:
    assert predict(CONTRACT, facts(kernel={"family": family}))["variant"] == variant


def test_another_variant_name_is_reduced() -> None:
    contract = {"feature": "f", "variants": [{"name": "tiny", "requires": []}]}
    assert predict(contract, facts())["profile"] == "reduced"


@pytest.mark.parametrize(("today", "profile"), [("2027-06-29", "full"), ("2027-06-30", "disabled")])
def test_expiry_is_the_first_day_that_it_does_not_run(today: str, profile: str) -> None:
    found = predict({**CONTRACT, "expires": "2027-06-30"}, facts(), today)
    assert found["profile"] == profile
    assert (found["reason_code"] == "EF_EXPIRED") is (profile == "disabled")


@pytest.mark.parametrize(
    "text",
    [
        "btf:vmlinux",
        "btf:any",
        "prog_type:tracing",
        "map_type:percpu_array",
        "helper:tracing:ringbuf_reserve",
        "attach:tp_btf:sched_switch",
        "attach:raw_tp:sched_switch",
        "attach:tracepoint:sched/sched_switch",
        "attach:kprobe:do_unlinkat",
        "attach:kretprobe:do_unlinkat",
        "attach:fentry:vfs_unlink",
        "attach:fexit:vfs_unlink",
        "attach:lsm:file_open",
        "kernel:5.10",
    ],
)
def test_the_whole_grammar_is_read(text: str) -> None:
    assert parse_requirement(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "btf:module",
        "prog_type:Tracing",
        "map_type:perCPU",
        "helper:tracing",
        "helper:tracing:nope",
        "attach:tp_btf:",
        "attach:tp_btf:a b",
        "attach:tracepoint:sched_switch",
        "attach:uprobe:main",
        "kernel:5",
        "kernel:five.ten",
        "config:CONFIG_BPF",
        "",
    ],
)
def test_anything_else_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ContractError, match=r"requirement '.*': .*(write|use one of|only)"):
        parse_requirement(text)


def test_the_error_names_feature_and_variant() -> None:
    contract = {"feature": "f", "variants": [{"name": "full", "requires": ["map_type:nope"]}]}
    with pytest.raises(ContractError, match="contract f, variant full: requirement 'map_type:nope'"):
        requirements([contract])


@pytest.mark.parametrize(
    "contract", [{}, {"feature": "f"}, {"feature": "f", "variants": []}, {"feature": "f", "variants": [{"name": "x"}]}]
)
def test_a_contract_without_what_is_needed_is_refused(contract: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="contract"):
        requirements([contract])


def test_requirements_are_collected_once() -> None:
    found = [one.text for one in requirements([CONTRACT, {**CONTRACT, "feature": "other"}])]
    assert len(found) == len(set(found)) == 5


def no(code: str | None = None, evidence: str = "told so") -> dict[str, str]:
    return {"answer": "no", "evidence": evidence, **({"reason_code": code} if code else {})}


def one(*requires: str, **more: Any) -> dict[str, Any]:
    """A contract with one variant."""
    return {"feature": "f", "variants": [{"name": "reduced", "requires": list(requires), **more}]}


@pytest.mark.parametrize(
    ("requires", "answers", "code"),
    [
        # A symbol that was renamed or is gone.
        (["attach:kprobe:do_unlinkat"], {"attach_points": {"kprobe:do_unlinkat": NO}}, "EF_NO_ATTACH_POINT"),
        (["attach:kretprobe:x"], {"attach_points": {"kretprobe:x": NO}}, "EF_NO_ATTACH_POINT"),
        # fentry refused by policy; the LSM not active; lockdown; an architecture without trampoline.
        (["attach:fentry:x"], {"attach_points": {"fentry:x": no("EF_PERMISSION")}}, "EF_PERMISSION"),
        (["attach:lsm:x"], {"attach_points": {"lsm:x": no("EF_LSM_INACTIVE")}}, "EF_LSM_INACTIVE"),
        (["attach:kprobe:x"], {"attach_points": {"kprobe:x": no("EF_LOCKDOWN")}}, "EF_LOCKDOWN"),
        (["attach:fexit:x"], {"attach_points": {"fexit:x": no("EF_ATTACH_FAILED")}}, "EF_ATTACH_FAILED"),
        (["helper:tracing:d_path"], {"helpers": {"tracing:d_path": NO}}, "EF_NO_HELPER"),
        (["helper:kprobe:probe_read"], {"helpers": {"kprobe:probe_read": no("EF_LOCKDOWN")}}, "EF_LOCKDOWN"),
        (["map_type:ringbuf"], {"map_types": {"ringbuf": NO}}, "EF_NO_MAP_TYPE"),
        (["prog_type:lsm"], {"program_types": {"lsm": NO}}, "EF_NO_PROG_TYPE"),
        (["kernel:6.2"], {}, "EF_KERNEL_TOO_OLD"),
    ],
)
def test_each_cause_has_its_code(requires: list[str], answers: dict[str, Any], code: str) -> None:
    found = predict(one(*requires), facts(**answers))
    assert (found["profile"], found["variant"], found["reason_code"]) == ("disabled", None, code)
    assert requires[0] in found["reason"]
    assert found["sentence"] == "f → disabled: " + found["reason"]


@pytest.mark.parametrize(
    ("requires", "code"),
    [
        # What is asked before the load comes first, whatever the contract's order is.
        (["map_type:ringbuf", "attach:kprobe:gone"], "EF_NO_ATTACH_POINT"),
        (["attach:kprobe:gone", "kernel:9.9"], "EF_NO_ATTACH_POINT"),
        (["kernel:9.9", "attach:kprobe:gone"], "EF_KERNEL_TOO_OLD"),
        # The load is refused before anything explains it, and what fails to attach has loaded.
        (["map_type:ringbuf", "prog_type:lsm"], "EF_PERMISSION"),
        (["attach:fentry:deaf", "map_type:ringbuf"], "EF_NO_MAP_TYPE"),
        # A no is certain, an unknown is not.
        (["attach:kprobe:unheard", "map_type:ringbuf"], "EF_NO_MAP_TYPE"),
    ],
)
def test_of_two_causes_the_one_that_the_loader_meets_first(requires: list[str], code: str) -> None:
    points = {"kprobe:gone": NO, "fentry:deaf": no("EF_ATTACH_FAILED"), "kprobe:unheard": EPERM}
    asked = facts(attach_points=points, map_types={"ringbuf": NO}, program_types={"lsm": no("EF_PERMISSION")})
    assert predict(one(*requires), asked)["reason_code"] == code


@pytest.mark.parametrize(
    ("btf", "vmlinux", "any_"),
    [
        (YES, "EF_OK", "EF_OK"),
        ({**NO, "bundled": YES}, "EF_NO_BTF", "EF_OK"),
        ({**NO, "bundled": NO}, "EF_NO_BTF", "EF_NO_BTF"),
        ({**NO, "bundled": no("EF_BTF_MISMATCH")}, "EF_NO_BTF", "EF_BTF_MISMATCH"),
        (NO, "EF_NO_BTF", "EF_UNKNOWN"),
        ({"answer": "unknown", "evidence": "EIO", "bundled": YES}, "EF_UNKNOWN", "EF_UNKNOWN"),
    ],
)
def test_bundled_btf_stands_in_for_relocation_only(btf: dict[str, Any], vmlinux: str, any_: str) -> None:
    assert predict(one("btf:vmlinux"), facts(btf=btf))["reason_code"] == vmlinux
    assert predict(one("btf:any"), facts(btf=btf))["reason_code"] == any_


@pytest.mark.parametrize(("declared", "profile"), [("full", "full"), ("reduced", "reduced"), (None, "reduced")])
def test_a_variant_may_declare_its_profile(declared: str | None, profile: str) -> None:
    contract = one() if declared is None else one(profile=declared)
    assert predict(contract, facts())["profile"] == profile


WITH_BCC = {**one("btf:vmlinux"), "bcc": {"programs": ["p"], "requires": ["attach:raw_tp:sched_switch"]}}
HAS_BCC = {"btf": NO, "bcc": YES}


@pytest.mark.parametrize(
    ("changes", "fallbacks", "profile", "variant"),
    [
        (HAS_BCC, ["bcc"], "reduced", "bcc"),
        (HAS_BCC, [], "disabled", None),
        ({**HAS_BCC, "bcc": NO}, ["bcc"], "disabled", None),
        ({"btf": NO}, ["bcc"], "disabled", None),
        ({**HAS_BCC, "attach_points": {}}, ["bcc"], "disabled", None),
        ({"btf": YES, "bcc": YES}, ["bcc"], "reduced", "reduced"),
    ],
)
def test_the_bcc_fallback_is_the_last_and_opted_in(
    changes: dict[str, Any], fallbacks: list[str], profile: str, variant: str | None
) -> None:
    found = predict(WITH_BCC, facts(**changes), None, fallbacks)
    assert (found["profile"], found["variant"]) == (profile, variant)
    assert found["reason_code"] == ("EF_OK" if variant == "reduced" else "EF_NO_BTF")


def test_an_expired_feature_has_no_fallback() -> None:
    found = predict({**WITH_BCC, "expires": "2026-01-01"}, facts(**HAS_BCC), "2026-11-23", ["bcc"])
    assert (found["profile"], found["reason_code"]) == ("disabled", "EF_EXPIRED")


def test_what_bcc_lacks_is_said() -> None:
    found = predict(WITH_BCC, facts(btf=NO, bcc=no(None, "install python3-bpfcc")), None, ["bcc"])
    assert "bcc needs python3-bpfcc and kernel headers: no (install python3-bpfcc)" in found["sentence"]


def test_the_needs_of_the_fallback_are_asked_too() -> None:
    assert [each.text for each in requirements([WITH_BCC])] == ["btf:vmlinux", "attach:raw_tp:sched_switch"]


def test_one_feature_says_nothing_of_another() -> None:
    broken, fine = one("map_type:ringbuf"), {**one("btf:vmlinux"), "feature": "g"}
    host = facts(map_types={"ringbuf": NO})
    assert [predict(each, host)["profile"] for each in (broken, fine)] == ["disabled", "reduced"]
