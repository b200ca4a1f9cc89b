# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that failed the gate on a kind of host, so that no later rollout brings them there. Pure.

The format is in docs/formats/quarantine.md.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

SCHEMA = "ebpf.fleet/quarantine/v1"
KEYS = ("digest", "stratum", "why", "since")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{6,64}", re.ASCII)


class Quarantined(NamedTuple):
    """A release by its bundle's digest, and the stratum that it may not go to; `since` is RFC 3339."""

    digest: str
    stratum: str
    why: str
    since: str
    rollout: str


def render(entries: Iterable[Quarantined]) -> bytes:
    """The document, for a person too."""
    document = {"schema": SCHEMA, "entries": [one._asdict() for one in entries]}
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def parse(data: bytes, where: str = "the quarantine") -> list[Quarantined]:
    """The entries of a document that is to be written again: one with more in it would lose that, and is refused.

    FleetError (EF_UNREADABLE) for what cannot be used: then no one knows what is quarantined.
    """
    try:
        document = strictjson.parse(data)
    except ValueError as error:
        raise _unusable(where, printable(error)) from error
    found = read(document, where)
    if set(document) != {"schema", "entries"} or any(
        set(one) - set(Quarantined._fields) for one in document["entries"]
    ):
        raise _unusable(where, "has fields that are not known")
    return found


def read(document: Any, where: str = "the quarantine") -> list[Quarantined]:
    """The entries, also of a file that a person wrote; `rollout` may be missing there. FleetError (EF_UNREADABLE).

    Every entry is read before any counts: a file of which a part cannot be read may hide the part that matters.
    """
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise _unusable(where, f"its schema is not {SCHEMA}")
    if not isinstance(document.get("entries"), list):
        raise _unusable(where, "entries is not a list")
    return [_entry(f"{where}: entries[{index}]", one) for index, one in enumerate(document["entries"])]


def _entry(where: str, one: Any) -> Quarantined:
    if not isinstance(one, Mapping):
        raise _unusable(where, "is not a mapping")
    for key in KEYS:
        if not isinstance(one.get(key), str) or not one[key].strip():
            raise _unusable(f"{where}.{key}", "is missing or not text")
    if _DIGEST.fullmatch(one["digest"]) is None:
        raise _unusable(f"{where}.digest", "is not 64 hex digits")
    if not isinstance(one.get("rollout", ""), str):
        raise _unusable(f"{where}.rollout", "is not text")
    return Quarantined(**{name: one.get(name, "") for name in Quarantined._fields})


def _unusable(where: str, why: str) -> FleetError:
    return FleetError("EF_UNREADABLE", f"{where}: {why}; correct the file, or plan without it")


def quarantined(document: Any, digest: str, where: str = "the quarantine") -> dict[str, str]:
    """{stratum: why} of the entries of this bundle's digest; errors as of read()."""
    return {one.stratum: f"{one.why} (since {one.since})" for one in read(document, where) if one.digest == digest}


def strata_of(verdict: Mapping[str, Any], strata: Mapping[str, str], hosts: Sequence[str]) -> list[str]:
    """The strata that a failed verdict speaks against: those of the hosts that failed a check.

    What all hosts together show is of every stratum of the batch. A verdict that did not fail speaks against none:
    what was not measured is not a fault of the release.
    """
    if verdict.get("verdict") != "fail":
        return []
    failed = [one for one in verdict.get("reasons", []) if one.get("verdict", "fail") == "fail"]
    named = {one.get("host") for one in failed}
    guilty = hosts if not named or None in named else [host for host in hosts if host in named]
    return sorted({strata[host] for host in guilty if host in strata})


def add(known: Sequence[Quarantined], new: Iterable[Quarantined]) -> list[Quarantined]:
    """Both, each release and stratum once; what is known keeps its first cause."""
    there = {(one.digest, one.stratum) for one in known}
    return [*known, *(one for one in new if (one.digest, one.stratum) not in there)]


def lift(known: Sequence[Quarantined], wanted: str) -> tuple[list[Quarantined], list[Quarantined]]:
    """(what stays, what is lifted) for ``DIGEST`` or ``DIGEST@STRATUM``, the digest by 6 hex digits at least.

    Raises FleetError where nothing is quarantined so: a mistyped wish must not read like success.
    """
    prefix, _at, stratum = wanted.partition("@")
    if not _PREFIX.fullmatch(prefix):
        raise FleetError(
            "EF_ARGUMENT",
            f"ebpf_fleet_lift_quarantine: {wanted!r}; give DIGEST or DIGEST@STRATUM, 6 hex digits at least",
        )
    lifted = [one for one in known if one.digest.startswith(prefix) and stratum in ("", one.stratum)]
    if len({one.digest for one in lifted}) > 1:
        raise FleetError(
            "EF_ARGUMENT", f"ebpf_fleet_lift_quarantine: {prefix} means several releases; give more digits"
        )
    if not lifted:
        names = [f"{one.digest[:12]}@{one.stratum}" for one in known]
        hint = did_you_mean(wanted, names) if names else "nothing is quarantined"
        raise FleetError("EF_ARGUMENT", f"ebpf_fleet_lift_quarantine: {wanted} is not quarantined; {hint}")
    return [one for one in known if one not in lifted], lifted


def sentences(known: Sequence[Quarantined]) -> list[str]:
    """Each in words."""
    return [
        f"{one.digest[:12]} may not go to {one.stratum} since {one.since}: {one.why} (rollout {one.rollout})"
        for one in known
    ]
