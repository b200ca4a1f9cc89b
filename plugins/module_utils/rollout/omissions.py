# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that a rollout leaves out, each by name and with its reason. Pure.

Without a word of the operator no host is left out: what stands in the way of one holds the rollout instead. A host
that was set into maintenance, a quarantine that was named and a limit of unreachable hosts are such words; what hosts
say of themselves counts where `ebpf_fleet_leave_out` names it.
"""

from __future__ import annotations

import re
from typing import Any, Collection, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.census import deployable
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.strata import stratum_of
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import standing

Json = Mapping[str, Any]

MAINTENANCE, UNREACHABLE, UNSUPPORTED = "maintenance", "unreachable", "unsupported"
DISABLED, QUARANTINED, KILLED = "disabled", "quarantined", "killed"
REASONS = (MAINTENANCE, UNREACHABLE, UNSUPPORTED, DISABLED, QUARANTINED, KILLED)
LIMIT = "ebpf_fleet_unreachable_limit"
_LIMIT = re.compile(r"([0-9]{1,6})|(100|[0-9]{1,2})%", re.ASCII)
_WHY = 300


def read_maintenance(name: str, value: Any) -> str:
    """Why a host is in maintenance: the text that is given, or that it is where that is just true; empty: it is not."""
    if value is None:
        return ""
    try:
        return "set in the inventory" if values.truth(name, value) else ""
    except values.RefusedValueError:
        return str(values.text(name, value)).strip()


def read_leave_out(name: str, value: Any) -> list[str]:
    """Some of REASONS, in a list or a text with commas."""
    found = values.names(name, value)
    for word in found:
        if word not in REASONS:
            raise values.refuse(name, word, "give some of " + ", ".join(REASONS))
    return found


def read_limit(name: str, value: Any) -> str:
    """So many hosts, or percent of those that are addressed (rounded down)."""
    words = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if _LIMIT.fullmatch(words) is None:
        raise values.refuse(name, value, "give a number of hosts, or percent as '2%'")
    return words


def limit_of(words: str, hosts: int) -> int:
    """How many hosts a limit of `read_limit` is, of so many."""
    return hosts * int(words[:-1]) // 100 if words.endswith("%") else int(words)


class Wishes(NamedTuple):
    """What the operator permits: REASONS to leave hosts out for, a limit, and {stratum: why} of the quarantine."""

    leave_out: Collection[str] = ()
    unreachable_limit: str = "0"
    quarantine: Mapping[str, str] = {}


class Omission(NamedTuple):
    """One host that does not take part; `reason` is one of REASONS."""

    host: str
    reason: str
    why: str


class Omissions(NamedTuple):
    """Who takes part, who does not, and a sentence where more hosts are unreachable than may be; all as given."""

    kept: list[str]
    left_out: list[Omission]
    over_limit: str


def omissions(hosts: Sequence[Json], contracts: Sequence[Json], wishes: Wishes) -> Omissions:
    """Hosts are their variables, with what `capability_facts` registered as `ebpf_fleet_capability`.

    Unreachable hosts are left out all or none: more than the limit are kept, and hold the rollout as hosts that do
    not answer.
    """
    asked = [one["feature"] for one in contracts]
    found = [(str(host["inventory_hostname"]), _omission(host, asked, contracts, wishes)) for host in hosts]
    gone = [name for name, one in found if one is not None and one.reason == UNREACHABLE]
    limit = limit_of(wishes.unreachable_limit, len(hosts))
    out = [one for _name, one in found if one is not None and (one.reason != UNREACHABLE or len(gone) <= limit)]
    names = {one.host for one in out}
    over = "" if len(gone) <= limit else f"{len(gone)} cannot be reached, and {LIMIT} permits {limit}"
    return Omissions([name for name, _one in found if name not in names], out, over)


def _omission(host: Json, asked: Sequence[str], contracts: Sequence[Json], wishes: Wishes) -> Omission | None:
    name = str(host["inventory_hostname"])
    resting = read_maintenance("ebpf_fleet_maintenance", host.get("ebpf_fleet_maintenance"))
    if resting:
        return Omission(name, MAINTENANCE, printable(resting, _WHY))
    answer = host.get("ebpf_fleet_capability") or {}
    if answer.get("unreachable") is True:
        return Omission(name, UNREACHABLE, printable(answer.get("msg") or "it cannot be reached", _WHY))
    read = capability_document.read(name, answer, asked)
    if read.capabilities is None:
        # Neither reached in vain nor known: it is one that does not answer.
        return None
    causes = ((reason, why) for reason, why in _causes(host, read, contracts, wishes) if why)
    return next((Omission(name, reason, printable(why, _WHY)) for reason, why in causes), None)


def _causes(
    host: Json, read: capability_document.Answer, contracts: Sequence[Json], wishes: Wishes
) -> Sequence[tuple[str, str]]:
    facts = read.capabilities or {}
    permitted = wishes.leave_out
    return (
        (UNSUPPORTED, _unsupported(facts) if UNSUPPORTED in permitted else ""),
        (DISABLED, _disabled(host, read.profiles or {}, contracts) if DISABLED in permitted else ""),
        (QUARANTINED, wishes.quarantine.get(stratum_of(facts), "")),
        (KILLED, _killed(host, contracts) if KILLED in permitted else ""),
    )


def _unsupported(facts: Json) -> str:
    answer = deployable(facts)
    return answer["reason"] if answer["answer"] == "no" else ""


def _disabled(host: Json, profiles: Json, contracts: Sequence[Json]) -> str:
    """Why nothing of the release would run there; empty where something would, or where that is not known."""
    wanted = standing.wanted(host.get("ebpf_fleet_features"), contracts)
    told = [(name, profiles.get(name) or {}) for name in wanted]
    if not told or any(one.get("profile") != "disabled" for _name, one in told):
        return ""
    return "no variant of any feature loads: " + ", ".join(f"{name} ({one['reason_code']})" for name, one in told)


def _killed(host: Json, contracts: Sequence[Json]) -> str:
    orders = [one.order for one in standing.standing_orders([host], contracts)]
    return f"a kill order stands ({', '.join(orders)})" if orders else ""
