# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own checks, JMESPath expressions over what was observed of one host. Pure."""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Json,
    Judgement,
    Pair,
    attached_features,
    difference,
    millicores,
    number,
    status_span_ns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.features import counter_delta, feature_millicores
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import bpf_millicores, cpu_busy_ppm


def rates(pair: Pair) -> dict[str, Any]:
    """Derived values that a user's expression may use beside the observations."""
    features = {}
    for name in attached_features(pair):
        counters = {
            key + "_delta": counter_delta(pair, name, key)
            for key in ("produced", "delivered", "dropped", "sampled_out")
        }
        cpu = feature_millicores(pair, name)
        features[name] = dict(counters, cpu_millicores=cpu)
    return {
        "window_ns": number(pair.after, "window_ns"),
        "status_span_ns": status_span_ns(pair),
        "loader_cpu_millicores": millicores(pair, difference(pair, "loader", "cpu_ns")),
        "bpf_cpu_millicores": bpf_millicores(pair),
        "host_cpu_ppm": cpu_busy_ppm(pair.after),
        "features": features,
    }


def own_checks(pair: Pair) -> list[Judgement]:
    """The user's checks over {before, after, rates} of one host."""
    if not pair.inputs.expressions:
        return []
    document = {"before": pair.before, "after": pair.after, "rates": rates(pair)}
    return [_judge_expression(pair, one, document) for one in pair.inputs.expressions]


def _judge_expression(pair: Pair, one: Json, document: Json) -> Judgement:
    upper = one.get("max") is not None
    limit = one["max"] if upper else one["min"]
    name, unit = one["name"], one.get("unit")
    value, wrong = _evaluate(pair, one["expression"], document)
    if wrong is not None:
        said = f"{pair.host}: {name}: {wrong}"
        return Judgement(pair.host, None, name, INCONCLUSIVE, None, limit, unit, said)
    good = value <= limit if upper else value >= limit
    bound = "at most" if upper else "at least"
    said = f"{pair.host}: {name} is {value}, {bound} {limit} is allowed"
    return Judgement(pair.host, None, name, PASS if good else FAIL, value, limit, unit, said)


def _evaluate(pair: Pair, expression: str, document: Json) -> tuple[Any, str | None]:
    if pair.inputs.search is None:
        return None, "no JMESPath at hand"
    try:
        value = pair.inputs.search(expression, document)
    except ValueError as error:
        return None, f"the expression could not be evaluated: {error}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None, f"the expression gave {value!r}, which is not a number"
    return value, None
