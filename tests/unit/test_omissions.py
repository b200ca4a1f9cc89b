# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that a rollout leaves out: by the operator's word only, each with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError, AnsibleLookupError
from ansible_collections.ebpf.fleet.plugins.filter.rollout import rollout_omissions
from ansible_collections.ebpf.fleet.plugins.lookup import quarantine as lookup
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import omissions
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.quarantine import quarantined

CONTRACTS = [
    {"feature": "exec_events", "data_path": "events", "signals": [{"sample_every": 1}]},
    {"feature": "runqlat", "data_path": "metrics", "signals": [{"sample_every": 1}]},
]
FULL = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "fits"}
OFF = {"profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": "lacks"}
DIGEST = "d" * 64
GONE = {"unreachable": True, "msg": "no route to host"}


def host(
    name: str = "h1", profiles: Any = None, orders: Any = None, pid1: str = "yes", **variables: Any
) -> dict[str, Any]:
    facts = {
        "kernel": {"family": "6.1", "release": "6.1.0", "machine": "x86_64"}, "distro": {"id": "debian"},
        "btf": {"state": "vmlinux"}, "systemd": {"pid1": {"answer": pid1, "evidence": "init is sh"}},
        **({} if orders is None else {"kill_orders": orders}),
    }  # fmt: skip
    told = {"exec_events": FULL, "runqlat": FULL} if profiles is None else profiles
    answer = {"capabilities": facts, "profiles": told}
    return {"inventory_hostname": name, "ebpf_fleet_capability": answer, **variables}


def found(*hosts: dict[str, Any], **wishes: Any) -> omissions.Omissions:
    return omissions.omissions(hosts, CONTRACTS, omissions.Wishes(**wishes))


def reasons(*hosts: dict[str, Any], **wishes: Any) -> list[tuple[str, str, str]]:
    return [tuple(one) for one in found(*hosts, **wishes).left_out]  # type: ignore[misc]


SICK = [
    (host("d", {"exec_events": OFF, "runqlat": OFF}), "disabled",
     "no variant of any feature loads: exec_events (EF_NO_BTF), runqlat (EF_NO_BTF)"),
    (host("u", pid1="no"), "unsupported", "no release can be deployed to this host: systemd is not process 1 here "
     "(init is sh); boot it with systemd, or leave it out"),
    (host("k", orders=["global", "feature.runqlat"]), "killed", "a kill order stands (global, feature.runqlat)"),
    (host("r", orders=None) | {"ebpf_fleet_capability": GONE}, "unreachable", "no route to host"),
]  # fmt: skip


def test_without_a_word_of_the_operator_no_host_is_left_out() -> None:
    everyone = [one for one, _reason, _why in SICK]
    told = found(*everyone)
    assert told.kept == ["d", "u", "k", "r"] and told.left_out == []
    assert told.over_limit == "1 cannot be reached, and ebpf_fleet_unreachable_limit permits 0"


@pytest.mark.parametrize(("sick", "reason", "why"), SICK[:3])
def test_what_a_host_says_counts_where_the_operator_names_it(sick: dict[str, Any], reason: str, why: str) -> None:
    name = sick["inventory_hostname"]
    assert reasons(host("a"), sick, host("z"), leave_out=[reason]) == [(name, reason, why)]
    assert found(host("a"), sick, host("z"), leave_out=[reason]).kept == ["a", "z"]
    assert reasons(sick, leave_out=[one for one in omissions.REASONS if one != reason]) == []


@pytest.mark.parametrize(
    ("profiles", "features", "out"),
    [
        ({"exec_events": OFF, "runqlat": OFF}, None, True),
        ({"exec_events": OFF, "runqlat": FULL}, None, False),
        ({"exec_events": OFF, "runqlat": {**FULL, "profile": "reduced"}}, None, False),
        ({"exec_events": OFF}, None, False),
        ({}, None, False),
        ({"exec_events": OFF, "runqlat": FULL}, {"exec_events": {}}, True),
        ({"exec_events": OFF, "runqlat": FULL}, {"runqlat": {}}, False),
        ({"exec_events": OFF, "runqlat": OFF}, {"runqlat": {"enabled": False}}, False),
    ],
)
def test_disabled_is_where_nothing_that_is_wanted_would_run_and_unknown_is_not(
    profiles: Any, features: Any, out: bool
) -> None:
    variables = {} if features is None else {"ebpf_fleet_features": features}
    assert bool(reasons(host("d", profiles, **variables), leave_out=["disabled"])) is out


