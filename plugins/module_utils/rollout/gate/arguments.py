# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's arguments: limits, expectations, contracts and the operator's own checks, each refused by name. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import PROFILE_RANK, Expectation, Json, get
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import (
    DEFAULT_LIMITS,
    LIMITS,
    NAMES,
    SWITCHES,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.spending import Budget
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import FEATURE_NAME, FEATURES_LIMIT

_COUNT = values.whole()
_RATE = values.decimal(0.000001, 0.5)
_NUMBER = values.whole(1, 1_000_000)
_BOUND = values.decimal(-(10**15))

# What a limit's unit means, for whoever gave a value that cannot be used.
_UNITS = {
    "ppm": "parts per million",
    "millicores": "1000 is one core",
    "ns": "nanoseconds",
    "bytes": "bytes",
}


class GateInputError(OneCodeError):
    """An argument of the gate is wrong; the message names argument, value and remedy."""

    code = "EF_ARGUMENT"


def check_limits(given: Json | None) -> dict[str, Any]:
    """The default limits with the given ones over them, or GateInputError."""
    limits = dict(DEFAULT_LIMITS)
    for name, value in (given or {}).items():
        refuse_unknown("limits", name, DEFAULT_LIMITS)
        limits[name] = _limit_value(name, value)
    return limits


def _limit_value(name: str, value: Any) -> Any:
    if value is None and DEFAULT_LIMITS[name] is None:
        return None
    where = f"limits.{name}"
    try:
        return values.truth(where, value) if name in SWITCHES else _COUNT(where, value)
    except values.RefusedValueError as error:
        unit = "" if name in SWITCHES else f"; the unit is {_UNITS.get(str(LIMITS[name].unit), 'a count')}"
        raise GateInputError(f"{error}{unit}") from error


def refuse_unknown(where: str, name: str, known: Any) -> None:
    """GateInputError with the nearest known name, if the name is not known."""
    if isinstance(name, str) and name in known:
        return
    name = printable(name, 100)
    near = difflib.get_close_matches(name, [str(one) for one in known], 1, 0.4)
    hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(known))
    raise GateInputError(f"{where}: unknown name {name!r}; {hint}")


def check_policies(given: Json | None, extra: Sequence[str] = ()) -> dict[str, str]:
    """{check: hold | pass} for inconclusive checks; `extra` names the user's own checks."""
    policies = {}
    for name, policy in (given or {}).items():
        refuse_unknown("on_inconclusive", name, NAMES + tuple(extra))
        if policy not in ("hold", "pass"):
            raise GateInputError(f"on_inconclusive.{name}: {policy!r}; say hold or pass")
        policies[name] = policy
    return policies


def check_dry_run(given: Sequence[Any] | None, extra: Sequence[str] = ()) -> frozenset[str]:
    """Names of checks that stop nothing; `extra` names the user's own checks."""
    for name in given or []:
        refuse_unknown("dry_run", name, NAMES + tuple(extra))
    return frozenset(given or [])


def check_budget(error_rate: Any, batches: Any, readings: Any, reading: Any) -> Budget:
    """What the rank tests may spend, or GateInputError."""
    try:
        found = Budget(
            error_rate=_RATE("error_rate", error_rate),
            batches=_NUMBER("batches", batches),
            readings=_NUMBER("readings", readings),
            reading=_NUMBER("reading", reading),
        )
    except values.RefusedValueError as error:
        raise GateInputError(str(error)) from error
    if found.reading > found.readings:
        many = f"{found.reading} of {found.readings}"
        raise GateInputError(f"reading: is {many}; give at most as many as are planned")
    return found


def check_expected(given: Json | None) -> dict[str, dict[str, Expectation]]:
    """{host or "*": {feature: expectation}}, out of profiles' names and predictions."""
    expected = {}
    for host, features in (given or {}).items():
        if not isinstance(features, Mapping):
            raise GateInputError(f"expected.{host}: must map features to the least profile that is enough")
        expected[host] = {name: _expectation(f"expected.{host}.{name}", one) for name, one in features.items()}
    return expected


def check_predictions(given: Json) -> dict[str, dict[str, Expectation]]:
    """As `check_expected`, of what hosts answered: the number of features and their names are bounded too."""
    for host, features in given.items():
        names = list(features) if isinstance(features, Mapping) else []
        if len(names) > FEATURES_LIMIT:
            raise GateInputError(f"expected.{host}: {len(names)} features; at most {FEATURES_LIMIT} are judged")
        bad = next((name for name in names if re.fullmatch(FEATURE_NAME, str(name)) is None), None)
        if bad is not None:
            raise GateInputError(f"expected.{host}: {printable(bad, 60)!r} is not a feature's name")
    return check_expected(given)


def _expectation(where: str, one: Any) -> Expectation:
    predicted = isinstance(one, Mapping)
    profile = one.get("profile") if predicted else one
    refuse_unknown(where, profile, PROFILE_RANK)
    return Expectation(profile, not predicted)


def check_contracts(given: Sequence[Json] | None) -> dict[str, Json]:
    """Contracts by feature."""
    contracts = {}
    for contract in given or []:
        budget = get(contract, "budget")
        if not isinstance(get(contract, "feature"), str) or not isinstance(budget, Mapping):
            raise GateInputError("contracts: each needs `feature` and `budget`; pass contract.json as built")
        contracts[contract["feature"]] = contract
    return contracts


def check_expressions(given: Sequence[Json] | None) -> list[Json]:
    """The user's own checks: name, expression and one of max and min."""
    names: set[str] = set()
    found: list[Json] = []
    for one in given or []:
        name = get(one, "name")
        if not isinstance(name, str) or not name or not isinstance(get(one, "expression"), str):
            raise GateInputError("extra_checks: each needs `name`, `expression` and one of `max` and `min`")
        for key in one:
            refuse_unknown(f"extra_checks.{name}", key, ("name", "expression", "max", "min", "unit"))
        if name in names or name in NAMES:
            raise GateInputError(f"extra_checks.{name}: the name is taken; choose another")
        found.append(_with_bound(name, one))
        names.add(name)
    return found


def _with_bound(name: str, one: Json) -> Json:
    bounds = [key for key in ("max", "min") if one.get(key) is not None]
    if len(bounds) != 1:
        raise GateInputError(f"extra_checks.{name}: give one of max and min")
    try:
        return {**one, bounds[0]: _BOUND(f"extra_checks.{name}.{bounds[0]}", one[bounds[0]])}
    except values.RefusedValueError as error:
        raise GateInputError(str(error)) from error
