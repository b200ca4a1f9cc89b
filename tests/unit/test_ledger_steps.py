# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout writes at each of its steps, in a ledger on disk: each entry, each refusal, each note in its words."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.action.ledger import ARGUMENTS, ActionModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import hooks, ledger, ledger_lock, quarantine
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.ledger_resume import Found
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder, ledger_steps
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_folder import Folder
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_steps import Steps

ID, DIGEST, OLD = "20261128-001733-3f1c2a", "a" * 64, "b" * 64
PLAN: dict[str, Any] = {
    "hosts": ["w1", "w2", "w3"],
    "batches": [
        {"number": 1, "stage": "canary", "hosts": ["w1"]},
        {"number": 2, "stage": "fleet", "hosts": ["w2", "w3"]},
    ],
    "resumed": {"done": ["w1"], "remaining": ["w2", "w3"]},
}
BATCH = PLAN["batches"][1]
SINCE = "2026-11-28T00:17:33.000001Z"
HERE = ledger_folder.owner_of(os.getpid(), {}, SINCE)._replace(user="jane")
JOE = {"who": "joe"}
ABORTED = f"EF_ROLLOUT_ABORTED: rollout {ID} ends, as joe asked: batch 2 goes back"


def steps(folder: Folder, hostvars: dict[str, Any] | None = None, **arguments: Any) -> Steps:
    given = {name: one.get("default") for name, one in ARGUMENTS.items()}
    return Steps(folder, HERE, {**given, "digest": DIGEST, "batch": BATCH, **arguments}, hostvars or {})


def begun(folder: Folder, plan: dict[str, Any] = PLAN) -> None:
    """A rollout that this process runs, with what people asked of another one."""
    folder.append(ID, ledger.STARTED, {"who": "jane", "bundle": {"version": "1.0.0"}, "bundle_digest": DIGEST,
                                       "plan": plan, "plan_digest": OLD})  # fmt: skip
    folder.name(HERE, ID)
    folder.ask("another", "abort", JOE)


def written(done: Steps) -> list[tuple[str, dict[str, Any]]]:
    """Kind and data of what the steps appended, which is what the file has at its end, all of one rollout."""
    entries = done.folder.entries()
    assert done.written and entries[-len(done.written) :] == done.written
    assert len({one.rollout for one in done.written}) == 1
    return [(one.kind, dict(one.data)) for one in done.written]


def asked(folder: Folder) -> set[str]:
    return {one.name for one in folder.requests.iterdir()} - {"another.abort"}


# --- the lock, and whose it is --------------------------------------------------------------------


