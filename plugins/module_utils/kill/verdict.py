# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on an order: who is off, whom it does not concern, who did not confirm, and what to do. Pure.

Placed, concerned and proved off are three numbers: an order that was placed everywhere and concerns
no host has turned nothing off. It is read in an emergency, so every line is short and so is the whole.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import orders, scope

Json = Mapping[str, Any]

WIDTH = 100
NAMES_IN_LINE = 6
GROUPS = 12
REASON_LIMIT = 300
_NUMBER = re.compile(r"[0-9]+")
_SSHS_WORDS = re.compile(r"Failed to connect to the host via ssh: (?:ssh: )?(?:connect to host \S+ port [0-9]+: )?")


class Order(NamedTuple):
    """What was ordered: scopes as `scope.read` takes them; empty where it was no kill order."""

    scopes: Sequence[object] = ()
    state: str = "engaged"
    allow_unconcerned: bool = False


class Told(NamedTuple):
    """The hosts of a fleet by what they told; each in one of off, unconcerned, unknown or missing."""

    placed: list[str]
    concerned: list[str]
    off: list[str]
    unconcerned: list[str]
    unknown: list[str]
    missing: list[str]


def told(hosts: Mapping[str, Json]) -> Told:
    """Sort the hosts by their parsed answers; a host that did not say is never counted as one that did."""
    good = {name: host for name, host in hosts.items() if host["ok"]}
    return Told(
        placed=sorted(name for name, host in hosts.items() if host["placed"] is True),
        concerned=sorted(name for name, host in hosts.items() if host["concerned"] is True),
        off=sorted(name for name, host in good.items() if host["concerned"] is True),
        unconcerned=sorted(name for name, host in good.items() if host["concerned"] is False),
        unknown=sorted(name for name, host in good.items() if host["concerned"] is None),
        missing=sorted(set(hosts) - set(good)),
    )


def numbers(found: Told) -> dict[str, int]:
    """The three numbers and what they do not hold."""
    return {
        "placed": len(found.placed),
        "concerned": len(found.concerned),
        "off": len(found.off),
        "not_concerned": len(found.unconcerned),
        "unknown": len(found.unknown),
        "unconfirmed": len(found.missing),
    }


def concerns_no_host(found: Told, order: Order) -> bool:
    """Is this an order that no host said to be concerned by, without leave for that?"""
    return bool(order.scopes) and not found.concerned and not order.allow_unconcerned


def failed(found: Told, order: Order, hosts: Iterable[str]) -> list[str]:
    """The hosts that a playbook must show as failed: who did not confirm, or all where nothing was confirmed."""
    if found.missing:
        return found.missing
    return sorted(hosts) if concerns_no_host(found, order) else []


def suggestion(hosts: Mapping[str, Json], order: Order) -> str:
    """What no host has, and the nearest that one has; empty where some host is concerned or nothing was named."""
    wanted = [scope.read(one) for one in order.scopes]
    sentences = [one for each in wanted for one in _nearest(each, hosts, order.state)]
    return " ".join(sentences)


def _nearest(wanted: scope.Wanted, hosts: Mapping[str, Json], state: str) -> list[str]:
    if state == "released":
        # A host knows the order by its file alone, and that names neither cell nor host pattern.
        (atom,) = wanted.atoms
        known = {orders.scope_of(name) for name in _all(hosts, "orders")}
        near = _hint(atom.text, known, "no host told an order that it has")
        return [f"No host had the order {wanted.text}; {near}"]
    said = []
    if wanted.family:
        seen = {host["family"] for host in hosts.values() if host["family"]}
        known = seen | {name.rpartition("-")[2] for name in seen}
        if not (wanted.feature and wanted.family in known):
            near = _hint(wanted.family, known, "no host told its family")
            said.append(f"No host is of kernel family {wanted.family}; {near}")
    if wanted.feature and not said:
        known = set(_all(hosts, "features"))
        near = _hint(wanted.feature, known, "no host told a feature that it has")
        of = f" of kernel family {wanted.family}" if wanted.family else ""
        said.append(f"No host{of} has a feature {wanted.feature}; {near}")
    return said


def _hint(word: str, known: set[str], silent: str) -> str:
    """The end of a sentence, with its sign."""
    if word in known:
        return "a host that did not confirm has it."
    hint = hostnames.nearest(word, known) if known else silent
    return hint if hint.endswith("?") else f"{hint}."


def _all(hosts: Mapping[str, Json], field: str) -> Iterable[str]:
    return (one for host in hosts.values() for one in host[field] or ())


def sentence(hosts: Mapping[str, Json], found: Told, order: Order, slowest_ms: int | None) -> str:
    """All of it in one bounded line, for a log or a task."""
    if not hosts:
        return "No host was addressed: check the inventory and the pattern."
    good = len(hosts) - len(found.missing)
    head = f"All {good} hosts confirmed" if not found.missing else f"{good} of {len(hosts)} hosts confirmed"
    head += f": {_counts(found, order)}" if order.scopes else ""
    if found.missing:
        named = "; ".join(f"{printable(name, 80)} ({hosts[name]['detail']})" for name in found.missing[:3])
        more = f" and {len(found.missing) - 3} more" if len(found.missing) > 3 else ""
        head += f". NOT confirmed: {named}{more}. Run this playbook again until all have"
    elif slowest_ms is not None:
        head += f"; the slowest took {slowest_ms} ms on the host"
    if concerns_no_host(found, order):
        head += f". {_no_host(hosts, found, order)}"
    return head if head.endswith("?") else head.rstrip(". ") + "."


