# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a plan as they are given, and which claims of a stratum are not to be taken as they are. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.strata import EXPECTED_VARIABLE, agrees

Json = Mapping[str, Any]

DEFAULT_PRIORITY = 100
# How many hosts a sentence names.
NAMED = 40
# What each host must have, and how it gets it.
_PLACES = {
    "cell": "set ebpf_fleet_cell in the inventory",
    "region": "set ebpf_fleet_region in the inventory",
    "stratum": "ask the host with capability_facts first",
}
_PRIORITY = values.whole(-values.MOST)

# What a host's claim may be; the first is a stage, too.
ALONE = "alone"
DISPUTED = "disputed"
CHANGED = "changed"


class PlanError(OneCodeError):
    """A plan that cannot be carried out; the message names host or stage, field and remedy."""

    code = "EF_PLAN"


class Host(NamedTuple):
    """A host; the lower `priority` the earlier. The order of the fields is the order of hosts.

    `stratum` is what it claims, `expected` what the inventory says of that (empty: nothing), and
    `before` what the last census had where that was another stratum (else empty).
    """

    priority: int
    name: str
    cell: str
    region: str
    stratum: str
    expected: str = ""
    before: str = ""


def read_hosts(hosts: Sequence[Json]) -> list[Host]:
    """Checked hosts in their order."""
    if not isinstance(hosts, (list, tuple)) or not hosts:
        raise PlanError("hosts: the list is empty; name at least one host")
    _refuse_without_place(hosts)
    found = [_read_host(index, one) for index, one in enumerate(hosts)]
    twice = sorted(name for name, count in Counter(host.name for host in found).items() if count > 1)
    if twice:
        raise PlanError(f"hosts: {', '.join(twice)} named more than once; name each host once")
    return sorted(found)


def _read_host(index: int, one: Any) -> Host:
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or not one["name"]:
        raise PlanError(f"hosts[{index}]: has no name; give name, cell, region and stratum")
    name = one["name"]
    priority = one.get("priority")
    priority = DEFAULT_PRIORITY if priority is None else read_value(_PRIORITY, f"host {name}: priority", priority)
    for field in ("expected", "before"):
        if not isinstance(one.get(field) or "", str):
            raise PlanError(f"host {name}: {field} is not text; leave it out where it is not known")
    words = (one.get("expected") or "", one.get("before") or "")
    return Host(
        priority, name, values.label("cell", one["cell"]), values.label("region", one["region"]), one["stratum"], *words
    )


def _refuse_without_place(hosts: Sequence[Any]) -> None:
    """All hosts that lack a cell, a region or a stratum are told at once, with the variable that gives it."""
    wrong: dict[str, list[str]] = {}
    for one in hosts:
        for field in _PLACES if isinstance(one, Mapping) and isinstance(one.get("name"), str) else ():
            problem = _place_problem(field, one.get(field))
            if problem:
                wrong.setdefault(problem, []).append(printable(one["name"], 300))
    if wrong:
        raise PlanError("; ".join(f"{hosts_named(names)}: {problem}" for problem, names in wrong.items()))


def _place_problem(field: str, value: Any) -> str | None:
    if value is None or value == "":
        return f"{field} is missing; {_PLACES[field]}"
    try:
        values.label(field, value)
    except values.RefusedValueError as error:
        return str(error)
    return None


def hosts_named(names: Sequence[str]) -> str:
    """`host a`, or how many there are with the first of them."""
    if len(names) == 1:
        return f"host {names[0]}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{counted(len(names), 'host')} ({', '.join(names[:NAMED])}{more})"


def read_value(reader: values.Reader, name: str, value: Any) -> Any:
    """A value as its reader has it; raises PlanError with the name for one that it refuses."""
    try:
        return reader(name, value)
    except values.RefusedValueError as error:
        raise PlanError(str(error)) from error


class Doubt(NamedTuple):
    """A claim that something speaks against: `against` is the inventory's or the last census's word, if any."""

    kind: str
    host: Host
    against: str | None


def doubts(hosts: Sequence[Host]) -> list[Doubt]:
    """Every host whose claim of a stratum is not to be taken as it is, in the order of hosts.

    `disputed`: the inventory says otherwise. `alone`: no other host claims it, and the inventory
    does not vouch for it. `changed`: the last census had another one.
    """
    disputed = {host for host in hosts if host.expected and not agrees(host.stratum, host.expected)}
    # A disputed claim must not give company to a host that stands alone.
    shared = Counter(host.stratum for host in hosts if host not in disputed)
    found = []
    for host in hosts:
        if host in disputed:
            found.append(Doubt(DISPUTED, host, host.expected))
        elif not host.expected and shared[host.stratum] == 1:
            found.append(Doubt(ALONE, host, None))
        if host.before:
            found.append(Doubt(CHANGED, host, host.before))
    return found


_DOUBT_WORDS = {
    DISPUTED: (
        "{count} another stratum than the inventory says, and come last: {named}; "
        f"correct {EXPECTED_VARIABLE} where the host is right, else find out why it says so"
    ),
    ALONE: (
        "{count} a stratum that no other host has; they come last and are not canaries: {named}; "
        f"where that is right, say so in the inventory with {EXPECTED_VARIABLE}"
    ),
    CHANGED: "{count} another stratum than in the last census: {named}",
}


def sentences_of(found: Sequence[Doubt]) -> list[str]:
    """One sentence for each kind of doubt, with its first hosts and the remedy."""
    lines = []
    for kind, words in _DOUBT_WORDS.items():
        mine = [one for one in found if one.kind == kind]
        if mine:
            count = "1 host claims" if len(mine) == 1 else f"{len(mine)} hosts claim"
            lines.append(words.format(count=count, named=_doubt_names(mine)))
    return lines


def _doubt_names(found: Sequence[Doubt]) -> str:
    told = [_doubt_name(one) for one in found[:NAMED]]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(told) + more


def _doubt_name(one: Doubt) -> str:
    claim = printable(one.host.stratum, 100)
    return f"{one.host.name} ({claim})" if one.against is None else f"{one.host.name} ({claim}, not {one.against})"
