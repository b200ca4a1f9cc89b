# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts by their values: which may be null, what a whole answer is worth, and every line of a census."""

from __future__ import annotations

import copy
import gzip
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import (
    capability_document,
    census,
    kernelfacts,
    strata,
)

YES = {"answer": "yes", "evidence": "seen", "reason_code": "EF_OK"}
PREDICTION = {"profile": "full", "variant": "ring", "reason_code": "EF_OK", "reason": "fine", "sentence": "f: fine"}
REACHED = {"profile": "full", "variant": "ring"}
# Every field that a host may send, once.
WHOLE: dict[str, Any] = {
    "schema": "ebpf.fleet/capabilities/v1",
    "privileged": True,
    "kernel": {"release": "6.1.0-9", "family": "6.1", "distro_family": "debian-6.1", "machine": "x86_64",
               "build_id": "ab12"},
    "distro": {"id": "debian", "version_id": "12"},
    "python": "3.11.2",
    "systemd": {"pid1": YES},
    "btf": {"state": "vmlinux", "answer": "yes", "evidence": "there", "bundled": YES, "modules": ["nf"]},
    "lockdown": {"mode": "none", "evidence": "file"},
    "lsms": ["bpf"],
    "memlock": {"soft_bytes": 65536, "unlimited": False},
    "cgroup": "v2",
    "program_types": {"kprobe": YES},
    "map_types": {"hash": YES},
    "helpers": {"kprobe:x": YES},
    "attach_points": {"kprobe:y": YES},
    "attach_kinds": {"fentry": YES},
    "bpf_links": {"perf": YES},
    "signed_programs": YES,
    "stats": YES,
    "bcc": YES,
    "loaded": {"programs": [{"id": 1}], "maps": [{"id": 2}], "links": [{"id": 3}]},
    "own_programs": {"programs": [{"id": 4}]},
    "release": {
        "version": "1.0", "digest": "ab" * 32, "sequence": 7, "state": "running", "status_age_ns": 8,
        "features": {"runqlat": {"state": "attached", "profile": "full", "variant": "ring", "data_path": "metrics",
                                 "produced": 9, "dropped": 10, "sampled_out": 11}},
    },
    "kill_orders": ["global"],
    "trust": {"release": "1", "ok": True, "reason_code": "EF_OK", "reason": "fine", "clock_known": True},
    "next_kernel": {
        "release": "6.9", "chosen_by": "grub", "btf": YES, "source": "boot/vmlinuz",
        "profiles": {"runqlat": PREDICTION},
        "changes": [{"feature": "runqlat", "from": REACHED, "to": REACHED, "reason_code": "EF_OK", "sentence": "it"}],
        "unknown": ["members"],
    },
    "profiles": {"runqlat": PREDICTION},
}  # fmt: skip
# What a host may not know. Each is a path; of a list the first.
NULLABLE = {
    *(f"kernel.{name}" for name in ("release", "family", "distro_family", "machine", "build_id")),
    "distro.id", "distro.version_id", "btf.modules", "lockdown.mode", "lsms", "memlock.soft_bytes", "cgroup",
    "loaded.programs", "loaded.maps", "loaded.links", "own_programs.programs", "release", "kill_orders", "trust",
    *(f"release.{name}" for name in ("version", "digest", "sequence", "state", "status_age_ns", "features")),
    *(f"release.features.runqlat.{name}" for name in ("state", "profile", "variant", "data_path", "produced",
                                                      "dropped", "sampled_out")),
    "next_kernel", "next_kernel.release", "next_kernel.source", "next_kernel.profiles.runqlat.variant",
    "next_kernel.changes.0.from.variant", "next_kernel.changes.0.to.variant", "profiles.runqlat.variant",
}  # fmt: skip


def paths(value: Any, at: str = "") -> list[str]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path for key, child in below for path in paths(child, f"{at}.{key}" if at else str(key))]
    return ([at] if at else []) + found


def with_null(path: str) -> dict[str, Any]:
    changed = copy.deepcopy(WHOLE)
    *above, last = path.split(".")
    place: Any = changed
    for word in above:
        place = place[int(word)] if isinstance(place, list) else place[word]
    place[int(last) if isinstance(place, list) else last] = None
    return changed


def test_a_whole_answer_is_taken_as_it_is_and_nothing_of_it_is_lost() -> None:
    answer = capability_document.read("h", {"capabilities": WHOLE, "profiles": {"runqlat": PREDICTION}}, ["runqlat"])
    assert answer.problem is None
    assert answer.capabilities == WHOLE and answer.profiles == {"runqlat": PREDICTION}