def test_the_lock_of_a_fleet_that_no_one_has_is_taken_without_a_word(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        done = steps(folder)
        assert done.run("lock") == {"quarantine_file": str(tmp_path / "quarantine.json"), "stale": None}
        assert folder.held_by(HERE) == (HERE, ledger_lock.MINE)
        assert (done.notes, done.written) == ([], [])


def test_the_lock_of_another_that_lives_is_not_taken(tmp_path: Path) -> None:
    other = ledger_folder.owner_of(os.getppid(), {}, SINCE)._replace(rollout=ID)
    with Folder(tmp_path) as folder:
        folder.name(other, ID)
        with pytest.raises(FleetError) as refused:
            steps(folder).run("lock")
        assert refused.value.code == "EF_ROLLOUT_RUNNING" and folder.owner() == other


@pytest.mark.parametrize(
    ("rollout", "known", "resume", "told"),
    [
        (ID, True, "", ["the lock of {} is taken over: that process has ended",
                        f"{ID} did not come to its end: ebpf.fleet.history -e ebpf_fleet_rollout_id={ID}"]),
        (ID, True, ID, ["the lock of {} is taken over: that process has ended"]),
        (ID, True, "another", ["the lock of {} is taken over: that process has ended",
                               f"{ID} did not come to its end: ebpf.fleet.history -e ebpf_fleet_rollout_id={ID}"]),
        (ID, False, "", ["the lock of {} is taken over: that process has ended"]),
        ("", True, "", []),
    ],
)  # fmt: skip
def test_the_lock_of_a_process_that_ended_is_taken_over_and_said(
    tmp_path: Path, rollout: str, known: bool, resume: str, told: list[str]
) -> None:
    gone = HERE._replace(start_ticks=HERE.start_ticks + 1, user="joe", rollout=rollout)
    who = f"rollout {ID}" if rollout else "a rollout that is being planned"
    who = f"{who} of joe on {HERE.host} (process {HERE.pid}), since {SINCE}"
    with Folder(tmp_path) as folder:
        if known:
            begun(folder)
        folder.name(gone, rollout)
        done = steps(folder, resume=resume)
        assert done.run("lock")["stale"] == who
        assert done.notes == [one.format(who) for one in told]
        assert folder.held_by(HERE) == (HERE, ledger_lock.MINE)


def test_a_broken_ledger_is_told_before_anything_begins_and_the_fleet_given_back(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.release(HERE)
        folder.ledger.write_bytes(folder.ledger.read_bytes().replace(b"jane", b"joan"))
        with pytest.raises(FleetError, match="the chain is broken at line 1") as refused:
            steps(folder).run("lock")
        assert (refused.value.code, refused.value.file) == ("EF_LEDGER_BROKEN", str(folder.ledger))
        assert folder.owner() is None


def test_a_torn_line_is_told_with_where_it_is_kept(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.ledger.write_bytes(folder.ledger.read_bytes() + b'{"da')
        done = steps(folder)
        done.run("lock")
        assert done.notes == [
            f"{folder.ledger}: the chain of 1 lines is sound; the last line was torn by a crash (4 bytes) and counts "
            f"for nothing; it is kept in {folder.torn}"
        ]


STEPS_OF_ONES_OWN = ("batch", "measured", "verdict", "check", "hold", "promoted", "changed", "rolled_back")


@pytest.mark.parametrize("step", STEPS_OF_ONES_OWN)
@pytest.mark.parametrize("whose", ["no one", "ended", "another", "planning"])
def test_a_step_of_a_rollout_that_has_not_the_lock_writes_nothing(tmp_path: Path, whose: str, step: str) -> None:
    other = ledger_folder.owner_of(os.getppid(), {}, SINCE)
    gone = HERE._replace(start_ticks=HERE.start_ticks + 1)
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.release(HERE)
        words = "no one holds it"
        if whose != "no one":
            owner = {"ended": gone, "another": other, "planning": HERE}[whose]
            folder.name(owner, "" if whose == "planning" else ID)
            found = folder.owner()
            assert found is not None
            words = f"it is held by {ledger_lock.who(found)}"
        done = steps(folder, verdict={"verdict": "pass", "sentence": "well"})
        with pytest.raises(FleetError) as refused:
            done.run(step)
        assert refused.value.as_line() == f"EF_ROLLOUT_RUNNING: {folder.lock}: is not this rollout's lock: {words}"
        assert [one.kind for one in folder.entries()] == [ledger.STARTED, *(one.kind for one in done.written)]
        assert not done.written or step in ("measured", "verdict")


# --- what hosts were found to run, and the plan of what remains ----------------------------------


def answer(installed: Any = DIGEST, running: Any = DIGEST) -> dict[str, Any]:
    bundle = {"bundle": {"digest": running}}
    return {"observation": {"end": {"witness": {"installed_digest": installed}, "status": bundle}}}


# What the module of leases answers wherever it could be asked.
ASKED = {"left_seconds": None}


@pytest.mark.parametrize(
    ("found", "probation", "expected"),
    [
        (answer(), {"changed": False, **ASKED}, Found(DIGEST, DIGEST, False)),
        (answer(OLD), {"changed": True, **ASKED}, Found(OLD, DIGEST, True)),
        (answer(DIGEST, OLD), ASKED, Found(DIGEST, OLD, False)),
        (answer(), {"changed": True, "failed": False, "unreachable": False, **ASKED}, Found(DIGEST, DIGEST, True)),
        # Of a task that never fails, a module that did says so by what is not there.
        (answer(), {"changed": False, "failed": False, "msg": "no python"}, Found(DIGEST, DIGEST, None)),
        (answer(), {}, Found(DIGEST, DIGEST, None)),
        (answer(), {"changed": False, "failed": True, **ASKED}, Found(DIGEST, DIGEST, None)),
        (answer(), {"changed": True, "failed": True}, Found(DIGEST, DIGEST, None)),
        (answer(), {"changed": False, "unreachable": True, **ASKED}, Found(DIGEST, DIGEST, None)),
        (answer(), "no", Found(DIGEST, DIGEST, None)),
        (answer(), None, Found(DIGEST, DIGEST, None)),
        ({"failed": True}, {"changed": False, **ASKED}, Found(None, None, False)),
        ({"observation": {"end": {"witness": None, "status": None}}}, ASKED, Found(None, None, False)),
        (None, None, Found(None, None, None)),
    ],
)  # fmt: skip
def test_what_a_host_was_found_to_run(tmp_path: Path, found: Any, probation: Any, expected: Found) -> None:
    variables = {"ebpf_fleet_found": found, "ebpf_fleet_probation": probation}
    hostvars = {"w1": {name: value for name, value in variables.items() if value is not None}}
    assert steps(Folder(tmp_path), hostvars).found(["w1", "lost"]) == {"w1": expected, "lost": Found(None, None, None)}


def test_a_plan_of_what_remains_leaves_out_who_is_done(tmp_path: Path) -> None:
    hostvars = {
        "w1": {"ebpf_fleet_found": answer(), "ebpf_fleet_probation": {"changed": False, **ASKED}},
        "w2": {"ebpf_fleet_found": answer(), "ebpf_fleet_probation": {"changed": False, "failed": True}},
    }
    with Folder(tmp_path) as folder:
        begun(folder)
        plan = steps(folder, hostvars, resume=ID, plan={"hosts": ["w1", "w2", "w3"]}).run("resume")["plan"]
        assert plan["resumed"] == {"done": ["w1"], "remaining": ["w2", "w3"]}
        with pytest.raises(FleetError, match="give the bundle that it was planned with") as refused:
            steps(folder, resume=ID, digest=OLD, plan={"hosts": []}).run("resume")
        assert refused.value.code == "EF_ROLLOUT_STATE"


# --- begin and end --------------------------------------------------------------------------------


def test_a_rollout_begins_with_its_whole_plan_and_its_name_in_the_lock(tmp_path: Path) -> None:
    strata = [
        {"name": "w1", "stratum": "6.1/x"},
        {"name": "w2", "stratum": "5.4/x"},
        {"name": "w3", "stratum": "6.1/x"},
    ]
    with Folder(tmp_path) as folder:
        folder.take(HERE)
        done = steps(folder, plan={**PLAN, "share": 0.5, "odd": "\x1b"}, bundle={"version": "1.0.0"}, strata=strata)
        rollout = done.run("start")["rollout"]
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", rollout)
        assert abs(time.mktime(time.strptime(rollout[:15], "%Y%m%d-%H%M%S")) - time.mktime(time.gmtime())) < 120
        plan = {**PLAN, "share": "0.5", "odd": "\\x1b"}
        data = {
            "who": "jane", "bundle": {"version": "1.0.0"}, "plan": plan, "bundle_digest": DIGEST,
            "plan_digest": ledger.digest_of_document(plan), "controller": HERE.host,
            "strata": {"6.1/x": ["w1", "w3"], "5.4/x": ["w2"]},
        }  # fmt: skip
        assert written(done) == [(ledger.STARTED, data)] and done.written[0].rollout == rollout
        assert done.notes == [f"rollout {rollout} begins; ledger {tmp_path}"]
        assert folder.held_by(HERE) == (HERE._replace(rollout=rollout), ledger_lock.MINE)


def test_a_rollout_without_a_host_ends_at_once(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        folder.take(HERE)
        done = steps(folder, plan={"hosts": [], "batches": []})
        done.run("start")
        (_started, end) = written(done)
        assert end == (ledger.ENDED, {"outcome": "complete", "sentence": "every host was done"})
        assert folder.owner() is None


def test_a_rollout_goes_on_without_what_was_asked_of_it_before(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.name(HERE, "")
        folder.ask(ID, "pause", JOE)
        done = steps(folder, resume=ID, plan=PLAN)
        assert done.run("start") == {"rollout": ID}
        assert written(done) == [(ledger.RESUMED, {"who": "jane", "done": ["w1"], "remaining": ["w2", "w3"]})]
        assert done.notes == [f"rollout {ID} goes on; ledger {tmp_path}"]
        assert asked(folder) == set() and folder.asked("another", "abort") == JOE
        assert folder.held_by(HERE) == (HERE._replace(rollout=ID), ledger_lock.MINE)


def test_a_rollout_that_cannot_go_on_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.append(ID, ledger.ENDED, {"outcome": "complete", "sentence": "done"})
        folder.name(HERE, "")
        folder.ask(ID, "pause", JOE)
        done = steps(folder, resume=ID, plan=PLAN)
        with pytest.raises(FleetError, match=f"rollout {ID} is complete: only one that has ended early can be resumed"):
            done.run("start")
        assert (done.written, done.notes, asked(folder)) == ([], [], {f"{ID}.pause"})
        owner = folder.owner()
        assert owner is not None and owner.rollout == ""


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (10, ""), (11, " and 1 more"), (12, " and 2 more")],
)  # fmt: skip
def test_a_rollout_whose_plan_has_more_hosts_than_may_be_changed_stops(tmp_path: Path, count: int, more: str) -> None:
    hosts = [f"w{number}" for number in range(1, count + 1)]
    with Folder(tmp_path) as folder:
        begun(folder, {"hosts": ["done", *hosts], "batches": []})
        done = steps(folder, resume=ID, plan={"hosts": [], "resumed": {"done": ["done"], "remaining": []}})
        assert done.run("start") == {"rollout": ID}
        said = f"hosts of its plan were not to be changed by this run: {', '.join(hosts[:10])}{more}"
        assert written(done)[1:] == [(ledger.ENDED, {"outcome": "stopped", "sentence": said})]
        assert folder.owner() is None


def test_an_id_is_when_and_another_each_time(tmp_path: Path) -> None:
    ids = {ledger_steps.new_id(HERE, PLAN, DIGEST) for _time in range(20)}
    assert len({one[-6:] for one in ids}) > 15 and all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", one) for one in ids)


# --- a batch --------------------------------------------------------------------------------------


def test_a_batch_begins_with_its_hosts(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        done = steps(folder, batch={**BATCH, "more": 1})
        assert done.run("batch") == {"rollout": ID}
        assert written(done) == [(ledger.BATCH_BEGUN, {"number": 2, "stage": "fleet", "hosts": ["w2", "w3"]})]
        assert folder.held_by(HERE)[1] == ledger_lock.MINE and folder.asked("another", "abort") == JOE


FROZEN = (
    "EF_FROZEN: Batch 2 (stage fleet) and all after it were not started: a; b. The batches before it keep the release. "
    f"Go on with -e ebpf_fleet_resume={ID} when that is over, or "
    """overrule it by name with -e '{"ebpf_fleet_overrule_freeze": "WHY"}'"""
)
PAUSED = (
    f"EF_ROLLOUT_PAUSED: rollout {ID} pauses before batch 2 (stage fleet), as joe asked: "
    f"nothing of it was changed; go on with -e ebpf_fleet_resume={ID}"
)
ENDS = (
    f"EF_ROLLOUT_ABORTED: rollout {ID} ends before batch 2, as joe asked: "
    "nothing of it was changed; what was promoted stays"
)


@pytest.mark.parametrize(
    ("wishes", "frozen", "line", "entries"),
    [
        (["abort", "pause"], ["a"], ENDS, [
            (ledger.ABORTED, JOE),
            (ledger.ENDED, {"outcome": "aborted", "sentence": "before batch 2; what was promoted stays"})]),
        (["pause", "promote"], ["a"], PAUSED, [(ledger.PAUSED, {"who": "joe", "before_batch": 2})]),
        ([], ["a", "b"], FROZEN, [
            (ledger.ENDED, {"outcome": "stopped", "sentence": "before batch 2, which may not start now: a; b"})]),
    ],
)  # fmt: skip
def test_a_batch_that_may_not_begin_gives_the_fleet_back(
    tmp_path: Path, wishes: list[str], frozen: list[str], line: str, entries: list[Any]
) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        for wish in wishes:
            folder.ask(ID, wish, JOE)
        done = steps(folder, frozen=frozen)
        found = done.run("batch")
        assert (found["msg"], found["failed"], found["changed"]) == (line, True, False)
        assert found["reason_code"] == line.partition(":")[0] and found["remedy"]
        assert written(done) == entries and folder.owner() is None
        assert asked(folder) == set() and folder.asked("another", "abort") == JOE


def seen(digest: str | None, **status: Any) -> dict[str, Any]:
    return {"observation": {"end": {"status": {"bundle": {"digest": digest}, **status}}}}


def observed(when: str) -> tuple[str, dict[str, Any]]:
    """The entry of the variables below."""
    digests = {"w2": ledger.digest_of_document(seen(DIGEST, lease={"holder": "x"})["observation"]), "w3": None}
    running = {"w2": {"digest": DIGEST, "lease": True}, "w3": {"digest": "", "lease": False}}
    return ledger.OBSERVED, {"number": 2, "when": when, "digests": digests, "running": running}


@pytest.mark.parametrize("wish", [False, True])
def test_what_hosts_ran_before_is_written_and_a_wish_to_end_honoured(tmp_path: Path, wish: bool) -> None:
    hostvars = {"w1": {"b": seen(OLD)}, "w2": {"b": seen(DIGEST, lease={"holder": "x"})}, "w3": {"a": seen(OLD)}}
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.ask(ID, "pause", JOE)
        if wish:
            folder.ask(ID, "abort", JOE)
        done = steps(folder, hostvars, before_var="b", after_var="a")
        found = done.run("measured")
        assert found.get("msg") == (ABORTED if wish else None) and found.get("failed", False) is wish
        assert written(done) == [observed("before"), *([(ledger.ABORTED, JOE)] if wish else [])]
        # Once: what goes back now is not stopped by it, and a wish to pause stays.
        assert asked(folder) == {f"{ID}.pause"} and folder.held_by(HERE)[1] == ledger_lock.MINE


@pytest.mark.parametrize(
    ("status", "digest", "lease"),
    [
        (seen(None), "", False),
        (seen(OLD, lease=None), OLD, False),
        (seen(OLD, lease={}), OLD, True),
        ({"observation": {"end": None}}, "", False),
        ({"observation": None}, "", False),
        ({"failed": True}, "", False),
    ],
)
def test_what_one_host_ran(tmp_path: Path, status: Any, digest: str, lease: bool) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        done = steps(folder, {"w1": {"ebpf_fleet_before": status}}, batch=PLAN["batches"][0])
        assert done.run("measured") == {}
        ((_kind, data),) = written(done)
        assert data["running"] == {"w1": {"digest": digest, "lease": lease}}
        assert (data["digests"]["w1"] is None) is (status.get("observation") is None)


@pytest.mark.parametrize("wish", [False, True])
def test_a_verdict_is_written_with_its_reasons(tmp_path: Path, wish: bool) -> None:
    given = {"verdict": "fail", "sentence": "too slow", "checks": [{"check": "c", "measured": "0.5"}],
             "reasons": [{"sentence": "one", "host": "w2"}, {"sentence": "two"}]}  # fmt: skip
    hostvars = {"w2": {"ebpf_fleet_after": seen(DIGEST, lease={"holder": "x"}), "ebpf_fleet_before": seen(OLD)}}
    with Folder(tmp_path) as folder:
        begun(folder)
        if wish:
            folder.ask(ID, "abort", JOE)
        done = steps(folder, hostvars, verdict=given)
        assert done.run("verdict").get("msg") == (ABORTED if wish else None)
        data = {"number": 2, "verdict": "fail", "sentence": "too slow", "reasons": ["one", "two"],
                "checks_digest": ledger.digest_of_document(given["checks"])}  # fmt: skip
        assert written(done) == [observed("after"), (ledger.VERDICT, data), *([(ledger.ABORTED, JOE)] if wish else [])]


def test_a_verdict_without_reasons_or_checks_has_none(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        done = steps(folder, verdict={"verdict": "pass", "sentence": "well"})
        assert done.run("verdict") == {}
        _kind, data = written(done)[1]
        assert (data["reasons"], data["checks_digest"]) == ([], ledger.digest_of_document([]))


def test_a_batch_is_held_once_however_often_it_is_waited_for(tmp_path: Path) -> None:
    note = f"batch 2 of rollout {ID} is held for a person: ebpf.fleet.promote or ebpf.fleet.abort"
    held = (ledger.ACTION, {"action": "held", "number": 2, "seconds": 7})
    with Folder(tmp_path) as folder:
        begun(folder)
        for entries, notes in (([held], [note]), ([], [])):
            done = steps(folder, seconds=7.9)
            assert done.run("hold") == {"rollout": ID, "promote": False}
            assert ([(one.kind, one.data) for one in done.written], done.notes) == (entries, notes)
        folder.append("another", ledger.STARTED, folder.entries()[0].data)
        done = steps(folder, seconds=7.9)
        done.run("hold")
        assert done.written == [], "what another rollout does is not of this one"


def test_the_step_check_and_the_step_report_of_what_no_one_asked(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        done = steps(folder)
        assert (done.run("check"), done.run("report"), done.written, done.notes) == ({}, {}, [], [])
        folder.ask(ID, "abort", {})
        assert done.run("check")["msg"] == ABORTED.replace("joe", "someone")
        assert written(done) == [(ledger.ABORTED, {"who": "someone"})]


@pytest.mark.parametrize("who", ["", "joe"])
def test_a_batch_is_promoted_with_who_confirmed(tmp_path: Path, who: str) -> None:
    hostvars = {"w2": {"ebpf_fleet_confirmed": {"changed": True}}, "w3": {"ebpf_fleet_confirmed": {"failed": True}}}
    promoted = {"action": "promoted", "number": 2, "hosts": ["w2", "w3"], "digest": DIGEST}
    with Folder(tmp_path) as folder:
        begun(folder)
        for wish in ("promote", "pause"):
            folder.ask(ID, wish, JOE)
        done = steps(folder, hostvars, who=who)
        assert done.run("promoted") == {"rollout": ID}
        assert written(done) == [
            (ledger.ACTION, {"action": "confirmed", "number": 2, "hosts": ["w2"]}),
            (ledger.ACTION, {**promoted, "who": who} if who else promoted),
        ]
        assert asked(folder) == {f"{ID}.pause"} and folder.held_by(HERE)[1] == ledger_lock.MINE


def test_the_last_batch_ends_the_rollout_which_is_complete_with_all_its_hosts(tmp_path: Path) -> None:
    for first, end in (
        (["w1"], {"outcome": "complete", "sentence": "every batch was promoted"}),
        ([], {"outcome": "stopped", "sentence": "hosts of its plan were not to be changed by this run: w1"}),
    ):
        with Folder(tmp_path / end["outcome"]) as folder:
            begun(folder)
            folder.append(ID, ledger.ACTION, {"action": "promoted", "number": 1, "hosts": first})
            folder.ask(ID, "pause", JOE)
            done = steps(folder, last=True)
            assert done.run("promoted") == {"rollout": ID}
            promoted = {"action": "promoted", "number": 2, "hosts": ["w2", "w3"], "digest": DIGEST}
            assert written(done) == [(ledger.ACTION, promoted), (ledger.ENDED, end)]
            assert folder.owner() is None and asked(folder) == set() and folder.asked("another", "abort") == JOE


# --- the way back ---------------------------------------------------------------------------------


def changed(folder: Folder, number: int, *hosts: str) -> None:
    running = {host: {"digest": OLD, "lease": False} for host in hosts}
    folder.append(ID, ledger.OBSERVED, {"number": number, "when": "before", "digests": {}, "running": running})


def test_hosts_that_were_changed_in_other_batches(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        changed(folder, 1, "w0", "w1")
        changed(folder, 2, "w2", "w3")
        folder.append("another", ledger.OBSERVED, {**folder.entries()[-1].data, "running": {"w9": {"digest": OLD}}})
        done = steps(folder)
        assert done.run("changed") == {"rollout": ID, "hosts": ["w0", "w1"]} and done.written == []


BACK = {"w2": {"ok": True, "detail": ""}, "w3": {"ok": False, "detail": "gone"}}
FAILED = {"verdict": "fail", "sentence": "too\x1b slow", "reasons": [{"host": "w2", "verdict": "fail"}]}
STRATA = [{"name": name, "stratum": stratum} for name, stratum in (("w1", "a"), ("w2", "6.1/x"), ("w3", "5.4/x"))]


def told_end(said: str) -> str:
    return (
        f"rollout {ID} ended {said}. ebpf.fleet.history -e ebpf_fleet_rollout_id={ID} explains it, "
        f"ebpf.fleet.rollout -e ebpf_fleet_resume={ID} goes on"
    )


def test_a_batch_that_failed_goes_back_and_its_release_into_quarantine(tmp_path: Path) -> None:
    before = quarantine.Quarantined(OLD, "6.1/x", "before", SINCE, "another")
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.put_quarantine([before])
        begin = ledger_folder.now()
        done = steps(folder, verdict=FAILED, returned=BACK, strata=STRATA)
        assert done.run("rolled_back") == {"rollout": ID, "aborted": False, "quarantined": ["6.1/x"]}
        why = "too\\x1b slow"
        assert written(done) == [
            (ledger.ACTION, {"action": "rolled_back", "number": 2, "returned": BACK, "why": why}),
            (ledger.ACTION, {"action": "quarantined", "digest": DIGEST, "strata": ["6.1/x"], "why": why, "number": 2}),
            (ledger.ENDED, {"outcome": "stopped", "sentence": f"in stage fleet: {why}"}),
        ]
        old, new = folder.quarantined()
        assert old == before and begin <= new.since <= ledger_folder.now()
        assert new == quarantine.Quarantined(DIGEST, "6.1/x", why, new.since, ID)
        assert done.notes == [
            f"release {DIGEST[:12]} is quarantined for 6.1/x: "
            f"ebpf.fleet.quarantine -e ebpf_fleet_lift_quarantine={DIGEST[:12]} permits it again",
            told_end(f"in stage fleet: {FAILED['sentence']}"),
        ]
        assert folder.owner() is None


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ({}, "a task of this batch failed, or a host was lost"),
        ({"verdict": "fail", "sentence": ""}, "a task of this batch failed, or a host was lost"),
        ({"verdict": "inconclusive", "sentence": "not measured", "reasons": [{"host": "w2"}]}, "not measured"),
    ],
)
def test_what_was_not_judged_bad_goes_back_without_a_quarantine(
    tmp_path: Path, verdict: dict[str, Any], why: str
) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        done = steps(folder, verdict=verdict, returned=BACK, strata=[], returned_all={"w1": BACK["w2"]})
        assert done.run("rolled_back") == {"rollout": ID, "aborted": False, "quarantined": []}
        everything = "everything that this rollout changed was to go back (ebpf_fleet_rollback_all)"
        assert written(done) == [
            (ledger.ACTION, {"action": "rolled_back", "number": 2, "returned": BACK, "why": why}),
            (ledger.ACTION, {"action": "rolled_back", "returned": {"w1": BACK["w2"]}, "why": everything}),
            (ledger.ENDED, {"outcome": "stopped", "sentence": f"in stage fleet: {why}"}),
        ]
        assert not folder.quarantine.exists() and done.notes == [told_end(f"in stage fleet: {why}")]


def test_a_rollout_that_a_person_ended_blames_no_release(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        begun(folder)
        folder.append(ID, ledger.ABORTED, JOE)
        folder.append("another", ledger.STARTED, folder.entries()[0].data)
        done = steps(folder, verdict=FAILED, returned=BACK, strata=STRATA)
        assert done.run("rolled_back") == {"rollout": ID, "aborted": True}
        assert written(done) == [
            (ledger.ACTION,
             {"action": "rolled_back", "number": 2, "returned": BACK, "why": "a person asked it to end"}),
            (ledger.ENDED, {"outcome": "aborted", "sentence": "in stage fleet: its batch went back"}),
        ]  # fmt: skip
        assert not folder.quarantine.exists() and done.notes == [told_end("in stage fleet: its batch went back")]


# --- the wait for a person ------------------------------------------------------------------------


class Clock(SimpleNamespace):
    """A clock that only a sleep moves; what happens meanwhile is done in the sleep."""

    def monotonic(self) -> float:
        return float(sum(self.slept))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        assert seconds > 0 and len(self.slept) < 10
        self.happens(len(self.slept))


def waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, happens: Callable[[int], None]
) -> tuple[list[float], Any]:
    clock = Clock(slept=[], happens=happens)
    monkeypatch.setattr(ledger_steps, "time", clock)
    return clock.slept, ledger_steps.wait_for_person(Folder(tmp_path), ID, seconds)


@pytest.mark.parametrize(
    ("seconds", "slept"), [(0, []), (0.25, [0.25]), (0.5, [0.5]), (0.75, [0.5, 0.25]), (1.0, [0.5, 0.5])]
)
def test_a_person_who_does_not_come_is_waited_for_just_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, slept: list[float]
) -> None:
    assert waited(tmp_path, monkeypatch, seconds, lambda _turn: None) == (slept, (None, False))


@pytest.mark.parametrize(
    ("wishes", "found"),
    [
        (["promote"], (JOE, False)),
        (["abort"], (None, True)),
        (["promote", "abort"], (JOE, True)),
        (["pause"], (None, False)),
    ],
)
def test_a_person_is_heard_at_once_and_the_folder_is_open_to_others_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: list[str], found: tuple[Any, bool]
) -> None:
    def ask(turn: int) -> None:
        with Folder(tmp_path) as folder:
            for wish in wishes if turn == 2 else ():
                folder.ask(ID, wish, JOE)

    turns = 4 if wishes == ["pause"] else 2
    assert waited(tmp_path, monkeypatch, 2.0, ask) == ([0.5] * turns, found)
    turns = 4 if wishes == ["pause"] else 0
    assert waited(tmp_path, monkeypatch, 2.0, lambda _turn: None) == ([0.5] * turns, found), "it was there before"


# --- small parts ----------------------------------------------------------------------------------


def test_who_wished_is_printable_and_short() -> None:
    assert ledger_steps.who_of({"who": "joe\x1b"}) == "joe\\x1b"
    assert ledger_steps.who_of({}) == ledger_steps.who_of({"who": ""}) == "someone"
    assert ledger_steps.who_of({"who": "j" * 100}) == "j" * 100
    assert ledger_steps.who_of({"who": "j" * 101}) == "j" * 99 + "…"


@pytest.mark.parametrize(
    ("told", "confirmed"),
    [
        ({}, True),
        ({"changed": False, "failed": False, "unreachable": False, "skipped": False}, True),
        ({"failed": True}, False),
        ({"unreachable": True}, False),
        ({"skipped": True}, False),
        (None, False),
        ("yes", False),
    ],
)
def test_who_has_confirmed(told: Any, confirmed: bool) -> None:
    assert ledger_steps.is_confirmed(told) is confirmed


def test_hosts_by_their_stratum() -> None:
    assert ledger_steps.by_stratum([]) == {}
    assert ledger_steps.by_stratum([{"name": "a", "stratum": 7}, {"name": "b", "stratum": "7"}]) == {"7": ["a", "b"]}


def test_a_part_of_nested_values() -> None:
    nested = {"a": {"b": [{"c": 0}]}, "text": "abc"}
    assert ledger_steps.value_at(nested) is nested and ledger_steps.value_at(nested, "a", "b", 0, "c") == 0
    for names in (("x",), ("a", "x"), ("a", "b", "c"), ("a", "b", 1), ("text", "a"), ("a", "b", 0, "c", "d")):
        assert ledger_steps.value_at(nested, *names) is None


def test_a_whole_copy_has_no_fraction_and_nothing_that_cannot_be_shown() -> None:
    given = {"a": (1, 0.5, True, None), 7: {"b": [-2.0]}, "t": "\x1b", "long": "x" * 2001, "odd": Path("/a")}
    found = ledger_steps.whole(given)
    assert found == {
        "a": [1, "0.5", True, None], "7": {"b": ["-2.0"]}, "t": "\\x1b", "long": "x" * 1999 + "…", "odd": "/a"
    }  # fmt: skip
    assert found["a"][2] is True and isinstance(found["a"], list)
    assert ledger_steps.whole("x" * 2000) == "x" * 2000


# --- the task around the steps --------------------------------------------------------------------


def test_a_step_tells_its_hooks_what_it_wrote_and_where_the_folder_is(tmp_path: Path) -> None:
    """The hooks are real programs; the lock is of the process that runs this, whose child a worker would be."""
    place, said = tmp_path / "ledger", tmp_path / "said"
    told = hooks.read("hooks", [{"command": ["/bin/sh", "-c", f"cat >>{said}"], "on": ["batch_begun"]},
                                {"command": ["/bin/false"], "on": ["batch_begun"]}])  # fmt: skip
    parent = ledger_folder.owner_of(os.getppid(), os.environ, SINCE)
    with Folder(place) as folder:
        folder.take(parent)
        folder.append(ID, ledger.STARTED, {"who": "jane", "bundle": {}, "bundle_digest": DIGEST, "plan": PLAN,
                                           "plan_digest": OLD})  # fmt: skip
        folder.name(parent, ID)
    shown: list[str] = []
    task: Any = ActionModule.__new__(ActionModule)
    task._display = SimpleNamespace(display=shown.append, warning=shown.append)
    given = {name: one.get("default") for name, one in ARGUMENTS.items()}
    answer = task.stepped("batch", {**given, "folder": str(place), "batch": BATCH, "digest": DIGEST}, {}, told)
    assert answer == {"folder": str(place), "rollout": ID}
    entries = Folder(place, writes=False).entries()
    assert [one.kind for one in entries] == ["started", "batch_begun", "hook_failed"]
    assert json.loads(said.read_text())["sequence"] == 2
    assert len(shown) == 1 and "/bin/false failed on batch_begun 2" in shown[0]
