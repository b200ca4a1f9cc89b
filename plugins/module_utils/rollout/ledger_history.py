# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger tells of rollouts: their state, what is in hand, what they changed, and all of it in words. Pure."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.ledger import Entry

COMPLETE, STOPPED, ABORTED, PAUSED, HELD, RUNNING, INTERRUPTED = (
    "complete", "stopped", "aborted", "paused", "held", "running", "interrupted",
)  # fmt: skip
# What can be gone on with: a rollout that is complete has nothing to do, one that runs is not to be doubled.
RESUMABLE = (STOPPED, ABORTED, PAUSED, INTERRUPTED)
_SHOWN = 10


def rollouts(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """{id: its entries}, in the sequence in which they began."""
    found: dict[str, list[Entry]] = {}
    for one in entries:
        if one.rollout and (one.kind == ledger.STARTED or one.rollout in found):
            found.setdefault(one.rollout, []).append(one)
    return found


def one_of(entries: Sequence[Entry], rollout: str) -> list[Entry]:
    """The entries of that rollout; FleetError where there is not one."""
    known = rollouts(entries)
    if rollout not in known:
        hint = did_you_mean(rollout, known) if len(known) <= _SHOWN else "ebpf.fleet.history lists them"
        raise FleetError(
            "EF_ROLLOUT_UNKNOWN", f"rollout {rollout!r} is not in the ledger; {hint if known else 'it has none yet'}"
        )
    return known[rollout]


def state_of(entries: Sequence[Entry], alive: bool) -> str:
    """The state of a rollout; `alive` is whether the process that holds the fleet's lock for it lives."""
    last = [one for one in entries if one.kind in (ledger.STARTED, ledger.RESUMED, ledger.PAUSED, ledger.ENDED)][-1]
    if last.kind == ledger.ENDED:
        return str(last.data["outcome"])
    if last.kind == ledger.PAUSED:
        return PAUSED
    if not alive:
        return INTERRUPTED
    return HELD if is_held(entries) else RUNNING


def is_held(entries: Sequence[Entry]) -> bool:
    """Whether the batch in hand waits for a person."""
    deeds = [one for one in entries if one.kind in (ledger.ACTION, ledger.BATCH_BEGUN, ledger.RESUMED)]
    return bool(deeds) and deeds[-1].data.get("action") == ledger.HELD


def is_to_end(entries: Sequence[Entry]) -> bool:
    """Whether a person asked this run of it to end."""
    since = [one for one in entries if one.kind in (ledger.STARTED, ledger.RESUMED, ledger.ABORTED)]
    return since[-1].kind == ledger.ABORTED


def in_hand(entries: Sequence[Entry]) -> Mapping[str, Any] | None:
    """The batch that was begun and has neither been promoted nor gone back; None without one."""
    begun: Mapping[str, Any] | None = None
    for one in entries:
        if one.kind == ledger.BATCH_BEGUN:
            begun = one.data
        elif one.data.get("action") in (ledger.PROMOTED, ledger.ROLLED_BACK):
            begun = None
    return begun


def changed_hosts(entries: Sequence[Entry]) -> list[str]:
    """Hosts that this rollout may have changed and has not sent back: measured with another release, or on probation.

    A host that ran the release already, confirmed, before its batch is not one: it is where it was.
    """
    digest = entries[0].data["bundle_digest"]
    found: dict[str, None] = {}
    for one in entries:
        if one.kind == ledger.OBSERVED and one.data["when"] == "before":
            ran = one.data["running"]
            found.update(dict.fromkeys(host for host in ran if ran[host]["digest"] != digest or ran[host]["lease"]))
        elif one.data.get("action") == ledger.ROLLED_BACK:
            for host, answer in one.data["returned"].items():
                if answer["ok"]:
                    found.pop(host, None)
    return list(found)


def promoted_hosts(entries: Sequence[Entry]) -> set[str]:
    """Hosts that the ledger says were promoted, and did not go back since."""
    found: set[str] = set()
    for one in entries:
        if one.data.get("action") == ledger.PROMOTED:
            found |= set(one.data["hosts"])
        elif one.data.get("action") == ledger.ROLLED_BACK:
            found -= {host for host, answer in one.data["returned"].items() if answer["ok"]}
    return found


def missing_hosts(entries: Sequence[Entry]) -> list[str]:
    """Hosts of the plan that were neither promoted nor found done."""
    done = promoted_hosts(entries)
    for one in entries:
        if one.kind == ledger.RESUMED:
            done = done | set(one.data["done"])
    return [host for host in entries[0].data["plan"]["hosts"] if host not in done]


def later_than(entries: Sequence[Entry], rollout: str) -> list[str]:
    """Rollouts that began a batch after this one's last entry."""
    last = max(one.sequence for one in entries if one.rollout == rollout)
    begun = [one.rollout for one in entries if one.kind == ledger.BATCH_BEGUN and one.sequence > last]
    return list(dict.fromkeys(begun))


# --- in words ----------------------------------------------------------------------------------


class Line(NamedTuple):
    """One rollout in a list of them."""

    id: str
    started: str
    version: str
    who: str
    state: str
    batches: str


def line_of(rollout: str, entries: Sequence[Entry], alive: bool) -> Line:
    """A rollout in one line."""
    first = entries[0].data
    done = len({one.data["number"] for one in entries if one.data.get("action") == ledger.PROMOTED})
    planned = len(first["plan"].get("batches", []))
    return Line(
        rollout, entries[0].time[:19] + "Z", str(first["bundle"].get("version", "")), str(first["who"]),
        state_of(entries, alive), f"{done} of {planned} batches promoted",
    )  # fmt: skip


def explain(rollout: str, entries: Sequence[Entry], alive: bool) -> list[str]:
    """One rollout from its begin to where it is, a sentence a line; the last one says what may be done."""
    first = entries[0].data
    said = [
        f"rollout {rollout}: {first['bundle'].get('version', '')} (bundle {first['bundle_digest'][:12]}), "
        f"begun by {first['who']} at {entries[0].time}; {counted(len(first['plan'].get('hosts', [])), 'host')} "
        f"in {counted(len(first['plan'].get('batches', [])), 'batch', 'batches')}, plan {first['plan_digest'][:12]}"
    ]
    said += [f"{one.time} {words}" for one in entries[1:] if (words := words_of(one))]
    state = state_of(entries, alive)
    return [*said, f"now: {state}. {next_step(state, rollout)}"]


def words_of(entry: Entry) -> str:
    """What an entry tells, for a person; empty where that is nothing that they need."""
    data = entry.data
    batch = f"batch {data['number']}" if "number" in data else ""
    if entry.kind == ledger.BATCH_BEGUN:
        return f"stage {data['stage']}, {batch} begins: {_some(data['hosts'])}"
    if entry.kind == ledger.OBSERVED:
        return f"{batch} is measured {data['when']}: {counted(len(data['digests']), 'host')}"
    if entry.kind == ledger.VERDICT:
        return f"{batch} is judged {data['verdict']}: {data['sentence']}"
    if entry.kind == ledger.ACTION:
        return _action(data, batch)
    if entry.kind == ledger.PAUSED:
        return f"pauses before batch {data['before_batch']}, as {data['who']} asked"
    if entry.kind == ledger.RESUMED:
        return f"is resumed by {data['who']}: {counted(len(data['done']), 'host')} done, {len(data['remaining'])} to go"
    if entry.kind == ledger.ABORTED:
        return f"is to end, as {data['who']} asked"
    if entry.kind == ledger.ENDED:
        return f"ends, {data['outcome']}: {data['sentence']}"
    if entry.kind == ledger.HOOK_FAILED:
        return f"hook {data['hook']} failed on {data['kind']}: {data['why']}"
    return ""


def _action(data: Mapping[str, Any], batch: str) -> str:
    action = data["action"]
    by = f", by {data['who']}" if data.get("who") else ""
    if action == ledger.ROLLED_BACK:
        lost = [host for host, one in data["returned"].items() if not one["ok"]]
        missing = f"; not on the former release: {_some(lost)}" if lost else ""
        count = counted(len(data["returned"]), "host")
        return f"{batch or 'everything that it changed'} goes back ({count}){missing}: {data['why']}"
    if action in (ledger.QUARANTINED, ledger.LIFTED):
        word = "is quarantined for" if action == ledger.QUARANTINED else "may go again to"
        return f"release {data['digest'][:12]} {word} {', '.join(data['strata'])}{by}"
    words = {
        ledger.PROMOTED: "is promoted", ledger.HELD: "is held for a person",
        ledger.CONFIRMED: "has confirmed: its probation is over",
    }  # fmt: skip
    return f"{batch} {words[action]}{by}"


def _some(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
    return ", ".join(hosts[:_SHOWN]) + more


def next_step(state: str, rollout: str) -> str:
    """What may be done about a rollout in that state."""
    resume = f"ebpf.fleet.rollout with the same bundle and -e ebpf_fleet_resume={rollout}"
    return {
        COMPLETE: "There is nothing to do",
        STOPPED: f"Fix what stopped it, then go on with {resume}",
        ABORTED: f"To go on with it: {resume}",
        PAUSED: f"To go on with it: {resume}",
        HELD: "A person decides: ebpf.fleet.promote or ebpf.fleet.abort",
        RUNNING: "ebpf.fleet.pause ends it before the next batch, ebpf.fleet.abort now",
        INTERRUPTED: f"Its process is gone. To go on with it: {resume}; to end it: ebpf.fleet.abort",
    }[state]