def test_a_host_that_does_not_say_whether_systemd_runs_is_not_unsupported() -> None:
    assert reasons(host("u", pid1="unknown"), leave_out=["unsupported"]) == []


def test_an_order_that_concerns_nothing_of_the_release_leaves_no_host_out() -> None:
    assert reasons(host("k", orders=["family.5.10", "feature.other"]), leave_out=["killed"]) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [(True, "set in the inventory"), ("yes", "set in the inventory"), ("new disks", "new disks"),
     (False, None), ("no", None), ("", None), (None, None)],
)  # fmt: skip
def test_maintenance_is_the_operators_word_for_a_host(given: Any, why: str | None) -> None:
    sick = {**host("m", ebpf_fleet_maintenance=given), "ebpf_fleet_capability": {"skipped": True}}
    assert reasons(host("a"), sick) == ([] if why is None else [("m", "maintenance", why)])


def test_maintenance_comes_before_what_else_may_be_said_and_does_not_count_against_the_limit() -> None:
    assert reasons({**host("m", ebpf_fleet_maintenance=True), "ebpf_fleet_capability": GONE}) == [
        ("m", "maintenance", "set in the inventory")]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "gone", "out"),
    [("0", 1, False), ("1", 1, True), ("1", 2, False), ("2", 2, True), ("10%", 1, True), ("10%", 2, False),
     ("19%", 1, True), ("20%", 2, True), ("9%", 1, False), ("100%", 10, True)],
)  # fmt: skip
def test_unreachable_hosts_are_left_out_all_or_none_up_to_the_limit(limit: str, gone: int, out: bool) -> None:
    lost = [{**host(f"g{index}"), "ebpf_fleet_capability": GONE} for index in range(gone)]
    told = found(*lost, *[host(f"h{index}") for index in range(10 - gone)], unreachable_limit=limit)
    assert len(told.left_out) == (gone if out else 0) and len(told.kept) == 10 - len(told.left_out)
    assert (told.over_limit == "") is out
    assert all(one.reason == "unreachable" and one.why == "no route to host" for one in told.left_out)


@pytest.mark.parametrize(
    "answer", [{}, {"failed": True, "msg": "broken"}, {"unreachable": "yes"}, {"capabilities": {"kernel": 3}}]
)
def test_a_host_that_was_reached_and_gave_no_answer_is_not_unreachable(answer: dict[str, Any]) -> None:
    told = found(
        {**host("x"), "ebpf_fleet_capability": answer}, unreachable_limit="9", leave_out=list(omissions.REASONS)
    )
    assert (told.kept, told.left_out) == (["x"], [])


def test_a_stratum_in_quarantine_is_left_out_with_the_reason() -> None:
    kept_off = {"6.1/x86_64/debian": "drop_ratio (since 2026-11-01T00:00:00Z)"}
    assert reasons(host("q"), quarantine=kept_off) == [("q", "quarantined", "drop_ratio (since 2026-11-01T00:00:00Z)")]
    assert reasons(host("q"), quarantine={"6.12/x86_64/debian": "x"}) == []


def test_what_a_host_says_paints_nothing() -> None:
    lost = {**host("g"), "ebpf_fleet_capability": {"unreachable": True, "msg": "\x1b[2J" + "x" * 5000}}
    ((_name, _reason, why),) = reasons(lost, unreachable_limit="1")
    assert why.isprintable() and len(why) < 400


# --- the quarantine ------------------------------------------------------------------------------


def entry(**changed: Any) -> dict[str, Any]:
    return {"digest": DIGEST, "stratum": "6.1/x86_64/debian", "why": "drops", "since": "2026-11-01", **changed}


