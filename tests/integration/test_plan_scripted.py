# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan in the real playbook: batches within shares, bakes, freezes, hosts that are left out or held back."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger

from tests.integration.scripted import inventory, played
from tests.integration.test_rollout_scripted import (
    AFTER,
    ASK,
    CAPABILITY,
    DEPLOY,
    GOOD,
    JUDGE,
    PASS,
    changed,
    digest_of,
    given,
    held,
)

pytestmark = pytest.mark.apart

FROZEN = "Refuse a rollout in a freeze window or in blocked hours"
BATCH = "Begin the batch in the ledger, unless a freeze or a person holds it"
GONE = {"unreachable": True, "msg": "no route to host"}
STRATUM = "6.1/unknown/debian"


def hosts_of(names: list[str], each: dict[str, dict[str, Any]] | None = None, **variables: Any) -> dict[str, Any]:
    """An inventory with variables of single hosts."""
    made = inventory(names, **variables)
    for name, own in (each or {}).items():
        made["all"]["hosts"][name] = {**made["all"]["hosts"][name], **own}
    return made


def window(start: int, end: int) -> dict[str, str]:
    """A freeze from so many hours from now until so many."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    moments = [(now + datetime.timedelta(hours=hours)).isoformat() for hours in (start, end)]
    return {"from": moments[0], "to": moments[1], "why": "holidays"}


@pytest.mark.slow
def test_without_a_word_a_small_fleet_changes_one_by_one_and_bakes_by_stage(tmp_path: Path, bundle: Path) -> None:
    stages = [{"stage": "canary", "bake": 2}, {"stage": "cell", "bake": 1}, {"stage": "fleet"}]
    hosts = hosts_of(["w1", "w2", "w3"], ebpf_fleet_fleet_percent=None, ebpf_fleet_cell_percent=None)
    variables = given(bundle, ebpf_fleet_stages=stages)
    del variables["ebpf_fleet_bake"]
    ended = played(tmp_path, "rollout", hosts, GOOD, **variables)
    assert ended.status == 0, ended.said
    assert [call.arguments["hosts"] for call in ended.asked(JUDGE)] == [["w1"], ["w2"], ["w3"]]
    assert {call.host: call.arguments["bake"] for call in ended.asked(AFTER)} == {"w1": 0, "w2": 0, "w3": 1}
    # What is compared with others bakes before these are measured again.
    assert ended.screen.count("Let it bake before the controls are measured: ok w1>localhost") <= 1
    # Activation, bake and measurement, 300 s and 10 a host.
    leases = {call.host: call.arguments["lease"]["seconds"] for call in ended.asked(DEPLOY)}
    assert leases == {"w1": 402, "w2": 401, "w3": 401}
    told = ended.part("Print the plan")
    assert "canary: 1 host in batches of 1: w1; 2 s of bake" in told
    assert "cell: 2 hosts in batches of 1 (2 times): w2, w3; 1 s of bake" in told


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.sample(1)
def test_in_a_freeze_nothing_starts_and_check_mode_shows_the_plan(tmp_path: Path, bundle: Path, check: bool) -> None:
    hosts = hosts_of(["w1", "w2"], {"w2": {"ebpf_fleet_freezes": [window(-1, 1)]}})
    ended = played(tmp_path, "rollout", hosts, GOOD, *(["--check"] if check else []), **given(bundle))
    assert "w2: frozen until" in ended.part("Print the plan") and "canary: 1 host" in ended.part("Print the plan")
    if check:
        assert ended.status == 0, ended.said
        assert f"{FROZEN}: skipping w1" in ended.screen
    else:
        held(ended, FROZEN, "EF_FROZEN: Nothing was changed: w2: frozen until", "ebpf_fleet_overrule_freeze")


@pytest.mark.slow
def test_an_overruled_freeze_is_told_and_does_not_hold(tmp_path: Path, bundle: Path) -> None:
    hosts = hosts_of(["w1"], ebpf_fleet_freezes=[window(-1, 1)])
    ended = played(tmp_path, "rollout", hosts, GOOD, **given(bundle, ebpf_fleet_overrule_freeze="CVE-2026-1"))
    assert ended.status == 0, ended.said
    assert "overruled (CVE-2026-1): frozen until" in ended.part("Print the plan")


@pytest.mark.slow
def test_a_rollout_that_runs_into_a_freeze_stops_before_its_next_batch(tmp_path: Path, bundle: Path) -> None:
    # In force as soon as the first batch has confirmed.
    calls = f"query('ansible.builtin.file', '{tmp_path}/scripted/calls.jsonl', errors='ignore') | select | join"
    late = "{{ [%s] if 'Confirm the release' in %s else [] }}" % (json.dumps(window(-1, 1)), calls)
    hosts = hosts_of(["w1", "w2", "w3", "w4"], ebpf_fleet_freezes=late)
    ended = played(tmp_path, "rollout", hosts, GOOD, **given(bundle, ebpf_fleet_max_batch=1))
    assert ended.status == 2, ended.said
    assert ended.screen[-1] == f"{BATCH}: FAILED w2", ended.screen
    assert "EF_FROZEN: Batch 2 (stage cell) and all after it were not started: frozen until " in ended.said
    assert {call.host for call in ended.asked(DEPLOY)} == {"w1"}, (
        "what was promoted stays, and nothing later is changed"
    )
    assert "Confirm the release and end its probation: ok w1" in ended.screen
    found = ledger.verify((tmp_path / "state/ebpf-fleet/ledger.jsonl").read_bytes()).entries
    last = found[-1].data
    assert (found[-1].kind, last["outcome"]) == ("ended", "stopped") and "frozen until" in last["sentence"]
    assert (
        not (tmp_path / "state/ebpf-fleet/rollout.lock").exists()
        and f"ebpf_fleet_resume={found[0].rollout}" in ended.said
    )


def test_hosts_that_do_not_take_part_are_named_and_not_touched(tmp_path: Path, bundle: Path) -> None:
    killed = {**CAPABILITY, "capabilities": {**CAPABILITY["capabilities"], "kill_orders": ["global"]}}
    hosts = hosts_of(["w1", "w2", "w3", "w4", "w5"], {"w2": {"ebpf_fleet_maintenance": "new disks"}})
    answers = {**GOOD, ASK: {"w3": GONE, "w4": killed, "*": CAPABILITY}}
    ended = played(tmp_path, "rollout", hosts, answers, **given(
        bundle, ebpf_fleet_unreachable_limit="20%", ebpf_fleet_leave_out=["killed"]))  # fmt: skip
    assert ended.status == 0, ended.said
    assert {call.host for call in ended.asked(ASK)} == {"w1", "w3", "w4", "w5"}, "w2 is left alone"
    assert {call.host for call in ended.asked(DEPLOY)} == {"w1", "w5"}
    told = ended.part("Print the plan")
    for sentence in ("left out, maintenance: host w2: new disks", "left out, unreachable: host w3: no route to host",
                     "left out, killed: host w4: a kill order stands (global)", "2 hosts in 2 batches"):  # fmt: skip
        assert sentence in told, told


@pytest.mark.slow
def test_more_unreachable_hosts_than_may_be_hold_the_rollout(tmp_path: Path, bundle: Path) -> None:
    answers = {**GOOD, ASK: {"w2": GONE, "w3": GONE, "*": CAPABILITY}}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2", "w3"]), answers,
                   **given(bundle, ebpf_fleet_unreachable_limit=1))  # fmt: skip
    held(ended, "Hold unless every host answered", "EF_NO_ANSWER: No rollout begins while hosts do not answer: w2, w3.",
         "2 cannot be reached, and ebpf_fleet_unreachable_limit permits 1", "no route to host")  # fmt: skip


@pytest.mark.slow
def test_a_host_that_is_lost_during_the_rollout_is_never_left_out(tmp_path: Path, bundle: Path) -> None:
    answers = {**GOOD, DEPLOY: {"w1": GONE, "*": changed()}}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), answers,
                   **given(bundle, ebpf_fleet_unreachable_limit="50%"))  # fmt: skip
    assert ended.status != 0 and ended.screen[-1] == "Stop the rollout: FAILED w1"
    assert [call.host for call in ended.asked(DEPLOY)] == ["w1"]


def quarantine(folder: Path, digest: str) -> str:
    entry = {"digest": digest, "stratum": STRATUM, "why": "drop_ratio", "since": "2026-11-01T00:00:00Z"}
    (folder / "kept_off.json").write_text(json.dumps({"schema": "ebpf.fleet/quarantine/v1", "entries": [entry]}))
    return "kept_off.json"


@pytest.mark.slow
def test_a_stratum_in_quarantine_for_this_bundle_gets_nothing_and_all_left_out_is_refused(
    tmp_path: Path,
    bundle: Path,
) -> None:
    other = {**CAPABILITY, "capabilities": {**CAPABILITY["capabilities"],
                                            "kernel": {"family": "6.12", "release": "6.12.0"}}}  # fmt: skip
    variables = given(bundle, ebpf_fleet_quarantine_file=quarantine(tmp_path, digest_of(bundle)))
    answers = {**GOOD, ASK: {"w1": CAPABILITY, "*": other}, JUDGE: {"*": PASS}}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2", "w3"]), answers, **variables)
    assert ended.status == 0, ended.said
    assert {call.host for call in ended.asked(DEPLOY)} == {"w2", "w3"}
    assert "left out, quarantined: host w1: drop_ratio (since 2026-11-01T00:00:00Z)" in ended.part("Print the plan")
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), GOOD, **variables)
    held(ended, "Refuse a plan that cannot be carried out",
         "EF_PLAN: hosts: every one is left out; left out, quarantined: 2 hosts (w1, w2)")  # fmt: skip
    ended = played(
        tmp_path, "rollout", inventory(["w1"]), GOOD, **{**variables, "ebpf_fleet_quarantine_file": "no.json"}
    )
    assert ended.status == 2 and ended.screen[-1] == "Refuse a quarantine that cannot be used: FAILED w1>localhost"
    assert "EF_UNREADABLE: the quarantine" in ended.said and "No such file" in ended.said


@pytest.mark.slow
def test_hosts_that_are_held_back_are_named_and_not_touched(tmp_path: Path, bundle: Path) -> None:
    names = [f"w{number}" for number in range(1, 5)]
    variables = given(bundle, ebpf_fleet_holdback=25, ebpf_fleet_holdback_until="2999-01-31")
    ended = played(tmp_path, "rollout", inventory(names, ebpf_fleet_growth=100), GOOD, **variables)
    assert ended.status == 0, ended.said
    (kept,) = set(names) - {call.host for call in ended.asked(DEPLOY)}
    sentence = f"held back until 2999-01-31 on the release that they have, 25 % of the hosts: host {kept}"
    assert sentence in ended.part("Print the plan")
    ended = played(tmp_path, "rollout", inventory(["w1"]), GOOD, **given(bundle, ebpf_fleet_holdback=25))
    held(ended, "Refuse a plan that cannot be carried out", "is 25 without ebpf_fleet_holdback_until")
