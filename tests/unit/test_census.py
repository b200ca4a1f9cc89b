"""What a fleet can run, counted."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils import census

FULL = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "fine"}
DISABLED = {"profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": "the kernel has no BTF"}


def answer(family: str | None, **profiles):
    kernel = {"release": "x", "family": family, "machine": "x86_64"}
    capabilities = {"kernel": kernel, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}}
    return {"capabilities": capabilities, "profiles": profiles}


def test_counts_by_feature_and_stratum_with_reasons():
    result = census.capability_census(
        {"a": answer("6.1", runqlat=FULL), "b": answer("6.1", runqlat=DISABLED), "c": answer("5.10", runqlat=FULL)}
    )
    assert result["features"]["runqlat"]["hosts"] == {"full": 2, "reduced": 0, "disabled": 1}
    assert result["features"]["runqlat"]["strata"]["6.1/x86_64/debian"] == {"full": 1, "reduced": 0, "disabled": 1}
    assert "b: runqlat: the kernel has no BTF (EF_NO_BTF)" in result["sentences"]
    assert result["silent"] == []


def test_a_silent_host_is_named_and_counted_nowhere():
    result = census.capability_census({"a": answer("6.1", runqlat=FULL), "b": {"unreachable": True}, "c": {}})
    assert result["silent"] == ["b", "c"]
    assert result["features"]["runqlat"]["hosts"] == {"full": 1, "reduced": 0, "disabled": 0}


def test_what_is_not_known_of_a_host_reads_unknown():
    assert census.stratum_of({}) == "unknown/unknown/unknown"
    host = census.rollout_host({"inventory_hostname": "a"})
    assert host == {"name": "a", "cell": None, "region": None, "stratum": "unknown/unknown/unknown"}
