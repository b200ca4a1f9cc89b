# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet can run, counted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document, census, strata

FULL = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "fine"}
DISABLED = {"profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": "the kernel has no BTF"}
STRATUM = "6.1/x86_64/debian"


def answer(family: str | None, facts: dict[str, Any] | None = None, **profiles: Any) -> dict[str, Any]:
    kernel = {"release": "x", "family": family, "machine": "x86_64"}
    capabilities = {"kernel": kernel, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}, **(facts or {})}
    return {"capabilities": capabilities, "profiles": profiles}


def test_counts_by_feature_and_stratum_with_reasons() -> None:
    result = census.capability_census(
        {"a": answer("6.1", runqlat=FULL), "b": answer("6.1", runqlat=DISABLED), "c": answer("5.10", runqlat=FULL)}
    )
    assert result["features"]["runqlat"]["hosts"] == {"full": 2, "reduced": 0, "disabled": 1}
    assert result["features"]["runqlat"]["strata"][STRATUM] == {"full": 1, "reduced": 0, "disabled": 1}
    assert result["strata"] == {STRATUM: ["a", "b"], "5.10/x86_64/debian": ["c"]}
    assert "b: runqlat: the kernel has no BTF (EF_NO_BTF)" in result["sentences"]
    assert result["silent"] == []


def test_a_reason_that_hosts_share_is_told_once_with_their_names() -> None:
    hosts = {name: answer("6.1", runqlat=DISABLED) for name in "cab"} | {"d": answer("6.1", runqlat=FULL)}
    reasons = census.capability_census(hosts)["features"]["runqlat"]["reasons"][STRATUM]
    assert reasons == [{**DISABLED, "hosts": ["a", "b", "c"]}, {**FULL, "hosts": ["d"]}]


def test_a_silent_host_is_named_and_counted_nowhere() -> None:
    answers = {
        "a": answer("6.1", runqlat=FULL),
        "b": {"unreachable": True, "msg": "Failed to connect\nto the host"},
        "c": {"failed": True, "msg": "no Python"},
        "d": {},
    }
    result = census.capability_census(answers)
    assert result["silent"] == ["b", "c", "d"]
    reasons = {"b": "unreachable: Failed to connect to the host", "c": "failed: no Python", "d": None}
    assert result["silent_reasons"] == reasons
    assert result["silence"] == (
        "no answer from b: unreachable: Failed to connect to the host; no answer from c: failed: no Python; "
        "no answer from d: nothing was reported of it: it was skipped, or lost before it was asked"
    )
    assert result["features"]["runqlat"]["hosts"] == {"full": 1, "reduced": 0, "disabled": 0}


def test_what_is_not_known_of_a_host_reads_unknown() -> None:
    assert strata.stratum_of({}) == "unknown/unknown/unknown"
    (host,) = strata.rollout_hosts([{"inventory_hostname": "a"}])
    assert host == {"name": "a", "cell": None, "region": None, "stratum": "unknown/unknown/unknown",
                    "expected": None, "before": None}  # fmt: skip


def test_the_bundle_that_was_asked_about_is_named() -> None:
    target = {"bundle": {"name": "ebpf-fleet", "version": "2.0.0", "sequence": 9}, "digest": "ab" * 32, "contracts": []}
    result = census.capability_census({"a": answer("6.1")}, target=target, time="2026-11-23T22:00:00Z")
    assert (result["bundle"]["version"], result["digest"], result["time"]) == (
        "2.0.0",
        "ab" * 32,
        "2026-11-23T22:00:00Z",
    )
    assert census.capability_census({})["bundle"] is None


def test_a_policy_feature_is_judged_on_the_hosts_that_would_run_it() -> None:
    contracts = [{"feature": "exec_policy", "data_path": "policy", "budget": {"drop_ratio_ppm": 0}}]
    answers = {"a": answer("6.1", {"release": None}), "b": answer("6.1", {"release": None})}
    off = {"a": {"exec_policy": {}}, "b": {"exec_policy": {"enabled": False}}}
    result = census.capability_census(answers, target={"contracts": contracts}, features=off)
    assert result["hosts"]["a"]["policy"][0]["reason_code"] == "EF_POLICY_NOT_READY"
    assert result["hosts"]["b"]["policy"] == []
    assert any(line.startswith("a: exec_policy: no release of ours") for line in result["sentences"])


