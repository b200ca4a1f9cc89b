# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile that a feature is predicted to reach."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.profile import predict, requirements

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


VARIANT: dict[str, Any] = {"name": "full", "requires": ["btf:any"]}


@pytest.mark.parametrize(
    ("contract", "file", "words"),
    [
        ({}, None, "contract None: needs a feature name and at least one variant; pass contract.json as built"),
        ({"feature": "f"}, "f", "contract f: needs a feature name and at least one variant"),
        ({"feature": "f", "variants": []}, "f", "contract f: needs a feature name and at least one variant"),
        ({"feature": 7, "variants": [VARIANT]}, None, "contract 7: needs a feature name"),
        ({"variants": ["full"]}, "f", "variants[0]: is 'full'; give a mapping"),
        (
            {"variants": [VARIANT, {"requires": []}]},
            "f",
            "variants[1].name: is missing or not text; give the",
        ),
        ({"variants": [{"name": "x"}]}, "f", "variants[0].requires: is not there or not a list; give a list"),
        ({"variants": [{"name": "x", "requires": "btf:any"}]}, "f", "variants[0].requires: is not there or not a list"),
        ({"variants": [VARIANT], "bcc": "yes"}, "f", "bcc: is 'yes'; give a mapping"),
        ({"variants": [VARIANT], "bcc": {"programs": ["p"]}}, "f", "bcc.requires: is not there or not a list"),
        ({"variants": [VARIANT], "bcc": {"requires": ["btf:none"]}}, "f", "bcc.requires[0]: is 'btf:none'; write 'btf"),
    ],
)
def test_a_contract_without_what_is_needed_is_refused(contract: dict[str, Any], file: str | None, words: str) -> None:
    contract = {"feature": "f", **contract} if "variants" in contract else contract
    for refuse in (lambda: requirements([CONTRACT, contract]), lambda: predict(contract, facts())):
        with pytest.raises(FleetError) as caught:
            refuse()
        assert (caught.value.code, caught.value.file) == (
            "EF_CONTRACT_MALFORMED",
            file and f"features/{file}/contract.json",
        )
        assert words in caught.value.message


def test_every_bad_requirement_is_said_at_once() -> None:
    bad = {"feature": "f", "variants": [{"name": "x", "requires": ["map_type:arena", "btf:any", "kernel:6"]}]}
    with pytest.raises(FleetError) as caught:
        requirements([bad, {**bad, "feature": "g"}])
    assert "4 problems: features/f/contract.json: variants[0].requires[0]: is 'map_type:arena'" in caught.value.message
    assert "features/g/contract.json: variants[0].requires[2]: is 'kernel:6'; write 'kernel:" in caught.value.message


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
