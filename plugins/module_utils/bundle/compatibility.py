# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a capability matrix says of its kernels, and what a release's manifest says of them by it. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import NOT_MEASURED, counted, version_order
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES

Json = Mapping[str, Any]


def features_in(doc: Json) -> list[str]:
    return sorted({name for host in doc["hosts"].values() for name in host["features"]})


def hosts_in_order(doc: Json) -> list[str]:
    """Hosts by kernel family, and by release and name within it."""

    def key(name: str) -> tuple[list[Any], list[Any], str]:
        return version_order(family_of(doc, name)), version_order(release_of(doc, name)), name

    return sorted(doc["hosts"], key=key)


def family_of(doc: Json, name: str) -> str:
    return str(doc["hosts"][name].get("family") or "unknown")


def release_of(doc: Json, name: str) -> str:
    return str((doc["hosts"][name].get("kernel") or {}).get("release") or "unknown")


def compatibility_of(matrix: Json) -> dict[str, Any]:
    """The manifest's `compatibility` of a release that was tested with this matrix.

    `summary` is one line a kernel family. `known_disabled` holds a feature of a family only
    where no host of that family reached it; what some reached is told in the summary.
    """
    families: dict[str, list[str]] = {}
    for name in hosts_in_order(matrix):
        families.setdefault(family_of(matrix, name), []).append(name)
    disabled = []
    for family, hosts in families.items():
        for feature in features_in(matrix):
            codes = _codes_if_disabled(matrix, hosts, feature)
            disabled += [{"family": family, "feature": feature, "reason_code": code} for code in codes]
    return {
        "summary": [_family_line(matrix, family, hosts) for family, hosts in families.items()],
        "known_disabled": disabled,
    }


def _all_reached(matrix: Json, hosts: Iterable[str], feature: str) -> list[Json]:
    found = [matrix["hosts"][name]["features"].get(feature) or {} for name in hosts]
    return [one["reached"] for one in found if isinstance(one.get("reached"), Mapping)]


def _codes_if_disabled(matrix: Json, hosts: Iterable[str], feature: str) -> list[str]:
    reached = _all_reached(matrix, hosts, feature)
    if any(one["profile"] != "disabled" for one in reached):
        return []
    return sorted({str(one["reason_code"]) for one in reached})


def _family_line(matrix: Json, family: str, hosts: Sequence[str]) -> str:
    said = [f"{one} {_reached_words(_all_reached(matrix, hosts, one))}" for one in features_in(matrix)]
    return f"{family} ({counted(len(hosts), 'kernel')}): {', '.join(said)}"


def _reached_words(reached: Sequence[Json]) -> str:
    """`full`, or `full or disabled (EF_NO_BTF)` where the kernels of a family differ."""
    if not reached:
        return NOT_MEASURED
    words = []
    for profile in PROFILES:
        codes = sorted({str(one["reason_code"]) for one in reached if one["profile"] == profile} - {"EF_OK"})
        if any(one["profile"] == profile for one in reached):
            words.append(f"{profile} ({' '.join(codes)})" if codes else profile)
    return " or ".join(words)
