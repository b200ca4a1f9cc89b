# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people ask of a rollout by its id: to pause, to promote what is held, to end; and what the ledger tells them."""

from __future__ import annotations

import time

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import (
    ledger,
    ledger_history,
    ledger_lock,
    quarantine,
)
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder

POLL_SECONDS = 1


def running_rollout(folder, here, given):
    """The id that is meant: the one that was given, or of the rollout that holds the lock."""
    if given:
        return given
    owner, state = folder.held_by(here)
    if owner is None or state == ledger_lock.STALE or not owner.rollout:
        problem = "no rollout runs; name one with ebpf_fleet_rollout_id, which ebpf.fleet.history lists"
        raise FleetError("EF_ROLLOUT_STATE", problem)
    return owner.rollout


def state_of(folder, here, rollout):
    """(its entries, its state); FleetError for an id that the ledger does not have."""
    own = ledger_history.one_of(folder.entries(rollout), rollout)
    return own, ledger_history.state_of(own, folder.runs(here, rollout))


def pause(folder, here, given):
    """Ask a rollout that runs to end before its next batch."""
    rollout = running_rollout(folder, here, given)
    _own, state = state_of(folder, here, rollout)
    if state not in (ledger_history.RUNNING, ledger_history.HELD):
        raise FleetError("EF_ROLLOUT_STATE", f"rollout {rollout} is {state}: only one that runs can pause")
    folder.ask(rollout, "pause", wish_of(here))
    return {"rollout": rollout, "state": state, "sentence": f"rollout {rollout} pauses before its next batch"}


def promote(folder, here, given):
    """Ask that the batch which is held goes on as if it had passed."""
    rollout = running_rollout(folder, here, given)
    own, state = state_of(folder, here, rollout)
    if state != ledger_history.HELD:
        problem = f"rollout {rollout} is {state}: only a batch that is held for a person can be promoted"
        raise FleetError("EF_ROLLOUT_STATE", problem)
    batch = ledger_history.in_hand(own)
    folder.ask(rollout, "promote", {**wish_of(here), "number": batch["number"]})
    return {
        "rollout": rollout, "state": state,
        "sentence": f"batch {batch['number']} of rollout {rollout} is promoted by {here.user}",
    }  # fmt: skip


def abort(folder, here, given):
    """Ask a rollout that runs to end; of one whose process is gone, take over what is in hand.

    The result has ``live``, and where it is false ``batch`` (or null), ``hosts`` that may have been changed and have
    to go back, and ``digest``; this process then holds the lock.
    """
    rollout = running_rollout(folder, here, given)
    own, state = state_of(folder, here, rollout)
    if state in (ledger_history.RUNNING, ledger_history.HELD):
        folder.ask(rollout, "abort", wish_of(here))
        return {"rollout": rollout, "state": state, "live": True, "hosts": [], "batch": None, "digest": "",
                "sentence": f"rollout {rollout} is asked to end; its batch in hand goes back"}  # fmt: skip
    if state not in (ledger_history.INTERRUPTED, ledger_history.PAUSED):
        raise FleetError("EF_ROLLOUT_STATE", f"rollout {rollout} is {state}: it has ended")
    folder.take(here)
    folder.name(here, rollout)
    # Where a later rollout went over the same hosts, what they run is its word, and nothing is in hand here.
    batch = None if ledger_history.later_than(folder.entries(rollout), rollout) else ledger_history.in_hand(own)
    changed = ledger_history.changed_hosts(own)
    hosts = [] if batch is None else [host for host in batch["hosts"] if host in changed]
    return {
        "rollout": rollout,
        "state": state,
        "live": False,
        "hosts": hosts,
        "batch": batch,
        "digest": own[0].data["bundle_digest"],
        "sentence": f"rollout {rollout} is {state}; {counted(len(hosts), 'host')} of its batch to go back",
    }


def wait_for_end(folder, here, rollout, seconds):
    """Wait until the rollout has ended, with the folder closed between: its state."""
    until = time.monotonic() + seconds
    while True:
        with folder:
            _own, state = state_of(folder, here, rollout)
        if state not in (ledger_history.RUNNING, ledger_history.HELD) or time.monotonic() >= until:
            return state
        time.sleep(POLL_SECONDS)


def wish_of(here):
    """What a request file holds."""
    return {"who": here.user, "host": here.host, "time": here.since}


def lift(folder, here, wanted):
    """Permit a release again where it was quarantined."""
    stays, lifted = quarantine.lift(folder.quarantined(), wanted)
    # First the record: a release that may go again must not go unrecorded.
    digest, strata = lifted[0].digest, [one.stratum for one in lifted]
    entry = folder.append(
        "", ledger.ACTION, {"action": ledger.LIFTED, "digest": digest, "strata": strata, "who": here.user}
    )
    folder.put_quarantine(stays)
    return entry, [f"release {digest[:12]} may go again to {', '.join(strata)}"]


def told(folder, here, rollout):
    """What the ledger tells: whether its chain is sound, its rollouts, one of them, and what is quarantined."""
    found = folder.read_all()
    known = ledger_history.rollouts(found.entries)
    lines = [ledger_history.line_of(one, own, folder.runs(here, one)) for one, own in known.items()]
    explained = []
    if rollout:
        own = ledger_history.one_of(found.entries, rollout)
        explained = ledger_history.explain(rollout, own, folder.runs(here, rollout))
    sound = found.broken_line is None
    return {
        "sound": sound,
        "broken_line": found.broken_line,
        "chain": ledger.sentence_of(found) if sound else ledger_folder.broken(folder.ledger, found),
        "torn": len(found.torn),
        "entries": len(found.entries),
        "rollouts": [one._asdict() for one in lines],
        "list": ["  ".join((one.id, one.started, one.version, one.who, one.state, one.batches)) for one in lines],
        "explained": explained,
        "quarantined": quarantine.sentences(folder.quarantined()),
    }