def test_changes_at_next_boot_are_told_once_for_the_hosts_they_are_true_of() -> None:
    change = {"feature": "runqlat", "from": {"profile": "full", "variant": "full"}, "reason_code": "EF_NO_BTF",
              "to": {"profile": "disabled", "variant": None}, "sentence": "runqlat → disabled: gone"}  # fmt: skip
    same: dict[str, Any] = {"release": "6.1", "chosen_by": "the link", "btf": {"answer": "yes", "evidence": "x"},
                            "profiles": {}, "changes": []}  # fmt: skip
    changed = {**same, "release": "7.3", "changes": [change]}
    hosts = {f"a{number}": answer("6.1", {"next_kernel": changed}) for number in range(7)}
    hosts["b"] = answer("6.1", {"next_kernel": same}, runqlat=FULL)
    hosts["c"] = answer("6.1", {"next_kernel": {**same, "release": None, "chosen_by": "two are installed"}})
    told = [line for line in census.capability_census(hosts)["sentences"] if "next boot" in line]
    assert told == [
        "a0, a1, a2, a3, a4 and 2 more: next boot (7.3): runqlat → disabled: gone",
        "b: next boot (6.1): no change is foreseen",
        "c: next boot: unknown: two are installed",
    ]


class Counted(str):
    """Text that counts its comparisons: the census's work, whatever the machine."""

    work = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.work += 1
        return str.__eq__(self, other)


def work_of(count: int) -> int:
    """Comparisons of a census's counting where each host has a reason of its own."""
    hosts = {
        f"h{i:05}": {"stratum": STRATUM, "profiles": {"runqlat": {**DISABLED, "reason": Counted(f"because {i}")}}}
        for i in range(count)
    }
    Counted.work = 0
    found = census._features(hosts)
    assert len(found["runqlat"]["reasons"][STRATUM]) == count
    return Counted.work


def test_the_work_of_a_census_grows_with_the_fleet_and_not_with_its_square() -> None:
    assert work_of(1_600) <= 10 * max(work_of(400), 100)


@pytest.mark.parametrize(
    ("systemd", "answer_", "profile"),
    [
        ({"pid1": {"answer": "yes", "evidence": "there"}}, "yes", "full"),
        ({"pid1": {"answer": "no", "evidence": "run/systemd/system is not there"}}, "no", "disabled"),
        ({"pid1": {"answer": "unknown"}}, "unknown", "full"),
        ({"installed": {"answer": "yes"}, "pid1": {"answer": "no"}}, "no", "disabled"),
        ({"installed": {"answer": "no"}}, "unknown", "full"),
        ({}, "unknown", "full"),
        (None, "unknown", "full"),
    ],
)
def test_a_host_without_systemd_runs_nothing_whatever_its_kernel_could(
    systemd: Any, answer_: str, profile: str
) -> None:
    facts = {} if systemd is None else {"systemd": systemd}
    found = census.capability_census({"a": answer("6.1", facts, runqlat=FULL), "b": answer("6.1", runqlat=FULL)})
    host = found["hosts"]["a"]
    assert (host["deployable"]["answer"], host["profiles"]["runqlat"]["profile"]) == (answer_, profile)
    told = [line for line in found["sentences"] if line.startswith("a: ")]
    assert bool(told) is (answer_ == "no")
    if told:
        assert "no release can be deployed to this host" in told[0] and "(EF_NO_SYSTEMD)" in told[0] and len(told) == 1
        assert found["features"]["runqlat"]["hosts"] == {"full": 1, "reduced": 0, "disabled": 1}
    assert capability_document.census_faults(found) is None


def test_a_host_without_systemd_is_told_without_a_bundle_too() -> None:
    facts = {"systemd": {"pid1": {"answer": "no", "evidence": "x"}}}
    assert "no release can be deployed" in " ".join(census.capability_census({"a": answer("6.1", facts)})["sentences"])