def document(*entries: Any) -> dict[str, Any]:
    return {"schema": "ebpf.fleet/quarantine/v1", "entries": list(entries)}


def test_only_entries_of_this_bundle_count() -> None:
    other = entry(digest="e" * 64, stratum="7.0/x86_64/debian")
    assert quarantined(document(entry(), other), DIGEST) == {"6.1/x86_64/debian": "drops (since 2026-11-01)"}
    assert quarantined(document(other), DIGEST) == {} == quarantined(document(), DIGEST)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "its schema is not ebpf.fleet/quarantine/v1"),
        ({}, "its schema is not"),
        ({**document(), "schema": "ebpf.fleet/quarantine/v2"}, "its schema is not"),
        ({**document(), "entries": {}}, "entries is not a list"),
        (document(3), r"entries\[0\]: is not a mapping"),
        (document(entry(), entry(stratum="")), r"entries\[1\].stratum: is missing or not text"),
        (document(entry(why=None)), r"entries\[0\].why: is missing"),
        (document(entry(since=3)), r"entries\[0\].since: is missing or not text"),
        # Of another bundle, and still: what cannot be read may hide what matters.
        (document(entry(digest="E" * 64)), r"entries\[0\].digest: is not 64 hex digits"),
    ],
)
def test_a_quarantine_that_cannot_be_read_is_never_an_empty_one(given: Any, message: str) -> None:
    with pytest.raises(FleetError, match=message) as caught:
        quarantined(given, DIGEST)
    assert caught.value.code == "EF_UNREADABLE"


def test_the_file_is_read_by_its_name_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.json"
    reader = lookup.LookupModule()
    with pytest.raises(
        AnsibleLookupError, match="EF_UNREADABLE: the quarantine .*No such file.*ebpf_fleet_quarantine_file"
    ):
        reader.run([str(path)])
    (told,) = reader.run([str(path)], told=True)
    assert rollout_omissions([host()], CONTRACTS, quarantined=told, told=True) == told
    path.write_text("[")
    with pytest.raises(AnsibleLookupError, match="is not JSON"):
        reader.run([str(path)])
    path.write_text(json.dumps(document(entry())))
    assert reader.run([str(path)]) == [document(entry())] and reader.run([""]) == [{}]


# --- the filter and the values --------------------------------------------------------------------


def test_the_filter_gives_plain_documents() -> None:
    lost = {**host("g"), "ebpf_fleet_capability": GONE}
    told = rollout_omissions([host("a"), lost], CONTRACTS, unreachable_limit=1)
    assert told == {"kept": ["a"], "over_limit": "",
                    "left_out": [{"host": "g", "reason": "unreachable", "why": "no route to host"}]}  # fmt: skip
    kept_off = rollout_omissions([host("a")], CONTRACTS, quarantined=document(entry()), digest=DIGEST)
    assert kept_off["kept"] == [] and kept_off["left_out"][0]["reason"] == "quarantined"
    assert rollout_omissions([host("a")], CONTRACTS, quarantined={}, digest=DIGEST)["kept"] == ["a"]
    with pytest.raises(AnsibleFilterError, match="EF_UNREADABLE: the quarantine: its schema"):
        rollout_omissions([host("a")], CONTRACTS, quarantined={"x": 1}, digest=DIGEST)


@pytest.mark.parametrize("given", ["1.5", "-1", "101%", "%", "x", True, None, [], 1.5, "1 %"])
def test_a_limit_that_cannot_be_is_refused(given: Any) -> None:
    with pytest.raises(RefusedValueError, match="^x: is .*give a number of hosts, or percent as '2%'"):
        omissions.read_limit("x", given)


def test_reasons_are_words_of_the_list() -> None:
    assert omissions.read_leave_out("x", "killed, disabled") == ["killed", "disabled"]
    with pytest.raises(RefusedValueError, match="x: is 'kiled' .*give some of maintenance, "):
        omissions.read_leave_out("x", ["kiled"])
