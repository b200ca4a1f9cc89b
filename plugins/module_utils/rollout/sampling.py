# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a number of samples for a whole fleet to the sampling of each host. Pure.

All measured hosts get the same `sample_every`: of all samplings with as many samples that one gives the sum of the
weights the smallest error. With n for every host and N events the variance of the sum is (n - 1) N; with n_h for each
host it is the sum of (n_h - 1) N_h, which for a given sum of N_h / n_h is least where all n_h are equal (Lagrange).
"""

from __future__ import annotations

import math
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted

Json = Mapping[str, Any]

HOUR_NS = 3600 * 10**9
MOST_EVERY = (1 << 32) - 1  # as desired.json takes it
NAMED = 20  # hosts in a sentence


class SamplingError(OneCodeError):
    """A target that cannot be met from what was measured; names the field, or the hosts, and the remedy."""

    code = "EF_SAMPLING"


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _at(document: Any, *path: str) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def produced_per_hour(observation: Any, feature: str) -> tuple[int | None, str]:
    """How many events of the feature a host had in an hour, rounded up, and why that is not known.

    Of two statuses of one loader's life, in both of which it was attached: what happened while it was not was not
    counted.
    """
    start, end = (_at(observation, edge, "status") for edge in ("start", "end"))
    if start is None or end is None:
        return None, _at(observation, "end", "status_error") or "no loader answered"
    if any(_at(start, key) != _at(end, key) for key in ("boot_id", "pid", "started_boottime_ns")):
        return None, "its loader was restarted meanwhile"
    states = [_at(status, "features", feature, "state") for status in (start, end)]
    off = [state for state in states if state != "attached"]
    if off:
        return None, f"{feature} was {off[0] or 'not known'} there"
    first, last = (_number(_at(status, "features", feature, "counters", "produced")) for status in (start, end))
    began, ended = (_number(_at(status, "boottime_ns")) for status in (start, end))
    if first is None or last is None or last < first:
        return None, "its events were not counted"
    if began is None or ended is None or ended <= began:
        return None, "the window holds one status only; take a longer one than the loader's interval"
    return -(-(last - first) * HOUR_NS // (ended - began)), ""


def _desired(host: Json, feature: str, every: int) -> dict[str, Any]:
    """The host's `ebpf_fleet_features` with the feature's sampling: once given, what is not in it does not run."""
    given = host.get("features")
    if isinstance(given, Mapping) and given:
        wanted = {str(name): dict(wish) if isinstance(wish, Mapping) else {} for name, wish in given.items()}
    else:
        features = _at(host, "observation", "end", "status", "features") or {}
        wanted = {str(name): {} for name in sorted(features) if _at(features, name, "wanted") is True}
    wanted[feature] = {**wanted.get(feature, {}), "sample_every": every}
    return wanted


def sampling_plan(hosts: Any, feature: Any, per_hour: Any) -> dict[str, Any]:
    """The sampling that gives about `per_hour` samples of a feature in an hour, over all hosts that were measured.

    `hosts` is {host: {"observation": ..., "features": ebpf_fleet_features or None}}. A host that was not measured is
    in `unmeasured` with why, gets no sampling, and counts for nothing: its samples come on top. Raises SamplingError.
    """
    if not isinstance(hosts, Mapping) or not hosts:
        raise SamplingError("hosts: there are none; name at least one host")
    if not isinstance(feature, str) or not feature:
        raise SamplingError("ebpf_fleet_sampling_feature: is missing; name the feature")
    if not isinstance(per_hour, int) or isinstance(per_hour, bool) or per_hour < 1:
        raise SamplingError(
            f"ebpf_fleet_sampling_per_hour: {printable(str(per_hour))} is not a number of samples; give 1 or more"
        )
    asked = {name: produced_per_hour(_at(host, "observation"), feature) for name, host in hosts.items()}
    rates = {name: rate for name, (rate, _why) in asked.items() if rate is not None}
    unmeasured = {name: printable(str(why)) for name, (rate, why) in sorted(asked.items()) if rate is None}
    if not rates:
        raise SamplingError(f"no host was measured: {_named(unmeasured)}; nothing can be said of their sampling")
    total = sum(rates.values())
    every = min(max(1, -(-total // per_hour)), MOST_EVERY)
    found = {
        "feature": feature,
        "target_per_hour": per_hour,
        "produced_per_hour": total,
        "sample_every": every,
        "samples_per_hour": total // every,
        # Of the sum of the weights of an hour, one standard error.
        "standard_error": math.isqrt((every - 1) * total),
        "hosts": {
            name: {"produced_per_hour": rates[name], "sample_every": every, "samples_per_hour": rates[name] // every}
            for name in sorted(rates)
        },
        "unmeasured": unmeasured,
        "host_vars": {name: {"ebpf_fleet_features": _desired(hosts[name], feature, every)} for name in sorted(rates)},
    }
    return {**found, "sentences": _sentences(found)}


def _named(unmeasured: Mapping[str, str]) -> str:
    shown = [f"{name} ({why})" for name, why in list(unmeasured.items())[:NAMED]]
    more = len(unmeasured) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _sentences(found: Json) -> list[str]:
    said = [
        f"{found['feature']}: {counted(found['produced_per_hour'], 'event')} an hour on "
        f"{counted(len(found['hosts']), 'host')}; "
        f"one in {found['sample_every']} is {found['samples_per_hour']} samples an hour "
        f"(asked: {found['target_per_hour']}).",
        f"The sum of an hour's weights is within {found['standard_error']} of the truth in two of three hours.",
    ]
    if found["unmeasured"]:
        unmeasured = _named(found["unmeasured"])
        said.append(f"Not measured, so not in these figures, and their sampling stays as it is: {unmeasured}.")
    return said