def _no_host(hosts: Mapping[str, Json], found: Told, order: Order) -> str:
    """What to say of an order that concerns no host; nothing where no host answered at all."""
    if len(found.missing) == len(hosts):
        return ""
    return suggestion(hosts, order) or "No host said that the order concerns it."


def _counts(found: Told, order: Order) -> str:
    if order.state == "released":
        return f"{len(found.concerned)} of them had the order"
    return f"placed on {len(found.placed)}, concerned {len(found.concerned)}, proved off {len(found.off)}"


def lines(hosts: Mapping[str, Json], found: Told, order: Order, slowest_ms: int | None) -> list[str]:
    """The verdict as it stands last on the screen."""
    if not hosts:
        return ["NO HOST was addressed: check the inventory and the pattern."]
    what = " ".join(f"scope={scope.read(one).text}" for one in order.scopes) or "the way back"
    number = f"{len(hosts)} host{'s' if len(hosts) > 1 else ''} addressed"
    head = f"{what}, {order.state}: {number}, {_counts(found, order)}." if order.scopes else f"{what}: {number}."
    said = wrapped(head, "")
    said += _good(hosts, found, order, slowest_ms)
    if found.missing:
        said.append(f"NOT CONFIRMED: {len(found.missing)}")
        said += _by_reason(hosts, found.missing)
    if concerns_no_host(found, order):
        said += wrapped(_no_host(hosts, found, order), "")
    return said + wrapped("Next: " + _next(hosts, found, order), "")


def _good(hosts: Mapping[str, Json], found: Told, order: Order, slowest_ms: int | None) -> list[str]:
    released = order.state == "released"
    confirmed = sorted(set(hosts) - set(found.missing))
    if not order.scopes:
        return [f"back or nothing to do: {len(confirmed)}"] if confirmed else []
    said = []
    if found.off:
        slow = f"; the slowest took {slowest_ms} ms on its host" if slowest_ms is not None and not released else ""
        said.append(f"{'order taken back' if released else 'off'}: {len(found.off)}{slow}")
        brief = [] if released else not_on_disk(hosts, found)
        if brief:
            said += wrapped(f"off until a reboot only, as the order is not on disk: {len(brief)}", "")
            said += wrapped(hostnames.some_of(brief, NAMES_IN_LINE), "  ")
    if found.unconcerned:
        said.append(f"{'had no such order' if released else 'not concerned'}: {len(found.unconcerned)}")
        said += _by_reason(hosts, found.unconcerned, 3)
    if found.unknown:
        said.append(f"nothing of it is left, but not known whether it was there: {len(found.unknown)}")
    return said


def _by_reason(hosts: Mapping[str, Json], names: Sequence[str], most: int = GROUPS) -> list[str]:
    """A few lines for each reason, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for name in names:
        # Reasons that differ only in numbers, as in those of processes, are one.
        groups.setdefault(_NUMBER.sub("#", reason(name, hosts[name]["detail"])), []).append(name)
    ordered = sorted(groups.items(), key=lambda one: (-len(one[1]), one[1][0]))
    said: list[str] = []
    # A remedy may be long; where there are many reasons each has less room.
    room = REASON_LIMIT if len(ordered) <= 4 else REASON_LIMIT // 2
    for _key, some in ordered[:most]:
        why = printable(reason(some[0], hosts[some[0]]["detail"]), room)
        said += wrapped(f"{hostnames.some_of(some, NAMES_IN_LINE)}: {why}", "  ")
    rest = ordered[most:]
    if rest:
        said.append(f"  and {sum(len(some) for _why, some in rest)} more hosts for {len(rest)} more reasons")
    return said


def reason(name: str, detail: str) -> str:
    """Why a host did not confirm, without its own name, so that hosts of one reason stand together."""
    prefix = f"no usable answer from {printable(name, 200)}: "
    short = detail[len(prefix) :] if detail.startswith(prefix) else detail
    return printable(_SSHS_WORDS.sub("ssh: ", short), REASON_LIMIT)


def not_on_disk(hosts: Mapping[str, Json], found: Told) -> list[str]:
    """The hosts that are off and did not say that the order lies on their disk."""
    return [name for name in found.off if hosts[name]["persisted"] is not True]


def _next(hosts: Mapping[str, Json], found: Told, order: Order) -> str:
    if found.missing:
        return (
            "what did not confirm counts as ON. Run the same command again until it exits with 0, or reach these"
            " hosts another way. ebpf_fleet_report=PATH keeps every answer."
        )
    if concerns_no_host(found, order):
        keep = "" if order.state == "released" else f" Take this order back with {scope.RELEASE_ARGUMENTS}."
        return f"give the right name.{keep} Add -e allow_unconcerned=true where nothing is to be found."
    if order.scopes and order.state == "engaged":
        brief = not_on_disk(hosts, found)
        reboot = "" if brief else ", also after a reboot,"
        again = " Where it is not on disk a reboot ends it: make room there and run this again." if brief else ""
        return f"it stays off{reboot} until the order is taken back with {scope.RELEASE_ARGUMENTS}.{again}"
    return "nothing is left to do here."


def wrapped(text: str, indent: str) -> list[str]:
    """Text broken into lines that fit a screen; only at blanks, so that a path stays whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
