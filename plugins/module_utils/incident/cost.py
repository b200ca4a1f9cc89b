# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each feature costs, which one goes first, and by which host limits a feature is brought down. Pure.

A cost is the run time of a feature's programs in nanoseconds for each second, the larger of what the loader tells and
what the kernel counted. Where the kernel does not count run times it is not zero but unknown.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import features
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    Pair,
    attached_features,
    get,
    number,
    ratio_up,
    status_span_ns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.witness_programs import kernel_run_ns

Json = Mapping[str, Any]

SECOND_NS = 1_000_000_000
# Checks that are of the host as a whole: every feature on it may be why.
OF_HOST = ("loader_cpu", "bpf_cpu", "total_cpu")
# The limit of policy.json that brings down what a check found. The loader then takes its own steps
# (docs/degradation.md): thinner sampling, the reduced variant, and at last off.
LOWERED = {
    "feature_cpu": "cpu_millicores",
    "map_fill": "map_fill_ppm",
    "map_memory": "map_memory_bytes",
    "event_rate": "event_rate_per_second",
    "consumer_lag": "event_rate_per_second",
    "drop_ratio": "event_rate_per_second",
}


def of_host(pair: Pair) -> dict[str, int | None]:
    """{feature: ns of run time a second} of what is attached; None where it was not measured."""
    return {name: _of_feature(pair, name) for name in attached_features(pair)}


def _of_feature(pair: Pair, feature: str) -> int | None:
    counted = [get(one, "status", "stats_enabled") for one in (pair.start, pair.end)]
    if counted != [True, True]:
        return None
    told = _rate(features.feature_run_ns(pair, feature), status_span_ns(pair))
    ends = [number(one, "witness", "boottime_ns") for one in (pair.start, pair.end)]
    span = None if ends[0] is None or ends[1] is None else ends[1] - ends[0]
    seen = _rate(kernel_run_ns(pair, feature), span)
    return seen if told is None else told if seen is None else max(told, seen)


def _rate(spent_ns: int | None, span_ns: int | None) -> int | None:
    return None if spent_ns is None or not span_ns or span_ns < 0 else ratio_up(spent_ns, span_ns, SECOND_NS)


def suspects(host: Json) -> list[str]:
    """The features of a host that its confirmed checks are about, of those that are attached."""
    over = host["checks"]
    attached = sorted(host["costs"])
    if any(one["check"] in OF_HOST for one in over):
        return attached
    return [name for name in attached if any(one["feature"] == name for one in over)]


def ranked(hosts: Mapping[str, Json]) -> list[dict[str, Any]]:
    """The suspects of these hosts, the costliest first; one that no host measured comes last with a null cost."""
    found: dict[str, dict[str, Any]] = {}
    for name, host in hosts.items():
        for feature in suspects(host):
            row = found.setdefault(feature, {"feature": feature, "ns_per_second": None, "hosts": [], "unmeasured": []})
            row["hosts"].append(name)
            spent = host["costs"][feature]
            if spent is None:
                row["unmeasured"].append(name)
            else:
                row["ns_per_second"] = (row["ns_per_second"] or 0) + spent
    return sorted(
        found.values(), key=lambda row: (row["ns_per_second"] is None, -(row["ns_per_second"] or 0), row["feature"])
    )


def lines(costs: Sequence[Json]) -> list[str]:
    """A line for each suspect."""
    return [
        f"{one['feature']}: "
        + (
            "run time not measured"
            if one["ns_per_second"] is None
            else f"{one['ns_per_second']} ns of run time a second"
        )
        + f" over {len(one['hosts'])} host{'s' if len(one['hosts']) > 1 else ''}"
        + (
            f", not measured on {len(one['unmeasured'])} of them"
            if one["unmeasured"] and one["ns_per_second"] is not None
            else ""
        )
        for one in costs
    ]


def choice(costs: Sequence[Json], wanted: str = "") -> dict[str, Any]:
    """Which feature is disabled first, where, and why: {"feature" or None, "hosts", "lines"}.

    The costliest by measured run time; of equal ones the first by name, which is said. Without any measured there is no
    choice but the one that a person names. Raises FleetError where the name is not a suspect's.
    """
    if not costs:
        return {"feature": None, "hosts": [], "lines": ["no attached feature is a reason for what was found"]}
    if wanted:
        known = {one["feature"]: one for one in costs}
        if wanted not in known:
            raise FleetError(
                "EF_ARGUMENT", f"ebpf_fleet_triage_feature: {wanted!r} is not a suspect; {did_you_mean(wanted, known)}"
            )
        return {"feature": wanted, "hosts": known[wanted]["hosts"], "lines": [f"{wanted} was named"]}
    measured = [one for one in costs if one["ns_per_second"] is not None]
    unmeasured = [one["feature"] for one in costs if one["unmeasured"]]
    said = [f"not compared where it was not measured: {', '.join(unmeasured)}"] if unmeasured else []
    if not measured:
        why = "no run time was measured, so none is the costliest; name one with -e ebpf_fleet_triage_feature=NAME"
        return {"feature": None, "hosts": [], "lines": [f"{why}: {', '.join(unmeasured)}"]}
    first = measured[0]
    equal = [one["feature"] for one in measured if one["ns_per_second"] == first["ns_per_second"]]
    tie = f"; {', '.join(equal)} cost the same, and the first by name goes first" if len(equal) > 1 else ""
    head = f"the costliest is {first['feature']} with {first['ns_per_second']} ns of run time a second{tie}"
    return {"feature": first["feature"], "hosts": first["hosts"], "lines": [head, *said]}


def reduction(pair: Pair, over: Sequence[Json]) -> dict[str, dict[str, int]]:
    """{feature: limits} of policy.json that bring a host's confirmed features down: half of what was measured,
    or of the limit where that is less.

    For memory the limit: no sampling makes a map smaller, and the reduced variant is what remains. For what is of
    the whole host it is the costliest feature's CPU. Nothing for what is at its least already.
    """
    found: dict[str, dict[str, int]] = {}
    for one in over:
        feature = one["feature"] or _costliest(pair)
        if feature is None or (one["check"] not in LOWERED and one["check"] not in OF_HOST):
            continue
        limit = LOWERED.get(one["check"], "cpu_millicores")
        value = _lowered(pair, feature, one)
        if value is not None and value >= 1:
            limits = found.setdefault(feature, {})
            limits[limit] = min(value, limits.get(limit, value))
    return found


def _costliest(pair: Pair) -> str | None:
    measured = {name: spent for name, spent in of_host(pair).items() if spent}
    return min(measured, key=lambda name: (-measured[name], name)) if measured else None


def _lowered(pair: Pair, feature: str, one: Json) -> int | None:
    if one["check"] == "map_memory":
        return None if one["measured"] is None else min(one["measured"] - 1, one["limit"])
    if one["check"] in OF_HOST:
        measured = features.feature_millicores(pair, feature)
    elif one["check"] in ("consumer_lag", "drop_ratio"):
        passed = features.counter_delta(pair, feature, "delivered")
        measured = _rate(passed, status_span_ns(pair))
    else:
        # The loader keeps to a contract's limit by itself: what stays above it is brought below.
        known = [value for value in (one["measured"], one["limit"]) if value is not None]
        measured = min(known) if known else None
    if measured is None:
        return None
    return measured // 2
