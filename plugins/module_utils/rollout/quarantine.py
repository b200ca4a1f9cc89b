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
_REMEDY = "correct it, or take the variable away to plan without it"
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


def parse(data: bytes) -> list[Quarantined]:
    """The entries of a document; FleetError for one that cannot be used: then no one knows what is quarantined."""
    try:
        document = strictjson.parse(data)
        found = [Quarantined(**one) for one in document["entries"]]
        good = set(document) == {"schema", "entries"} and document["schema"] == SCHEMA
    except (ValueError, TypeError, KeyError) as error:
        raise _unusable(printable(error)) from error
    if not good or not all(_is_entry(one) for one in found):
        raise _unusable(f"is not of schema {SCHEMA}")
    return found


def _is_entry(one: Quarantined) -> bool:
    return all(isinstance(value, str) for value in one) and bool(_DIGEST.fullmatch(one.digest))


def _unusable(why: str) -> FleetError:
    return FleetError("EF_LEDGER", f"the quarantine: {why}; correct the file or remove it")


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


# --- what a plan reads, also of a file that a person wrote ---


def quarantined(document: Any, digest: str, where: str = "the quarantine") -> dict[str, str]:
    """{stratum: why} of the entries of this bundle's digest. FleetError (EF_UNREADABLE) for what is not such a file.

    Every entry is read before any counts: a file of which a part cannot be read may hide the part that matters.
    """
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise FleetError("EF_UNREADABLE", f"{where}: its schema is not {SCHEMA}; {_REMEDY}")
    entries = document.get("entries")
    if not isinstance(entries, list):
        raise FleetError("EF_UNREADABLE", f"{where}: entries is not a list; {_REMEDY}")
    for index, one in enumerate(entries):
        _refuse(f"{where}: entries[{index}]", one)
    return {one["stratum"]: f"{one['why']} (since {one['since']})" for one in entries if one["digest"] == digest}


def _refuse(where: str, one: Any) -> None:
    if not isinstance(one, Mapping):
        raise FleetError("EF_UNREADABLE", f"{where}: is not a mapping; {_REMEDY}")
    for key in KEYS:
        if not isinstance(one.get(key), str) or not one[key].strip():
            raise FleetError("EF_UNREADABLE", f"{where}.{key}: is missing or not text; {_REMEDY}")
    if _DIGEST.fullmatch(one["digest"]) is None:
        raise FleetError("EF_UNREADABLE", f"{where}.digest: is not 64 hex digits; {_REMEDY}")
