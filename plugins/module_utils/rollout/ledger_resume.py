# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Go on with a rollout: its own plan, less the hosts that are done as they themselves show. Pure.

The ledger may lag behind the hosts by what was done when the controller died, and a host may have been changed since
by someone else. So what counts is what each host was found to run; the ledger is only held against it.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger_history
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.ledger import Entry

_SHOWN = 20


class Found(NamedTuple):
    """What a host was found to be; None is not known, which is never done.

    `installed` is the digest of the installed release as root reads it, `running` the one that its loader tells,
    `lease` whether it is on probation for the release.
    """

    installed: str | None
    running: str | None
    lease: bool | None

    def done(self, digest: str) -> bool:
        """Whether it runs that release, and has confirmed it."""
        return self.installed == self.running == digest and self.lease is False


def refuse(entries: Sequence[Entry], rollout: str, digest: str, alive: bool) -> list[Entry]:
    """The rollout's entries; FleetError where it cannot be gone on with, by its state, its bundle or a later one."""
    own = ledger_history.one_of(entries, rollout)
    state = ledger_history.state_of(own, alive)
    if state not in ledger_history.RESUMABLE:
        raise FleetError(
            "EF_ROLLOUT_STATE", f"rollout {rollout} is {state}: only one that has ended early can be resumed"
        )
    planned = own[0].data["bundle_digest"]
    if planned != digest:
        raise FleetError(
            "EF_ROLLOUT_STATE",
            f"rollout {rollout} is of bundle {planned[:12]}, and ebpf_fleet_bundle is {digest[:12]}: "
            "give the bundle that it was planned with, or begin a new rollout",
        )
    later = ledger_history.later_than(entries, rollout)
    if later:
        raise FleetError(
            "EF_ROLLOUT_STATE",
            f"rollout {rollout} is older than {', '.join(later)}, which has changed hosts since: begin a new rollout",
        )
    return own


def remaining_plan(entries: Sequence[Entry], fresh: Mapping[str, Any], found: Mapping[str, Found]) -> dict[str, Any]:
    """The stored plan of the rollout with the batches that are not done, each by its old number.

    `fresh` is the plan that would be made now: a host that is not in it is not to be changed by this run, and stays
    out. `found` has each host's answer. A batch keeps its hosts but those that are done; one of which none remains
    is not begun. ``resumed`` of the result has `done` and `remaining`, and its sentences say what the hosts showed.
    """
    digest, stored = entries[0].data["bundle_digest"], entries[0].data["plan"]
    done = [host for host in stored["hosts"] if host in found and found[host].done(digest)]
    may = set(fresh["hosts"])
    out = [host for host in stored["hosts"] if host not in done and host not in may]
    keep = set(stored["hosts"]) - set(done) - set(out)
    batches = [{**one, "hosts": [host for host in one["hosts"] if host in keep]} for one in stored["batches"]]
    some = [one for one in batches if one["hosts"]]
    hosts = [host for one in some for host in one["hosts"]]
    notes = _notes(entries, found, done, out)
    steps = [f"{one['stage']}, batch {one['number']}: {_some(one['hosts'])}" for one in some]
    return {
        **stored,
        "batches": batches,
        "serial": [len(one["hosts"]) for one in some],
        "hosts": hosts,
        "batch_of": {host: one["number"] for one in some for host in one["hosts"]},
        "notes": notes,
        "sentences": [*steps, *notes],
        "resumed": {"done": done, "remaining": hosts},
    }


def _notes(entries: Sequence[Entry], found: Mapping[str, Found], done: list[str], out: list[str]) -> list[str]:
    digest, stored = entries[0].data["bundle_digest"], entries[0].data["plan"]
    promoted = ledger_history.promoted_hosts(entries)
    again = [host for host in stored["hosts"] if host in promoted and host not in done]
    ahead = [host for host in done if host not in promoted]
    probation = [host for host in stored["hosts"] if host in found and _on_probation(found[host], digest)]
    said = [f"{len(done)} of {len(stored['hosts'])} hosts are done: they run the release and have confirmed it"]
    for hosts, words in (
        (ahead, "done, though the ledger does not say that their batch was promoted"),
        (again, "the ledger says promoted, and the host does not show it: they go again"),
        (probation, "on probation for this release: their batch begins again, and they go back if it fails"),
        (out, "not done, and not to be changed by this run: they stay as they are"),
    ):
        if hosts:
            said.append(f"{_some(hosts)}: {words}")
    return said


def _on_probation(found: Found, digest: str) -> bool:
    return found.installed == digest and found.lease is True


def _some(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
    return ", ".join(hosts[:_SHOWN]) + more
