# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times in which no batch starts: freeze windows and blocked hours, and what of them is in force at a moment. Pure.

The clock is a value, and so is what a time zone's name means: the caller has both.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import did_you_mean

Json = Mapping[str, Any]
# The zone of that name, or None where it is not known.
ZoneOf = Callable[[str], "datetime.tzinfo | None"]

FREEZES = "ebpf_fleet_freezes"
BLOCKED = "ebpf_fleet_blocked_hours"
OVERRULE = "ebpf_fleet_overrule_freeze"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
_HOUR = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_MOMENT_REMEDY = "give a moment with its offset, as '2026-12-20T00:00:00+01:00'"
_HOUR_REMEDY = "give hours and minutes in quotes, as '22:00' (YAML makes a number of 22:00 without them)"


# --- what is given -------------------------------------------------------------------------------


def read_freezes(name: str, value: Any) -> list[dict[str, str]]:
    """A list of {from, to, why}: moments of RFC 3339 with their offset, of which `to` is not in the window."""
    return [_freeze(f"{name}[{index}]", one) for index, one in enumerate(values.listing(name, value))]


def _freeze(where: str, one: Any) -> dict[str, str]:
    _refuse_other_keys(where, one, ("from", "to", "why"))
    start, end = (read_moment(f"{where}.{key}", one[key]) for key in ("from", "to"))
    if moment(start) >= moment(end):
        raise values.RefusedValueError(
            f"{where}: ends ({end}) before it begins ({start}); give the later moment as `to`"
        )
    return {"from": start, "to": end, "why": _why(where, one["why"])}


def read_moment(name: str, value: Any) -> str:
    """A moment of RFC 3339 in whole seconds with its offset. YAML makes one of its own of a text that is not quoted."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None and not value.microsecond:
        return datetime.datetime.isoformat(value)
    try:
        if isinstance(value, str) and _MOMENT.fullmatch(value):
            moment(value)
            return str(value)
    except ValueError:
        pass
    raise values.refuse(name, value, _MOMENT_REMEDY)


def moment(text: str) -> datetime.datetime:
    """The moment that a text of `read_moment` means."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def read_blocked_hours(name: str, value: Any) -> list[dict[str, Any]]:
    """A list of {days, from, to, zone, why}: days as mon to sun, hours as HH:MM, a zone's name as of the tz database.

    `to` is not blocked any more; where it is not after `from`, the hours go over midnight into the next day.
    """
    return [_hours(f"{name}[{index}]", one) for index, one in enumerate(values.listing(name, value))]


def _hours(where: str, one: Any) -> dict[str, Any]:
    _refuse_other_keys(where, one, ("days", "from", "to", "zone", "why"))
    days = values.names(f"{where}.days", one["days"])
    for day in days:
        if day not in DAYS:
            raise values.refuse(f"{where}.days", day, did_you_mean(day, DAYS))
    if not days:
        raise values.refuse(f"{where}.days", one["days"], f"give some of {', '.join(DAYS)}")
    start, end = (_hour(f"{where}.{key}", one[key]) for key in ("from", "to"))
    if start in ("24:00", end):
        raise values.RefusedValueError(f"{where}: goes from {start} to {end}; give 00:00 to 24:00 for whole days")
    zone = one["zone"]
    if not isinstance(zone, str) or _ZONE.fullmatch(zone) is None:
        raise values.refuse(f"{where}.zone", zone, "give a time zone, as 'Europe/Berlin' or 'UTC'")
    return {"days": days, "from": start, "to": end, "zone": str(zone), "why": _why(where, one["why"])}


def _hour(name: str, value: Any) -> str:
    if isinstance(value, str) and _HOUR.fullmatch(value):
        return str(value)
    raise values.refuse(name, value, _HOUR_REMEDY)


def _refuse_other_keys(where: str, one: Any, keys: Sequence[str]) -> None:
    if not isinstance(one, Mapping):
        raise values.refuse(where, one, f"give a mapping of {', '.join(keys)}")
    for key in one:
        if key not in keys:
            raise values.RefusedValueError(f"{where}: unknown {key!r}; {did_you_mean(key, keys)}")
    missing = [key for key in keys if one.get(key) is None]
    if missing:
        raise values.RefusedValueError(f"{where}: {missing[0]} is missing; give {', '.join(keys)}")


def _why(where: str, value: Any) -> str:
    found = values.text(f"{where}.why", value)
    if not found.strip():
        raise values.refuse(f"{where}.why", value, "give the reason in words")
    return found


# --- what is in force ----------------------------------------------------------------------------


class Held(NamedTuple):
    """What keeps batches from starting, in words; and the hosts that it is for."""

    words: str
    hosts: tuple[str, ...]


def held(hosts: Sequence[Json], at: datetime.datetime, zone_of: ZoneOf) -> list[Held]:
    """Everything that is in force at a moment for any of the hosts, which are their variables.

    Hours of a zone that is not known hold at every hour: what cannot be judged lets nothing through.
    """
    found: dict[str, list[str]] = {}
    # Most hosts have the same lists: each list is read once.
    known: dict[str, list[str]] = {}
    for host in hosts:
        given = {name: host.get(name) for name in (FREEZES, BLOCKED)}
        key = json.dumps(values.plain(given), sort_keys=True, default=str)
        if key not in known:
            known[key] = list(_in_force(given, at, zone_of))
        for words in known[key]:
            found.setdefault(words, []).append(str(host["inventory_hostname"]))
    return [Held(words, tuple(names)) for words, names in found.items()]


def _in_force(given: Json, at: datetime.datetime, zone_of: ZoneOf) -> Iterator[str]:
    for one in read_freezes(FREEZES, given[FREEZES] or []):
        if moment(one["from"]) <= at < moment(one["to"]):
            yield f"frozen until {one['to']}: {one['why']}"
    for hours in read_blocked_hours(BLOCKED, given[BLOCKED] or []):
        zone = zone_of(hours["zone"])
        if zone is None:
            yield f"{BLOCKED}: the controller does not know zone {hours['zone']!r}, so it blocks all hours; correct it"
        elif is_blocked(hours, at.astimezone(zone)):
            yield f"blocked until {hours['to']} {hours['zone']}: {hours['why']}"


def is_blocked(hours: Json, local: datetime.datetime) -> bool:
    """Is this hour of the zone's own clock blocked? `hours` is one of `read_blocked_hours`."""
    clock = local.strftime("%H:%M")
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if hours["from"] < hours["to"]:
        return today in hours["days"] and hours["from"] <= clock < hours["to"]
    return (today in hours["days"] and clock >= hours["from"]) or (yesterday in hours["days"] and clock < hours["to"])


def sentences(found: Sequence[Held], hosts: int) -> list[str]:
    """A sentence for each; hosts are named where it is not for all of so many."""
    return [one.words if len(one.hosts) == hosts else f"{_named(one.hosts)}: {one.words}" for one in found]


_NAMED = 20


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
