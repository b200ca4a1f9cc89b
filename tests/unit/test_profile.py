"""The profile that a feature is predicted to reach."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.profile import (
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
        "prog_type:tracing",
        "map_type:percpu_array",
        "helper:tracing:ringbuf_reserve",
        "attach:tp_btf:sched_switch",
        "attach:raw_tp:sched_switch",
        "attach:tracepoint:sched/sched_switch",
        "attach:kprobe:do_unlinkat",
        "attach:fentry:vfs_unlink",
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
