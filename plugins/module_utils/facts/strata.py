# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stratum a host claims, and what the inventory and the last census say of that. Pure.

A stratum decides who is a canary, and a host claims its own. Nothing is believed for the claim
alone: the inventory can vouch for it, other hosts can share it, the last census can contradict it.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document

Json = Mapping[str, Any]

EXPECTED_VARIABLE = "ebpf_fleet_expected_stratum"
_EXPECTED = re.compile(r"(\*|[A-Za-z0-9._+-]+)(/(\*|[A-Za-z0-9._+-]+)){2}", re.ASCII)


def stratum_of(capabilities: Json) -> str:
    """Return kernel family × architecture × distro, as ``6.1/x86_64/debian``; what is not known reads ``unknown``."""
    kernel = capabilities.get("kernel") or {}
    distro = capabilities.get("distro") or {}
    parts = (kernel.get("family"), kernel.get("machine"), distro.get("id"))
    return "/".join(str(part) if part else "unknown" for part in parts)


def agrees(stratum: str, expected: str) -> bool:
    """Is the stratum what was expected, part by part? `*` expects nothing of its part."""
    return all(want in ("*", have) for want, have in zip(expected.split("/"), stratum.split("/")))


def rollout_hosts(hostvars: Sequence[Json], last_census: Json | None = None) -> list[dict[str, Any]]:
    """Return what a plan needs of each host: name, cell, region (None when not set) and stratum.

    `expected` is the inventory's word on the stratum and `before` the last census's where it was
    another one, else None. Raises FleetError that names every host whose answer cannot be used.
    """
    before = _before(last_census)
    answers = {str(one["inventory_hostname"]): one.get("ebpf_fleet_capability") or {} for one in hostvars}
    read = {name: capability_document.read(name, answer) for name, answer in answers.items()}
    bad = [one.problem for name, one in read.items() if one.problem and answers[name].get("capabilities")]
    if bad:
        raise FleetError("EF_NO_ANSWER", "; ".join(bad))
    return [_rollout_host(one, read[str(one["inventory_hostname"])].capabilities or {}, before) for one in hostvars]


def _rollout_host(hostvars: Json, capabilities: Json, before: Mapping[str, str]) -> dict[str, Any]:
    name = hostvars["inventory_hostname"]
    stratum = stratum_of(capabilities)
    was = before.get(name)
    return {
        "name": name,
        "cell": hostvars.get("ebpf_fleet_cell"),
        "region": hostvars.get("ebpf_fleet_region"),
        "stratum": stratum,
        "expected": _expected(name, hostvars.get(EXPECTED_VARIABLE)),
        "before": was if was != stratum else None,
    }


def _expected(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or _EXPECTED.fullmatch(value) is None:
        raise FleetError(
            "EF_ARGUMENT",
            f"{name}: {EXPECTED_VARIABLE} {printable(value, 100)!r} is not FAMILY/MACHINE/DISTRO; "
            "write it as 6.1/x86_64/debian, with * for a part that may be anything",
        )
    return value


def _before(census: Json | None) -> dict[str, str]:
    """The stratum of each host in a census that capabilities.yml wrote."""
    if census is None:
        return {}
    faults = capability_document.census_faults(census)
    if faults:
        raise FleetError("EF_CENSUS", f"the last census cannot be used: {faults}; write it again with capabilities.yml")
    return {name: str(host["stratum"]) for name, host in census["hosts"].items()}
