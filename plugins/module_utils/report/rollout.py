# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollout as its report tells it, of its entries in the ledger and the records of its batches. Pure.

The ledger is what was written at the time, and is believed. A record may have been replaced since: its checks are
shown where their digest is the one that the ledger has of that verdict, and else it is said that they are not.
"""

from __future__ import annotations

import datetime
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted, version_order
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger, ledger_history
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.ledger import Entry

Json = Mapping[str, Any]

IN_HAND, NOT_BEGUN = "in hand", "not begun"
UNKNOWN = "unknown"


class Event(NamedTuple):
    """Something that happened: seconds since the rollout began, and what; `tone` is a verdict's or empty."""

    time: str
    seconds: float
    text: str
    tone: str = ""


class Batch(NamedTuple):
    """A batch of the plan, and what became of it.

    `begun` and `ended` are seconds since the rollout began, None where it was not; `judged` are (seconds, verdict,
    sentence, reasons). `record` has its checks; `record_fault` says why there is not one that can be believed.
    """

    number: int
    stage: str
    hosts: list[str]
    outcome: str
    begun: float | None
    measured: list[float]
    judged: list[tuple[float, str, str, list[str]]]
    ended: float | None
    returned: Json
    record: Json | None
    record_fault: str


class Family(NamedTuple):
    """How far the rollout reached into one kernel family: numbers of hosts.

    `changed` got the release at some time; of them `verified` have it and passed, `back` are on the one before,
    `open` are neither yet, or did not confirm that they went back.
    """

    name: str
    all: int
    changed: int
    verified: int
    back: int
    open: int


class Report(NamedTuple):
    """All that the page shows."""

    id: str
    version: str
    digest: str
    who: str
    controller: str
    state: str
    headline: str
    started: str
    seconds: float
    batches: list[Batch]
    families: list[Family]
    events: list[Event]
    left_out: list[tuple[str, str, str]]
    hosts: list[str]
    next: str


def report(rollout: str, entries: Sequence[Entry], records: Sequence[Json], alive: bool) -> Report:
    """The report of a rollout. `records` are those of batches that were found, also of other rollouts.

    `alive` is whether the process that runs it lives. Raises FleetError where the ledger does not have it.
    """
    own = ledger_history.one_of(entries, rollout)
    first, state = own[0].data, ledger_history.state_of(own, alive)
    batches = _batches(rollout, own, records)
    return Report(
        id=rollout, version=str(first["bundle"].get("version", UNKNOWN)), digest=str(first["bundle_digest"]),
        who=str(first["who"]), controller=str(first.get("controller", UNKNOWN)), state=state,
        headline=_headline(state, own, batches), started=own[0].time, seconds=_since(own[0], own[-1]),
        batches=batches, families=_families(own), events=_events(own),
        left_out=_left_out(first["plan"]), hosts=list(first["plan"].get("hosts", [])),
        next=ledger_history.next_step(state, rollout),
    )  # fmt: skip


def seconds_between(first: str, last: str) -> float:
    """Seconds between two times of entries."""
    form = "%Y-%m-%dT%H:%M:%S.%fZ"
    then, now = (datetime.datetime.strptime(one, form) for one in (first, last))
    return (now - then).total_seconds()


def _since(first: Entry, entry: Entry) -> float:
    return seconds_between(first.time, entry.time)


# --- batches ---


def _batches(rollout: str, own: Sequence[Entry], records: Sequence[Json]) -> list[Batch]:
    planned = own[0].data["plan"].get("batches", [])
    return [_batch(rollout, one, own, records) for one in planned]


def _batch(rollout: str, planned: Json, own: Sequence[Entry], records: Sequence[Json]) -> Batch:
    number = planned["number"]
    # A batch that was resumed began again: its last begin counts.
    mine: list[Entry] = []
    for one in own:
        if one.data.get("number") == number:
            mine = [one] if one.kind == ledger.BATCH_BEGUN else [*mine, one]
    begun = next((one for one in mine if one.kind == ledger.BATCH_BEGUN), None)
    ended = next((one for one in mine if one.data.get("action") in (ledger.PROMOTED, ledger.ROLLED_BACK)), None)
    held = any(one.data.get("action") == ledger.HELD for one in mine)
    outcome = NOT_BEGUN if begun is None else IN_HAND if ended is None else str(ended.data["action"])
    record, fault = _record(rollout, number, mine, records)
    return Batch(
        number=number, stage=str(planned["stage"]), hosts=list(planned["hosts"]),
        outcome=ledger.HELD if held and outcome == IN_HAND else outcome,
        begun=None if begun is None else _since(own[0], begun),
        measured=[_since(own[0], one) for one in mine if one.kind == ledger.OBSERVED],
        judged=[(_since(own[0], one), str(one.data["verdict"]), str(one.data["sentence"]), list(one.data["reasons"]))
                for one in mine if one.kind == ledger.VERDICT],
        ended=None if ended is None else _since(own[0], ended),
        returned=ended.data.get("returned", {}) if ended is not None else {},
        record=record, record_fault=fault,
    )  # fmt: skip


def _record(rollout: str, number: int, mine: Sequence[Entry], records: Sequence[Json]) -> tuple[Json | None, str]:
    """(the record of the batch, why it is not shown)."""
    judged = [one for one in mine if one.kind == ledger.VERDICT]
    if not judged:
        return None, ""
    found = [one for one in records if one.get("rollout") == rollout and one.get("number") == number]
    if not found:
        return None, "its record was not found, so its checks and measurements are unknown here"
    digest = judged[-1].data["checks_digest"]
    for one in found:
        if ledger.digest_of_document(one.get("checks")) == digest:
            return one, ""
    return None, "its record is not what was judged, by the digest in the ledger, and is not shown"


