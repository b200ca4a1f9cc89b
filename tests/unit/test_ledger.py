# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: its chain and what breaks it, a torn line, the lock, the quarantine, hooks, and what it tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import (
    hooks,
    ledger,
    ledger_history,
    ledger_lock,
    ledger_resume,
    quarantine,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.ledger import Entry, Head

ID, TIME = "20261128-001733-3f1c2a", "2026-11-28T00:17:33.000001Z"
DIGEST, OTHER = "a" * 64, "b" * 64
PLAN = {
    "hosts": ["w1", "w2", "w3"],
    "batches": [
        {"number": 1, "stage": "canary", "hosts": ["w1"]},
        {"number": 2, "stage": "cell", "hosts": ["w2", "w3"]},
    ],
}
# One of each kind.
DATA: dict[str, dict[str, Any]] = {
    "started": {"who": "jane", "bundle": {"version": "1.0.0"}, "bundle_digest": DIGEST, "plan": PLAN,
                "plan_digest": OTHER},
    "batch_begun": {"number": 1, "stage": "canary", "hosts": ["w1"]},
    "observed": {"number": 1, "when": "before", "digests": {"w1": OTHER},
                 "running": {"w1": {"digest": OTHER, "lease": False}}},
    "verdict": {"number": 1, "verdict": "pass", "sentence": "all well", "checks_digest": OTHER, "reasons": []},
    "action": {"action": "promoted", "number": 1, "hosts": ["w1"]},
    "paused": {"who": "joe", "before_batch": 2},
    "resumed": {"who": "joe", "done": ["w1"], "remaining": ["w2", "w3"]},
    "aborted": {"who": "joe"},
    "ended": {"outcome": "complete", "sentence": "every batch was promoted"},
    "hook_failed": {"hook": "/bin/x", "kind": "ended", "why": "ended with 1"},
    "repaired": {"bytes": 3, "digest": OTHER},
}  # fmt: skip
BACK = {"ok": True, "detail": "the previous release runs"}


def chain(*some: tuple[str, dict[str, Any]]) -> tuple[list[Entry], bytes, Head | None]:
    """Entries, the ledger of them and its head."""
    entries, data, head = [], b"", None
    for kind, one in some:
        entry = ledger.next_entry(head, TIME, ID, kind, one)
        line = ledger.line_of(entry)
        head = Head(entry.sequence, ledger.digest_of(line))
        entries.append(entry)
        data += line
    return entries, data, head


def told(*some: str | tuple[str, dict[str, Any]]) -> list[Entry]:
    """Entries by their kind, with the data above, or with other data."""
    return chain(*((one, DATA[one]) if isinstance(one, str) else one for one in some))[0]


ENTRIES, WHOLE, HEAD = chain(*DATA.items())


# --- the chain -----------------------------------------------------------------------------------


def test_every_kind_is_written_and_read_back() -> None:
    assert set(DATA) == set(ledger.KINDS)
    found = ledger.verify(WHOLE, HEAD)
    assert (found.broken_line, found.torn, found.entries) == (None, b"", ENTRIES)
    assert [one.sequence for one in found.entries] == list(range(1, len(DATA) + 1))
    assert found.entries[0].previous == ledger.GENESIS
    assert ledger.sentence_of(found) == f"the chain of {len(DATA)} lines is sound"


def test_a_line_is_canonical() -> None:
    line = ledger.line_of(ENTRIES[7])
    assert line == (
        b'{"data":{"who":"joe"},"kind":"aborted","previous":"'
        + ENTRIES[7].previous.encode()
        + b'","rollout":"'
        + ID.encode()
        + b'","schema":"ebpf.fleet/ledger/v1","sequence":8,"time":"'
        + TIME.encode()
        + b'"}\n'
    )


LINES = WHOLE.splitlines(keepends=True)


