# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts pay too much for our programs, by the gate's own checks over windows one after the other. Pure.

A regression is confirmed where a check fails in every window; one that failed in some is told and not acted on. What
was not measured is neither.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import cost
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments, judge
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import FAIL, INCONCLUSIVE, Inputs, Pair, get

Json = Mapping[str, Any]

# The gate's checks that are asked, by what they are about. Limits and defaults are the gate's.
ABOUT = {
    "CPU": ("loader_cpu", "bpf_cpu", "total_cpu", "feature_cpu"),
    "map pressure": ("map_fill", "map_memory"),
    "consumer lag": ("consumer_lag", "drop_ratio", "event_rate"),
}
CHECKS = tuple(name for names in ABOUT.values() for name in names)
# That the host cannot be judged at all: with a stale status no rate is of now.
UNUSABLE = ("observation", "status_fresh", "counters_advance")
BUDGETS = ("cpu_millicores", "map_memory_bytes", "event_rate_per_second", "drop_ratio_ppm")
TOLD = 12


class Asked(NamedTuple):
    """What the judgement depends on beside the windows.

    `contracts` of the release, where it is known; without one a feature's budget is what its host's loader says that
    is in force. `budgets` are those of an earlier judgement, so that a limit that was lowered since is not the measure.
    `reduce` names the one feature whose limits may be lowered; empty: all of them.
    """

    contracts: Sequence[Json] = ()
    limits: Json | None = None
    budgets: Mapping[str, Mapping[str, Json]] | None = None
    reduce: str = ""


def findings(windows: Mapping[str, Sequence[Any]], asked: Asked) -> dict[str, Any]:
    """What was found on each host: {"hosts": …, "confirmed", "once", "within", "unmeasured": names, "costs", "lines"}.

    `windows` has for each host its observations, one for each window, None where it gave none. Raises GateInputError
    for limits or contracts that cannot be used.
    """
    limits = arguments.check_limits(asked.limits)
    own = arguments.check_contracts(asked.contracts)
    hosts = {host: _host(host, seen, limits, own, asked.budgets or {}) for host, seen in sorted(windows.items())}
    for one in hosts.values() if asked.reduce else ():
        one["reduce"] = {name: lowered for name, lowered in one["reduce"].items() if name == asked.reduce}
    named = {state: [name for name, one in hosts.items() if one["state"] == state]
             for state in ("confirmed", "once", "within", "unmeasured")}  # fmt: skip
    found = {"hosts": hosts, **named, "costs": cost.ranked({name: hosts[name] for name in named["confirmed"]})}
    return {**found, "lines": _lines(found)}


def _host(
    host: str, seen: Sequence[Any], limits: Any, own: Mapping[str, Json], before: Mapping[str, Any]
) -> dict[str, Any]:
    usable = [one if isinstance(one, Mapping) else None for one in seen]
    budgets = dict(before.get(host) or _budgets(usable[0], own))
    judged = [_rows(host, one, limits, budgets) for one in usable]
    wrong = next((why for why, _rows_of in judged if why), "" if usable else "was not observed")
    last = usable[-1] if usable and not wrong else None
    pair = None if last is None else Pair(host, None, last, _inputs(host, last, limits, budgets))
    status = get(last, "end", "status")
    told = {
        "budgets": budgets,
        "kernel": _words(get(status, "kernel", "family")),
        "version": _words(get(status, "bundle", "version")),
        "costs": {} if pair is None else cost.of_host(pair),
    }
    if wrong:
        return {**told, "state": "unmeasured", "why": wrong, "checks": [], "unjudged": [], "reduce": {}}
    rows = _merged([rows for _why, rows in judged])
    over = [one for one in rows if one["windows_over"] == len(usable)]
    state = "confirmed" if over else "once" if any(one["windows_over"] for one in rows) else "within"
    told["reduce"] = {} if pair is None or state != "confirmed" else cost.reduction(pair, over)
    return {
        **told,
        "state": state,
        "why": "",
        "checks": [one for one in rows if one["windows_over"]],
        "unjudged": sorted({_label(one) for one in rows if one["unjudged"]}),
    }


def _words(value: Any) -> str | None:
    return printable(value, 64) if isinstance(value, str) and value else None