@pytest.mark.parametrize("path", sorted(set(paths(WHOLE))))
def test_only_what_a_host_may_not_know_may_be_null(path: str) -> None:
    answer = capability_document.read("h", {"capabilities": with_null(path)})
    if path in NULLABLE:
        assert answer.problem is None and answer.capabilities == with_null(path)
    else:
        assert answer.capabilities is None
        assert answer.problem is not None and "no usable answer from h: " in answer.problem


@pytest.mark.parametrize("name", ["kernel", "distro", "btf"])
def test_what_every_host_knows_must_be_there(name: str) -> None:
    assert capability_document.read("h", {"capabilities": {**WHOLE}}).problem is None
    missing = {key: value for key, value in WHOLE.items() if key != name}
    problem = capability_document.read("h", {"capabilities": missing}).problem
    assert problem is not None and f"{name}: is missing" in problem


# ---- what is read of files ----


@pytest.mark.parametrize(
    ("caps", "privileged"),
    [("0", False), (f"{1 << 21:x}", True), (f"{1 << 38 | 1 << 39:016x}", True), (f"{1 << 38:x}", False),
     (f"{1 << 39:x}", False), (f"{1 << 20 | 1 << 22 | 1 << 37 | 1 << 40:x}", False), ("000001ffffffffff", True)],
)  # fmt: skip
def test_the_questions_need_sys_admin_or_both_of_bpf_and_perfmon(tmp_path: Path, caps: str, privileged: bool) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"Name:\tx\nCapPrm:\tffff\nCapEff:\t{caps}\nCapBnd:\tffffffffffffffff\n")
    assert kernelfacts.has_privilege(tmp_path) is privileged


def test_the_numbers_of_security_modules_are_the_kernels() -> None:
    """linux/lsm.h counts them from 100 in this order; 99 and below are reserved."""
    names = ["capability", "selinux", "smack", "tomoyo", "apparmor", "yama", "loadpin", "safesetid", "lockdown", "bpf",
             "landlock", "ima", "evm", "ipe"]  # fmt: skip
    assert dict(enumerate(names, 100)) == kernelfacts.LSM_NAMES


