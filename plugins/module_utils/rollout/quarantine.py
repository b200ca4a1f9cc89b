# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strata that a release may not go to, as a gate that failed there left it behind. Pure.

The format is in docs/formats/quarantine.md.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

SCHEMA = "ebpf.fleet/quarantine/v1"
KEYS = ("digest", "stratum", "why", "since")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REMEDY = "correct it, or take the variable away to plan without it"


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