def _budgets(observation: Any, own: Mapping[str, Json]) -> dict[str, Json]:
    """{feature: budget}: of the contract, else what the loader says is in force on its host."""
    features = get(observation, "end", "status", "features")
    told = get(observation, "end", "status", "budget", "features")
    found: dict[str, Json] = {}
    for name in features if isinstance(features, Mapping) else ():
        if name in own:
            found[name] = dict(own[name]["budget"])
            continue
        limits = {one: get(told, name, one, "limit") for one in BUDGETS}
        found[name] = {
            one: value for one, value in limits.items() if isinstance(value, int) and not isinstance(value, bool)
        }
    return found


def _inputs(host: str, observation: Any, limits: Any, budgets: Mapping[str, Json]) -> Inputs:
    features = get(observation, "end", "status", "features")
    names = list(features) if isinstance(features, Mapping) else []
    expected = {host: {name: {"profile": "disabled"} for name in names}}
    return Inputs(
        changed={host: {"before": None, "after": observation}},
        controls={},
        limits=limits,
        contracts={name: {"feature": name, "budget": budget} for name, budget in budgets.items()},
        expected=arguments.check_expected(expected),
        digest=None,
        on_inconclusive=arguments.check_policies(None),
        expressions=[],
        search=None,
    )


def _rows(host: str, observation: Any, limits: Any, budgets: Mapping[str, Json]) -> tuple[str, list[dict[str, Any]]]:
    """(why the host cannot be judged, the rows of the checks that are asked)."""
    if observation is None:
        return "gave no observation: it needs Python and an answer in time", []
    verdict = judge.judge(_inputs(host, observation, limits, budgets))
    bad = [one for one in verdict["checks"] if one["check"] in UNUSABLE and one["verdict"] != judge.PASS]
    if bad:
        return bad[0]["sentence"].removeprefix(f"{host}: "), []
    return "", [one for one in verdict["checks"] if one["check"] in CHECKS]


def _merged(windows: Sequence[Sequence[Json]]) -> list[dict[str, Any]]:
    """One row for each check and feature, with how many windows were over and whether one could not be judged."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for rows in windows:
        counted = set()
        # A feature may have several maps: one that fails is enough, and it is the one that is told.
        for one in sorted(rows, key=lambda row: row["verdict"] == FAIL):
            key = (one["check"], one["feature"])
            row = found.setdefault(key, {"windows_over": 0, "unjudged": False})
            row.update({name: one[name] for name in ("check", "feature", "unit")})
            row["unjudged"] |= one["verdict"] == INCONCLUSIVE
            if one["verdict"] == FAIL:
                row.update({name: one[name] for name in ("measured", "limit", "sentence")})
                if key not in counted:
                    row["windows_over"] += 1
                    counted.add(key)
    return [found[key] for key in sorted(found, key=lambda key: (CHECKS.index(key[0]), key[1] or ""))]


def _label(row: Json) -> str:
    return f"{row['check']} ({row['feature']})" if row["feature"] else str(row["check"])


def _lines(found: Json) -> list[str]:
    """What was found, for a person: counts, the worst by check, who was not measured, what costs most."""
    hosts = found["hosts"]
    said = [
        f"{len(found['confirmed'])} of {counted(len(hosts), 'host')} over a limit in every window, "
        f"{len(found['once'])} in some, {len(found['within'])} within, {len(found['unmeasured'])} not measured"
    ]
    for name in [*found["confirmed"], *found["once"]][:TOLD]:
        said += [
            one["sentence"]
            + (
                ""
                if hosts[name]["state"] == "confirmed" and one["windows_over"] > 1
                else f" ({one['windows_over']} window)"
            )
            for one in hosts[name]["checks"][:4]
        ]
    more = len(found["confirmed"]) + len(found["once"]) - TOLD
    said += [f"and {counted(more, 'more host')}"] if more > 0 else []
    by_reason: dict[str, list[str]] = {}
    for name in found["unmeasured"]:
        by_reason.setdefault(printable(hosts[name]["why"], 200), []).append(name)
    said += [f"not measured: {hostnames.some_of(names, 6)}: {why}" for why, names in sorted(by_reason.items())[:TOLD]]
    unjudged = sorted({one for host in hosts.values() for one in host["unjudged"]})
    said += (
        [f"not judged on some host, as it was not measured or has no limit: {', '.join(unjudged[:TOLD])}"]
        if unjudged
        else []
    )
    return said + cost.lines(found["costs"])
