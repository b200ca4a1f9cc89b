# SPDX-License-Identifier: GPL-3.0-or-later
"""gameday.yml by the real playbook, with hosts whose drills are a script: what is refused, asked, ended, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scripted import inventory, played
from tests.unit.test_gameday import DEAD, SEEN, S, host, one, told

pytestmark = pytest.mark.apart

MARKED = inventory(["w1", "w2"], ebpf_fleet_gameday=True)
TELL, BEGIN = "Ask each host which drills it may meet", "Inject the fault"
WATCH = "Watch until all was seen that must be, or the bound is near"
END = "Take the fault back, and wait until the host is as before"
ENGAGE, RELEASE = "Engage the kill order of the feature, and confirm", "Release the kill order"
BACK = "Take back what is injected"
ASKED = {"ebpf_fleet_gameday_drills": "crash_loop", "confirm": "inject-crash_loop", "reason": "practice"}
ENDED = told(seen={"as_before": 204 * S}, ended_boottime_ns=200 * S, facts=host(ended_by="success"))
SHOWN = told(seen=SEEN, facts=DEAD)
GONE = {"unreachable": True, "msg": "x"}
GOOD = {
    TELL: {"*": told(meets={"crash_loop": ""})},
    BEGIN: {"*": {**told(), "changed": True}},
    WATCH: {"*": SHOWN},
    END: {"*": {**ENDED, "changed": True}},
}
UNFIT = {"failed": True, "msg": "EF_GAMEDAY_UNFIT: crash_loop: a lease", "reason_code": "EF_GAMEDAY_UNFIT"}
FLOOD = {"ebpf_fleet_gameday_drills": "event_flood", "confirm": "inject-event_flood", "reason": "practice"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"confirm": ""}, "so confirm must be given; no host was asked"),
        ({"confirm": "inject-all"}, "confirm 'inject-all' is not inject-crash_loop"),
        ({"reason": ""}, "so reason must be given"),
        ({"ebpf_fleet_gameday_drills": "crash"}, "did you mean 'crash_loop'"),
        ({"ebpf_fleet_gameday_seconds": 29}, "ebpf_fleet_gameday_seconds: is 29"),
        ({"ebpf_fleet_gameday": True}, "is given with -e, which marks every host"),
        ({"state": "off"}, "state 'off' is not one"),
        ({"ebpf_fleet_report": "/no/such/folder/x"}, "is not a folder on the controller"),
    ],
)
def test_what_is_not_clear_or_not_confirmed_is_refused_before_a_host_is_asked(
    tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    ended = played(tmp_path, "gameday", MARKED, GOOD, **{**ASKED, **given})
    assert ended.status == 2 and words in ended.said and ended.calls == [], ended.said


def test_a_host_that_is_not_marked_is_not_asked_and_without_one_nothing_is(tmp_path: Path) -> None:
    hosts = inventory(["w1", "w2"])
    ended = played(tmp_path, "gameday", hosts, GOOD, **ASKED)
    assert ended.status == 2 and "EF_HOSTS: no host takes part" in ended.said and ended.calls == [], ended.said
    hosts["all"]["hosts"]["w1"] = {**hosts["all"]["hosts"]["w1"], "ebpf_fleet_gameday": True}
    ended = played(tmp_path, "gameday", hosts, GOOD, **ASKED)
    assert ended.status == 0 and {call.host for call in ended.calls} == {"w1"}, ended.said
    assert "left out: w2: ebpf_fleet_gameday is not true for it" in ended.said


def test_check_mode_asks_and_injects_nothing(tmp_path: Path) -> None:
    answers = {**GOOD, TELL: {"w1": told(meets={"crash_loop": ""}), "w2": told(meets={"crash_loop": "a lease"})}}
    ended = played(tmp_path, "gameday", MARKED, answers, "--check", ebpf_fleet_gameday_drills="crash_loop")
    assert ended.status == 0 and {call.task for call in ended.calls} == {TELL}, ended.said
    assert "w2: crash_loop: not possible: a lease" in ended.said and "w1: crash_loop: SIGKILL" in ended.said


def test_a_drill_is_begun_watched_and_ended_on_each_host_and_the_report_is_kept(tmp_path: Path) -> None:
    report = tmp_path / "gameday.json"
    ended = played(tmp_path, "gameday", MARKED, GOOD, **ASKED, ebpf_fleet_report="gameday.json",
                   ebpf_fleet_gameday_seconds=40, ebpf_fleet_gameday_recovery=7)  # fmt: skip
    assert ended.status == 0, ended.said
    tasks = [TELL, BEGIN, WATCH, END]
    for name in ("w1", "w2"):
        assert [call.task for call in ended.calls if call.host == name] == tasks
    begun = [call.arguments for call in ended.asked(BEGIN)]
    assert {(one["drill"], one["seconds"]) for one in begun} == {("crash_loop", 40)} and len(
        {one["id"] for one in begun}
    ) == 1
    assert {call.arguments["wait"] for call in ended.asked(WATCH)} == {28}
    assert {call.arguments["wait"] for call in ended.asked(END)} == {7}
    assert {call.arguments["id"] for call in ended.asked(END)} == {one["id"] for one in begun}
    found = json.loads(report.read_text())
    assert found["counts"] == {"pass": 2, "fail": 0, "inconclusive": 0, "refused": 0}
    assert report.with_name("gameday.json.txt").read_text().startswith("game day of 1 drill on 2 hosts: 2 pass")


@pytest.mark.parametrize(
    ("answers", "words", "ends"),
    [
        ({BEGIN: {"w1": UNFIT, "*": told()}}, "crash_loop on w1: refused", {"w1", "w2"}),
        ({BEGIN: {"w1": {"failed": True, "msg": "no"}, "*": told()}}, "crash_loop on w1: refused", {"w1", "w2"}),
        ({BEGIN: {"w1": GONE, "*": told()}}, "crash_loop on w1: refused", {"w1", "w2"}),
        ({WATCH: {"w1": told(facts=host()), "*": SHOWN}}, "crash_loop on w1: fail", {"w1", "w2"}),
        ({WATCH: {"w1": GONE, "*": SHOWN}}, "crash_loop on w1: inconclusive",
         {"w1", "w2"}),
        ({END: {"w1": {"failed": True, "msg": "no"}, "*": ENDED}}, "crash_loop on w1: inconclusive", {"w1", "w2"}),
    ],
)  # fmt: skip
def test_what_did_not_pass_fails_the_run_and_is_taken_back(
    tmp_path: Path, answers: dict[str, Any], words: str, ends: set[str]
) -> None:
    ended = played(tmp_path, "gameday", MARKED, {**GOOD, **answers}, **ASKED)
    assert ended.status == 2 and f"EF_GAMEDAY: {words}" in ended.said and "crash_loop on w2: pass" in ended.said, (
        ended.said
    )
    assert {call.host for call in ended.asked(END)} == ends


KILL = {"ok": True, "changed": True, "host_ms": 40, "left": 0, "persisted": True, "escalated": False,
        "witness": "kallsyms", "holders": [], "pins": [], "placed": True, "concerned": True, "family": "6.1",
        "features": ["exec_events"], "orders": ["feature.exec_events"], "detail": "off"}  # fmt: skip


def fanned(**changed: Any) -> dict[str, Any]:
    line = "ebpf-fleet-kill: " + json.dumps({**KILL, **changed})
    answer = {
        "rc": 0,
        "stdout": f"\n{line}\n",
        "stderr": "",
        "msg": "",
        "failed": False,
        "unreachable": False,
        "seconds": 0.2,
    }
    return {"hosts": {"w1": answer, "w2": answer}}


def flood(**more: Any) -> dict[str, Any]:
    seen = {"thinned": 101 * S, "source_named": 101 * S}
    watched = told(drill="event_flood", feature="exec_events", seen=seen, facts=one(thinned=3, sources=1))
    ended = told(
        seen={"as_before": 204 * S, "quiet": 204 * S}, ended_boottime_ns=200 * S, facts=host(ended_by="success")
    )
    return {**GOOD, WATCH: {"*": watched}, END: {"*": ended}, ENGAGE: {"*": fanned()}, RELEASE: {"*": fanned()}, **more}


def test_a_kill_order_is_given_within_the_fault_and_taken_back_before_its_end(tmp_path: Path) -> None:
    ended = played(tmp_path, "gameday", MARKED, flood(), **FLOOD)
    assert ended.status == 0 and "off by a kill order: yes in 40 ms of at most 2000 ms" in ended.said, ended.said
    order = [task for task, name in ended.order() if name == "w1"]
    assert order == [TELL, BEGIN, WATCH, ENGAGE, RELEASE, END]
    assert (
        "engaged" in str(ended.asked(ENGAGE)[0].arguments)
        or ended.asked(ENGAGE)[0].arguments != ended.asked(RELEASE)[0].arguments
    )
    assert list((tmp_path / "state/ebpf-fleet/orders").glob("*.json")) == []


def test_an_order_that_was_not_confirmed_fails_the_drill_and_is_taken_back_all_the_same(tmp_path: Path) -> None:
    ended = played(tmp_path, "gameday", MARKED, flood(**{ENGAGE: {"*": fanned(ok=False, left=1)}}), **FLOOD)
    assert ended.status == 2 and "event_flood on w1: fail" in ended.said and len(ended.asked(RELEASE)) == 1, ended.said
    ended = played(tmp_path, "gameday", MARKED, flood(**{ENGAGE: {"*": {"failed": True, "msg": "no ssh"}}}), **FLOOD)
    assert ended.status == 2 and len(ended.asked(RELEASE)) == 1 and len(ended.asked(END)) == 2, ended.said


def test_ended_asks_every_host_marked_or_not_and_needs_no_confirmation(tmp_path: Path) -> None:
    hosts = inventory(["w1", "w2"])
    nothing = told(begun_boottime_ns=None, before=None)
    ended = played(tmp_path, "gameday", hosts, {BACK: {"*": nothing}}, state="ended")
    assert ended.status == 0 and sorted(call.host for call in ended.asked(BACK)) == ["w1", "w2"], ended.said
    answers = {BACK: {"w1": GONE, "w2": told(ended_boottime_ns=5, seen={})}}
    ended = played(tmp_path, "gameday", hosts, answers, state="ended")
    assert ended.status == 2 and "EF_GAMEDAY: not as before, or no answer: w1, w2" in ended.said, ended.said