@pytest.mark.parametrize(("more", "whole"), [(0, True), (1, False)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_configuration_may_be_4_mib_and_no_larger(tmp_path: Path, more: int, whole: bool, packed: bool) -> None:
    text = b"CONFIG_X=y\n" + b"#" * ((4 << 20) - 11 + more)
    path = tmp_path / "config"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = kernelfacts.read_config_text(path)
    assert (found is not None and len(found) == 4 << 20) is whole


# ---- strata ----


@pytest.mark.parametrize(
    ("expected", "agrees"),
    [("6.1/x86_64/debian", True), ("*/*/*", True), ("6.1/*/*", True), ("6.2/*/*", False), ("*/aarch64/*", False),
     ("*/*/fedora", False), ("*/x86_64/debian", True)],
)  # fmt: skip
def test_a_stratum_agrees_part_by_part(expected: str, agrees: bool) -> None:
    assert strata.stratum_of(WHOLE) == "6.1/x86_64/debian"
    assert strata.agrees("6.1/x86_64/debian", expected) is agrees


def test_what_is_not_known_of_a_stratum_reads_unknown() -> None:
    assert strata.stratum_of({}) == "unknown/unknown/unknown"
    assert strata.stratum_of({"kernel": {"family": "6.1"}, "distro": {"id": None}}) == "6.1/unknown/unknown"


@pytest.mark.parametrize("value", ["6.1", "6.1/x86_64", "6.1/x86_64/debian/12", "6.1//debian", 6.1, "", "a b/c/d"])
def test_an_expected_stratum_that_is_none_is_refused(value: Any) -> None:
    host = {"inventory_hostname": "h", "ebpf_fleet_expected_stratum": value}
    with pytest.raises(FleetError, match=r"^h: ebpf_fleet_expected_stratum .* is not FAMILY/MACHINE/DISTRO"):
        strata.rollout_hosts([host])


def test_a_host_in_a_plan_has_what_the_plan_needs() -> None:
    host = {"inventory_hostname": "h", "ebpf_fleet_cell": "c", "ebpf_fleet_region": "r",
            "ebpf_fleet_expected_stratum": "*/*/*", "ebpf_fleet_capability": {"capabilities": WHOLE}}  # fmt: skip
    base = {"name": "h", "cell": "c", "region": "r", "stratum": "6.1/x86_64/debian", "expected": "*/*/*"}
    last = census.capability_census({"h": {"capabilities": WHOLE}})
    assert strata.rollout_hosts([host]) == [{**base, "before": None}]
    assert strata.rollout_hosts([host], last) == [{**base, "before": None}]
    last["hosts"]["h"]["stratum"] = "5.10/x86_64/debian"
    assert strata.rollout_hosts([host], last) == [{**base, "before": "5.10/x86_64/debian"}]
    assert strata.rollout_hosts([{"inventory_hostname": "n"}]) == [
        {**dict.fromkeys(base), "name": "n", "stratum": "unknown/unknown/unknown", "before": None}
    ]


# ---- the lines of a census ----


def lines(answers: dict[str, Any]) -> list[str]:
    return list(census.capability_census(answers)["sentences"])


def answer(**changes: Any) -> dict[str, Any]:
    bare = {**WHOLE, "next_kernel": None, "trust": None, "profiles": {}, **changes}
    return {"capabilities": bare, "profiles": changes.get("profiles", {})}


def test_a_host_without_a_fault_is_only_counted() -> None:
    assert lines({"h": answer()}) == ["1 host answered, 0 did not; strata: 6.1/x86_64/debian"]
    assert lines({})[0] == "0 hosts answered, 0 did not; strata: none"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"systemd": {"pid1": {"answer": "no", "evidence": "runit"}}},
         "no release can be deployed to this host: systemd is not process 1 here (runit); boot it with systemd, or "
         "leave it out (EF_NO_SYSTEMD)"),
        ({"systemd": {"pid1": {"answer": "no"}}},
         "no release can be deployed to this host: systemd is not process 1 here (no evidence); boot it with systemd, "
         "or leave it out (EF_NO_SYSTEMD)"),
        ({"profiles": {"f": {**PREDICTION, "profile": "reduced", "reason": "no ring", "reason_code": "EF_NO_RING"}}},
         "f: no ring (EF_NO_RING)"),
        ({"trust": {**WHOLE["trust"], "ok": False, "reason": "revoked", "reason_code": "EF_SIG_REVOKED"}},
         "TRUST: it refuses the release 1 that is installed: revoked (EF_SIG_REVOKED); correct the trust and run "
         "prepare.yml"),
        ({"trust": {**WHOLE["trust"], "clock_known": False}},
         "CLOCK: it stands before what has happened already (EF_CLOCK_UNKNOWN); set it"),
        ({"next_kernel": {**WHOLE["next_kernel"], "release": None}}, "next boot: unknown: grub"),
        ({"next_kernel": WHOLE["next_kernel"]}, "next boot (6.9): it"),
        ({"next_kernel": {**WHOLE["next_kernel"], "changes": []}}, "next boot (6.9): no change is foreseen"),
    ],
)  # fmt: skip
def test_each_fault_of_a_host_is_one_line(changes: dict[str, Any], expected: str) -> None:
    said = [line for line in lines({"h": answer(**changes)})[1:] if line.startswith("h: ")]
    assert said == [f"h: {expected}"]


def test_trust_that_holds_is_not_told() -> None:
    assert len(lines({"h": answer(trust=WHOLE["trust"])})) == 1


@pytest.mark.parametrize(("count", "names"), [(5, "h0, h1, h2, h3, h4"), (6, "h0, h1, h2, h3, h4 and 1 more")])
def test_hosts_of_one_mind_share_a_line_with_five_names(count: int, names: str) -> None:
    fault = {"clock_known": False, **{key: WHOLE["trust"][key] for key in ("release", "ok", "reason_code", "reason")}}
    said = lines({f"h{number}": answer(trust=fault) for number in range(count)})
    assert said[1].startswith(f"{names}: CLOCK: ")


@pytest.mark.parametrize(
    ("systemd", "deployable"),
    [({"pid1": YES}, ("yes", "EF_OK")), ({"pid1": {"answer": "no"}}, ("no", "EF_NO_SYSTEMD")),
     ({"pid1": {"answer": "unknown"}}, ("unknown", "EF_UNKNOWN")), ({}, ("unknown", "EF_UNKNOWN"))],
)  # fmt: skip
def test_only_a_clear_no_of_systemd_takes_a_hosts_profiles_away(systemd: Any, deployable: tuple[str, str]) -> None:
    (host,) = census.capability_census({"h": answer(systemd=systemd, profiles={"f": PREDICTION})})["hosts"].values()
    assert (host["deployable"]["answer"], host["deployable"]["reason_code"]) == deployable
    assert host["profiles"]["f"]["profile"] == ("disabled" if deployable[0] == "no" else "full")