@pytest.mark.parametrize("at", range(len(LINES)))
def test_a_line_that_is_changed_taken_out_doubled_or_moved_is_named(at: int) -> None:
    changed = [*LINES[:at], LINES[at].replace(b'"2026-', b'"2027-'), *LINES[at + 1 :]]
    # A changed line reads as one: the next one does not name it, or the head does not.
    assert ledger.verify(b"".join(changed), HEAD).broken_line == min(at + 2, len(LINES))
    assert ledger.verify(b"".join([*LINES[:at], *LINES[at + 1 :]]), HEAD).broken_line == min(at + 1, len(LINES))
    assert ledger.verify(b"".join([*LINES[: at + 1], *LINES[at:]]), HEAD).broken_line == at + 2
    swapped = [*LINES[:at], *LINES[at : at + 2][::-1], *LINES[at + 2 :]]
    if at + 1 < len(LINES):
        assert ledger.verify(b"".join(swapped), HEAD).broken_line == at + 1


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b'"kind":"aborted"', b'"kind":"abortet"', "kind 'abortet' is not known"),
        (b'{"data"', b'{ "data"', "is not in canonical form"),
        (b'"ebpf.fleet/ledger/v1"', b'"ebpf.fleet/ledger/v2"', "is not of schema"),
        (b'{"who":"joe"},"kind":"aborted"', b'{},"kind":"aborted"', "aborted lacks who"),
        (b'"sequence":8', b'"sequence":80', "has sequence 80 where 8 belongs"),
        (b'"sequence":8', b'"sequence":true', "sequence is not what it must be"),
        (b'"time":"2026-11-28T00', b'"time":"2026-11-28 00', "time is not RFC 3339"),
        (b'"rollout":"2', b'"rollout":"2","rollout":"3', "is there twice"),
        (b'"sequence":8', b'"more":1,"sequence":8', "has not the fields of an entry"),
        (b',"sequence":8', b"", "has not the fields of an entry"),
        (b'"schema":"ebpf.fleet/ledger/v1",', b"", "has not the fields of an entry"),
        (b'"rollout":"', b'"rollout":5,"rallout":"', "has not the fields of an entry"),
        (b'"kind":"aborted"', b'"kind":7', "kind is not what it must be"),
        (b'"data":{"who":"joe"}', b'"data":["who"]', "data is not what it must be"),
        (b'"previous":"', b'"previous":"x', "previous is not a SHA-256"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(old: bytes, new: bytes, fault: str) -> None:
    data = b"".join([*LINES[:7], LINES[7].replace(old, new, 1), *LINES[8:]])
    found = ledger.verify(data, HEAD)
    assert found.broken_line == 8 and fault in found.fault, found.fault
    assert len(found.entries) == 7
    assert f"broken at line 8: {found.fault}" in ledger.sentence_of(found)


@pytest.mark.parametrize("line", [b"[]", b"{}", b'["schema"]', b'{"schema":"ebpf.fleet/ledger/v1"}'])
def test_a_line_that_is_not_an_entry_is_told_as_such(line: bytes) -> None:
    with pytest.raises(ValueError, match="^has not the fields of an entry$"):
        ledger.parse_line(line)
    assert ledger.verify(line + b"\n").fault == "has not the fields of an entry"


def test_a_cut_end_is_seen_by_the_head_and_a_line_more_than_it_says_is_none() -> None:
    cut = b"".join(LINES[:-2])
    assert ledger.verify(cut, HEAD).broken_line == len(LINES) - 1
    assert ledger.verify(cut, None).broken_line is None, "without a head it cannot be known"
    before = Head(len(LINES) - 1, ledger.digest_of(LINES[-2]))
    assert ledger.verify(WHOLE, before).broken_line is None, "the crash came between line and head"
    assert ledger.verify(b"", HEAD).broken_line == 1 and ledger.verify(b"", None).broken_line is None


@pytest.mark.parametrize("length", [1, 40, len(LINES[-1]) - 1])
def test_a_torn_last_line_is_told_apart_from_one_that_was_cut_later(length: int) -> None:
    data = b"".join(LINES[:-1]) + LINES[-1][:length]
    before = Head(len(LINES) - 1, ledger.digest_of(LINES[-2]))
    found = ledger.verify(data, before)
    assert found.broken_line is None and found.torn == LINES[-1][:length] and len(found.entries) == len(LINES) - 1
    assert f"torn by a crash ({length} bytes)" in ledger.sentence_of(found)
    # The head knows the line: it was whole once.
    assert ledger.verify(data, HEAD).broken_line == len(LINES)


def test_the_tail_says_what_comes_next() -> None:
    assert ledger.tail_of(b"", None) == ledger.Tail(None, b"")
    assert ledger.tail_of(b'{"da', None) == ledger.Tail(None, b'{"da')
    assert ledger.tail_of(LINES[-1], HEAD) == ledger.Tail(HEAD, b"")
    before = Head(len(LINES) - 1, ledger.digest_of(LINES[-2]))
    assert ledger.tail_of(b"".join(LINES[-2:]), before) == ledger.Tail(HEAD, b"")
    assert ledger.tail_of(LINES[-2] + b"{", before) == ledger.Tail(before, b"{")


@pytest.mark.parametrize(
    ("data", "head", "problem"),
    [
        (b"", HEAD, "has no line, and its head says that line 11 was written"),
        (LINES[-2], HEAD, "ends with line 10, and its head says that line 11 was written"),
        (LINES[-2] + LINES[-1][:-5], HEAD, "ends with line 10"),
        (LINES[-1].replace(b'"bytes":3', b'"bytes":4'), HEAD, "is another line than the head says"),
        (b"nonsense\n", None, "is not JSON"),
    ],
)
def test_nothing_is_appended_to_a_ledger_whose_end_was_changed(data: bytes, head: Head, problem: str) -> None:
    with pytest.raises(ledger.LedgerBrokenError, match=problem) as caught:
        ledger.tail_of(data, head)
    assert caught.value.code == "EF_LEDGER_BROKEN"


@pytest.mark.parametrize(
    ("kind", "data", "fault"),
    [
        ("begun", {}, "kind 'begun' is not known"),
        ("ended", {"outcome": "complete"}, "ended lacks sentence"),
        ("action", {"action": "danced"}, "action 'danced' is not known"),
    ],
)
def test_an_entry_that_is_not_of_its_kind_is_not_written(kind: str, data: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ledger.next_entry(None, TIME, ID, kind, data)


def test_neither_a_fraction_nor_an_odd_time_is_written() -> None:
    with pytest.raises(ValueError, match=r"0\.5"):
        ledger.line_of(ledger.next_entry(None, TIME, ID, "aborted", {"who": {"a": [0.5]}}))
    with pytest.raises(ValueError, match="RFC 3339"):
        ledger.next_entry(None, "2026-11-28", ID, "aborted", {"who": "x"})


def test_a_head_is_read_back_and_what_is_not_one_is_refused() -> None:
    assert HEAD is not None and ledger.parse_head(ledger.render_head(HEAD)) == HEAD
    for data in (b"", b"[]", b"{}", ledger.render_head(HEAD._replace(sequence=0)),
                 ledger.render_head(HEAD._replace(digest="x"))):  # fmt: skip
        with pytest.raises(ledger.LedgerBrokenError):
            ledger.parse_head(data)


# --- the lock ------------------------------------------------------------------------------------

OWNER = ledger_lock.Owner("jane", "ctl", "boot-1", "pid:[1]", 77, 5000, TIME, ID)


@pytest.mark.parametrize(
    ("here", "ticks", "state"),
    [
        ({}, 5000, "mine"),
        ({}, None, "stale"),  # a worker asks, whose play is gone
        ({"pid": 78, "start_ticks": 9}, 5000, "held"),
        ({"pid": 78}, 5001, "stale"),  # the number is another process's by now
        ({"pid": 78}, None, "stale"),
        ({"pid": 78, "boot_id": "boot-2"}, 5000, "stale"),
        ({"pid": 78, "host": "other"}, None, "held"),  # it cannot be seen from there
        ({"pid": 78, "host": "other", "boot_id": "boot-2"}, None, "held"),
        ({"pid": 78, "pid_namespace": "pid:[2]"}, None, "held"),
    ],
)
def test_whether_a_lock_is_held(here: dict[str, Any], ticks: int | None, state: str) -> None:
    assert ledger_lock.judge(OWNER, OWNER._replace(**here), ticks) == state


def test_a_lock_is_read_back_and_says_who_holds_it() -> None:
    assert ledger_lock.parse(ledger_lock.render(OWNER)) == OWNER
    assert ledger_lock.who(OWNER) == f"rollout {ID} of jane on ctl (process 77), since {TIME}"
    assert ledger_lock.who(OWNER._replace(rollout="")).startswith("a rollout that is being planned of jane")
    for data in (
        b"",
        b"{}",
        b"[]",
        ledger_lock.render(OWNER).replace(b"77", b'"77"'),
        ledger_lock.render(OWNER).replace(b"5000", b"true"),
        ledger_lock.render(OWNER).replace(b'"jane"', b"1"),
    ):
        assert ledger_lock.parse(data) is None, data


def test_the_start_of_a_process_by_its_stat() -> None:
    stat = "77 (a) b (c) {} 1 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5000 0"
    assert ledger_lock.ticks_of(stat.format("S")) == 5000
    assert ledger_lock.ticks_of(stat.format("Z")) is None, "dead, and not yet waited for"
    assert ledger_lock.ticks_of("") is None
    assert ledger_lock.person({"SUDO_USER": "jane"}, "root") == "jane as root"
    assert ledger_lock.person({}, "root") == "root" == ledger_lock.person({"SUDO_USER": "root"}, "root")


# --- what it tells -------------------------------------------------------------------------------

PROMOTED_2 = ("action", {"action": "promoted", "number": 2, "hosts": ["w2", "w3"]})
BEGUN_2 = ("batch_begun", {"number": 2, "stage": "cell", "hosts": ["w2", "w3"]})
HELD = ("action", {"action": "held", "number": 1})
RETURNED_1 = ("action", {"action": "rolled_back", "number": 1, "returned": {"w1": BACK}, "why": "is slow"})
STOPPED = ("ended", {"outcome": "stopped", "sentence": "in stage canary: is slow"})


@pytest.mark.parametrize(
    ("some", "alive", "state"),
    [
        (["started"], True, "running"),
        (["started"], False, "interrupted"),
        (["started", "batch_begun", "verdict", HELD], True, "held"),
        (["started", "batch_begun", "verdict", HELD], False, "interrupted"),
        (["started", "batch_begun", HELD, "action"], True, "running"),
        (["started", "paused"], True, "paused"),
        (["started", "paused", "resumed"], True, "running"),
        (["started", "paused", "resumed"], False, "interrupted"),
        (["started", "ended"], True, "complete"),
        (["started", STOPPED], False, "stopped"),
        (["started", STOPPED, "resumed"], True, "running"),
    ],
)
def test_the_state_of_a_rollout(some: list[Any], alive: bool, state: str) -> None:
    assert ledger_history.state_of(told(*some), alive) == state


def test_the_batch_in_hand_is_the_one_that_was_begun_and_has_no_end() -> None:
    assert ledger_history.in_hand(told("started")) is None
    assert ledger_history.in_hand(told("started", "batch_begun", "verdict", HELD)) == DATA["batch_begun"]
    assert ledger_history.in_hand(told("started", "batch_begun", "action")) is None
    assert ledger_history.in_hand(told("started", "batch_begun", RETURNED_1)) is None


def observed(when: str = "before", **ran: tuple[str, bool]) -> tuple[str, dict[str, Any]]:
    running = {host: {"digest": digest, "lease": lease} for host, (digest, lease) in ran.items()}
    return "observed", {"number": 1, "when": when, "digests": {}, "running": running}


@pytest.mark.parametrize(
    ("some", "hosts"),
    [
        ([observed(w1=(OTHER, False), w2=(DIGEST, False), w3=("", False))], ["w1", "w3"]),
        ([observed(w2=(DIGEST, True))], ["w2"]),  # on probation: a run before this one was cut short
        ([observed(w1=(OTHER, False)), RETURNED_1], []),
        (
            [observed(w1=(OTHER, False)), ("action", {**RETURNED_1[1], "returned": {"w1": {**BACK, "ok": False}}})],
            ["w1"],
        ),
        ([observed("after", w1=(OTHER, False))], []),
    ],
)
def test_what_a_rollout_changed_is_what_ran_another_release_and_did_not_go_back(
    some: list[Any], hosts: list[str]
) -> None:
    assert ledger_history.changed_hosts(told("started", *some)) == hosts


def test_which_hosts_of_the_plan_are_missing() -> None:
    assert ledger_history.missing_hosts(told("started", "action")) == ["w2", "w3"]
    assert ledger_history.missing_hosts(told("started", "action", PROMOTED_2)) == []
    assert ledger_history.missing_hosts(told("started", "action", RETURNED_1, PROMOTED_2)) == ["w1"]
    found_done = ("resumed", {**DATA["resumed"], "done": ["w1", "w3"]})
    assert ledger_history.missing_hosts(told("started", found_done)) == ["w2"]


def test_a_person_is_told_the_whole_story() -> None:
    entries = told(
        "started",
        "batch_begun",
        "observed",
        "verdict",
        ("action", {"action": "confirmed", "number": 1}),
        "action",
        BEGUN_2,
        HELD,
        "aborted",
        (
            "action",
            {"action": "rolled_back", "number": 2, "returned": {"w2": BACK, "w3": {**BACK, "ok": False}}, "why": "so"},
        ),
        ("action", {"action": "rolled_back", "returned": {"w1": BACK}, "why": "all"}),
        ("action", {"action": "quarantined", "digest": DIGEST, "strata": ["s"]}),
        "hook_failed",
        STOPPED,
        "resumed",
        "paused",
    )
    said = ledger_history.explain(ID, entries, False)
    assert said[0] == (
        f"rollout {ID}: 1.0.0 (bundle aaaaaaaaaaaa), begun by jane at {TIME}; 3 hosts in 2 batches, plan bbbbbbbbbbbb"
    )
    assert [one.removeprefix(f"{TIME} ") for one in said[1:]] == [
        "stage canary, batch 1 begins: w1",
        "batch 1 is measured before: 1 host",
        "batch 1 is judged pass: all well",
        "batch 1 has confirmed: its probation is over",
        "batch 1 is promoted",
        "stage cell, batch 2 begins: w2, w3",
        "batch 1 is held for a person",
        "is to end, as joe asked",
        "batch 2 goes back (2 hosts); not on the former release: w3: so",
        "everything that it changed goes back (1 host): all",
        "release aaaaaaaaaaaa is quarantined for s",
        "hook /bin/x failed on ended: ended with 1",
        "ends, stopped: in stage canary: is slow",
        "is resumed by joe: 1 host done, 2 to go",
        "pauses before batch 2, as joe asked",
        f"now: paused. To go on with it: ebpf.fleet.rollout with the same bundle and -e ebpf_fleet_resume={ID}",
    ]
    assert ledger_history.line_of(ID, entries, False)[2:] == ("1.0.0", "jane", "paused", "1 of 2 batches promoted")


def test_a_rollout_that_is_not_there_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(FleetError, match=f"did you mean '{ID}'") as caught:
        ledger_history.one_of(told("started"), ID[:-1])
    assert caught.value.code == "EF_ROLLOUT_UNKNOWN"
    with pytest.raises(FleetError, match="it has none yet"):
        ledger_history.one_of([], ID)


# --- going on ------------------------------------------------------------------------------------


def found(installed: str | None, running: str | None, lease: bool | None) -> ledger_resume.Found:
    return ledger_resume.Found(installed, running, lease)


@pytest.mark.parametrize(
    ("one", "done"),
    [
        ((DIGEST, DIGEST, False), True),
        ((DIGEST, DIGEST, True), False),
        ((DIGEST, DIGEST, None), False),
        ((DIGEST, None, False), False),
        ((None, DIGEST, False), False),
        ((OTHER, DIGEST, False), False),
        ((DIGEST, OTHER, False), False),
    ],
)
def test_a_host_is_done_only_when_all_of_it_is_known(one: tuple[Any, Any, Any], done: bool) -> None:
    assert found(*one).done(DIGEST) is done


def test_what_remains_is_the_stored_plan_less_what_is_done() -> None:
    entries = told("started", "batch_begun", "action", BEGUN_2)
    answers = {"w1": found(OTHER, OTHER, False), "w2": found(DIGEST, DIGEST, False), "w3": found(DIGEST, DIGEST, True)}
    plan = ledger_resume.remaining_plan(entries, {"hosts": ["w3", "w2", "w1"]}, answers)
    assert (plan["hosts"], plan["serial"], plan["batch_of"]) == (["w1", "w3"], [1, 1], {"w1": 1, "w3": 2})
    assert [one["hosts"] for one in plan["batches"]] == [["w1"], ["w3"]]
    assert plan["resumed"] == {"done": ["w2"], "remaining": ["w1", "w3"]}
    assert plan["sentences"] == [
        "canary, batch 1: w1",
        "cell, batch 2: w3",
        "1 of 3 hosts are done: they run the release and have confirmed it",
        "w2: done, though the ledger does not say that their batch was promoted",
        "w1: the ledger says promoted, and the host does not show it: they go again",
        "w3: on probation for this release: their batch begins again, and they go back if it fails",
    ]


def test_a_batch_of_which_no_host_remains_keeps_its_number_and_is_not_begun() -> None:
    good = found(DIGEST, DIGEST, False)
    plan = ledger_resume.remaining_plan(told("started"), {"hosts": ["w1", "w2"]}, {"w1": good})
    assert (plan["serial"], plan["batch_of"], plan["hosts"]) == ([1], {"w2": 2}, ["w2"])
    assert "w3: not done, and not to be changed by this run: they stay as they are" in plan["sentences"]
    nothing = ledger_resume.remaining_plan(told("started"), {"hosts": []}, dict.fromkeys(PLAN["hosts"], good))  # type: ignore[arg-type]
    assert nothing["hosts"] == [] == nothing["serial"]


def test_what_cannot_be_gone_on_with() -> None:
    refuse = ledger_resume.refuse
    assert refuse(told("started"), ID, DIGEST, False) == told("started")
    for some, digest, alive, problem in (
        (["started"], DIGEST, True, "is running"),
        (["started", "ended"], DIGEST, False, "is complete"),
        (["started"], OTHER, False, "is of bundle aaaaaaaaaaaa, and ebpf_fleet_bundle is bbbbbbbbbbbb"),
    ):
        with pytest.raises(FleetError, match=problem) as caught:
            refuse(told(*some), ID, digest, alive)
        assert caught.value.code == "EF_ROLLOUT_STATE"
    later = [one._replace(rollout="later") for one in told("started", "batch_begun")]
    moved = [one._replace(sequence=one.sequence + 5) for one in later]
    with pytest.raises(FleetError, match="is older than later"):
        refuse([*told("started"), *moved], ID, DIGEST, False)
    assert refuse([*told("started"), *moved[:1]], ID, DIGEST, False), "one that began no batch changed nothing"


# --- quarantine ----------------------------------------------------------------------------------

ONE = quarantine.Quarantined(DIGEST, "6.1/x86_64/debian", "is slow", TIME, ID)
TWO = quarantine.Quarantined(DIGEST, "7.0/x86_64/debian", "is slow", TIME, ID)


def test_a_quarantine_is_read_back_and_what_is_not_one_is_an_error() -> None:
    data = quarantine.render([ONE, TWO])
    assert quarantine.parse(data) == [ONE, TWO]
    assert json.loads(data)["entries"][0] == ONE._asdict()
    for bad in (
        b"",
        b"{}",
        b'{"schema":"ebpf.fleet/quarantine/v1","entries":[{}]}',
        data.replace(b"aaaa", b"xxxx", 1),
        data.replace(b'"is slow"', b"1", 1),
        data.replace(b"/v1", b"/v2"),
    ):
        with pytest.raises(FleetError, match="the quarantine"):
            quarantine.parse(bad)


@pytest.mark.parametrize(
    ("verdict", "reasons", "strata"),
    [
        ("fail", [{"host": "w1"}], ["s1"]),
        ("fail", [{"host": "w1"}, {"host": None}], ["s1", "s2"]),
        ("fail", [{"host": "w1", "verdict": "inconclusive"}, {"host": "w2", "verdict": "fail"}], ["s2"]),
        ("fail", [], ["s1", "s2"]),
        ("inconclusive", [{"host": "w1"}], []),
        ("pass", [], []),
    ],
)
def test_a_failed_verdict_speaks_against_the_strata_that_failed(
    verdict: str, reasons: list[dict[str, Any]], strata: list[str]
) -> None:
    given = {"verdict": verdict, "reasons": reasons}
    assert quarantine.strata_of(given, {"w1": "s1", "w2": "s2"}, ["w1", "w2"]) == strata
    assert quarantine.strata_of({}, {"w1": "s1"}, ["w1"]) == []


def test_what_is_quarantined_is_added_once_and_lifted_by_name() -> None:
    assert quarantine.add([ONE], [ONE._replace(why="again"), TWO]) == [ONE, TWO]
    assert quarantine.lift([ONE, TWO], "aaaaaa") == ([], [ONE, TWO])
    assert quarantine.lift([ONE, TWO], "aaaaaa@7.0/x86_64/debian") == ([ONE], [TWO])
    for wanted, problem in (
        ("aaaaa", "6 hex digits at least"),
        ("bbbbbb", "is not quarantined; (did|choose)"),
        ("aaaaaa@7.0", "is not quarantined"),
        ("", "give DIGEST"),
    ):
        with pytest.raises(FleetError, match=problem):
            quarantine.lift([ONE, TWO], wanted)
    with pytest.raises(FleetError, match="nothing is quarantined"):
        quarantine.lift([], "aaaaaa")
    with pytest.raises(FleetError, match="means several releases"):
        quarantine.lift([ONE, TWO._replace(digest="aaaaaa" + "b" * 58)], "aaaaaa")


# --- hooks ---------------------------------------------------------------------------------------


def test_hooks_are_read_in_every_form_that_they_may_have() -> None:
    (one, two) = hooks.read(
        "x", [{"command": ["/bin/tell", "me"]}, {"url": "https://h:8443/p?key=1", True: "ended, held"}]
    )
    assert one == hooks.Hook(("/bin/tell", "me"), "", ledger.TOLD, 10) and one.name == "/bin/tell"
    assert (two.on, two.name) == (("ended", "held"), "https://h"), "YAML makes true of an unquoted on"
    assert hooks.read("x", "[]") == [] == hooks.read("x", [])
    assert two.wants("ended") and two.wants("action", "held")
    assert not two.wants("action", "promoted") and not one.wants("hook_failed")
    for edge in (0.1, 30):
        assert hooks.read("x", [{"url": "http://h", "timeout": edge}])[0].timeout == edge


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": "http://h"}, "give a list"),
        (["x"], "give a mapping with command or url"),
        ([{}], "give either command or url"),
        ([{"command": ["x"], "url": "http://h"}], "give either command or url"),
        ([{"command": "x y"}], "no shell reads it"),
        ([{"command": []}], "no shell reads it"),
        ([{"command": [1]}], "no shell reads it"),
        ([{"url": "file:///etc/passwd"}], "is not an http or https address"),
        ([{"url": "http://"}], "is not an http or https address"),
        ([{"url": "http://h:x"}], "is not an http or https address"),
        ([{"url": "http://h", "on": ["end"]}], "end is not a kind of entry; did you mean 'ended'"),
        ([{"url": "http://h", "on": []}], "is empty"),
        ([{"url": "http://h", "timeout": 0}], "give a number from 0.1 to 30"),
        ([{"url": "http://h", "timeout": 31}], "give a number from 0.1 to 30"),
        ([{"url": "http://h", "when": 1}], "when is not known"),
    ],
)
def test_a_hook_that_cannot_be_meant_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(FleetError, match=problem):
        hooks.read("x", given)


def test_a_keys_address_is_not_told_where_it_failed() -> None:
    (hook,) = hooks.read("x", [{"url": "https://user:secret@h/token/secret?secret"}])
    assert "secret" not in hook.name