# --- blast radius ---


def _families(own: Sequence[Entry]) -> list[Family]:
    """Of each kernel family how many hosts the rollout reached; hosts of unknown strata are a family of their own."""
    first = own[0].data
    strata = {host: str(name) for name, hosts in (first.get("strata") or {}).items() for host in hosts}
    plan = first["plan"]
    held = (plan.get("holdback") or {}).get("hosts", [])
    out = [one["host"] for one in plan.get("left_out", [])]
    everyone = list(dict.fromkeys([*plan.get("hosts", []), *plan.get("left", []), *held, *out, *strata]))
    changed, back = _reached(own)
    verified = ledger_history.promoted_hosts(own)
    for one in own:
        if one.kind == ledger.RESUMED:
            verified |= set(one.data["done"])
    changed |= verified
    found: dict[str, list[str]] = {}
    for host in everyone:
        found.setdefault(strata.get(host, UNKNOWN).split("/")[0], []).append(host)
    rows = []
    for name in sorted(found, key=version_order):
        hosts = set(found[name])
        mine, good, gone = hosts & changed, hosts & verified, hosts & back
        rows.append(Family(name, len(hosts), len(mine), len(good), len(gone), len(mine - good - gone)))
    return rows


def _reached(own: Sequence[Entry]) -> tuple[set[str], set[str]]:
    """(hosts that may have been changed at some time, those of them that are back)."""
    digest = own[0].data["bundle_digest"]
    changed: set[str] = set()
    back: set[str] = set()
    for one in own:
        if one.kind == ledger.OBSERVED and one.data["when"] == "after":
            now = {host for host, ran in one.data["running"].items() if ran["digest"] == digest}
            changed |= now
            back -= now
        elif one.data.get("action") == ledger.PROMOTED:
            back -= set(one.data["hosts"])
        elif one.data.get("action") == ledger.ROLLED_BACK:
            changed |= set(one.data["returned"])
            back |= {host for host, answer in one.data["returned"].items() if answer.get("ok")}
    return changed, back


def _left_out(plan: Json) -> list[tuple[str, str, str]]:
    """(host, reason, why) of every host that the rollout does not change."""
    found = [(str(one["host"]), str(one["reason"]), str(one["why"])) for one in plan.get("left_out", [])]
    held = plan.get("holdback") or {}
    found += [(str(host), "held back", f"until {held.get('until')}") for host in held.get("hosts", [])]
    return found + [(str(host), "in no stage", "no stage of this rollout takes it") for host in plan.get("left", [])]


# --- in words ---


def _events(own: Sequence[Entry]) -> list[Event]:
    first = own[0]
    words = f"begins, by {first.data['who']}: {counted(len(first.data['plan'].get('hosts', [])), 'host')}"
    found = [Event(first.time, 0, words)]
    for one in own[1:]:
        text = ledger_history.words_of(one)
        if text:
            found.append(Event(one.time, _since(first, one), text, _tone(one)))
    return found


def _tone(entry: Entry) -> str:
    if entry.kind == ledger.VERDICT:
        return str(entry.data["verdict"])
    if entry.data.get("action") in (ledger.ROLLED_BACK, ledger.QUARANTINED):
        return "fail"
    return {ledger.PROMOTED: "pass", ledger.HELD: "inconclusive"}.get(str(entry.data.get("action")), "")


def _headline(state: str, own: Sequence[Entry], batches: Sequence[Batch]) -> str:
    """The outcome and why, in one sentence."""
    version = own[0].data["bundle"].get("version", UNKNOWN)
    verified = sum(len(one.hosts) for one in batches if one.outcome == ledger.PROMOTED)
    of = counted(len(own[0].data["plan"].get("hosts", [])), "host")
    have = f"{verified} of {of} run {version} and passed"
    last = next((one for one in reversed(batches) if one.begun is not None), None)
    if state == ledger_history.COMPLETE:
        return f"Complete: every one of {of} of the plan runs {version} and passed."
    if state == ledger_history.HELD and last is not None:
        return f"Held for a person: batch {last.number} ({last.stage}) could not be judged: {_why(last)}; {have}."
    if state == ledger_history.PAUSED:
        paused = [one.data for one in own if one.kind == ledger.PAUSED][-1]
        return f"Paused before batch {paused['before_batch']}, as {paused['who']} asked; {have}."
    if state in (ledger_history.STOPPED, ledger_history.ABORTED):
        said = str([one.data for one in own if one.kind == ledger.ENDED][-1]["sentence"])
        joint = " " if said.startswith(("in ", "before ")) else ": "
        return f"{state.capitalize()}{joint}{said.rstrip('.')}; {_went_back(last)}{have}."
    if state == ledger_history.INTERRUPTED:
        return f"Interrupted: its process ended before it did; {have}."
    return f"Runs, or ran when this was written; {have}."


def _why(batch: Batch) -> str:
    return batch.judged[-1][2] if batch.judged else UNKNOWN


def lost_hosts(returned: Json) -> list[str]:
    """Hosts that were asked to go back and did not confirm it."""
    return [host for host, answer in returned.items() if not answer.get("ok")]


def _went_back(batch: Batch | None) -> str:
    if batch is None or batch.outcome != ledger.ROLLED_BACK:
        return ""
    lost = lost_hosts(batch.returned)
    if lost:
        return f"{', '.join(lost[:10])} did not confirm that they went back; "
    return f"{counted(len(batch.returned), 'host')} went back; " if batch.returned else "no host had to go back; "
