# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds each status of the loader against the ones before it and against what was done to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator

from tests.loader.service import total
from tests.soak.faults import DROPS

GROWING = ("produced", "delivered", "dropped", "sampled_out")
AT_REST = ("killed", "off", "shed")  # states that a fault or a budget may bring about


@dataclass
class Account:
    """What was seen so far. `violations` is the verdict: a run is good when it is empty."""

    violations: list[str] = field(default_factory=list)
    degradations: list[dict[str, Any]] = field(default_factory=list)
    statuses: int = 0
    _last: dict[str, dict[str, int]] = field(default_factory=dict)
    _states: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)
    ids: dict[str, set[int]] = field(default_factory=lambda: {"programs": set(), "maps": set(), "links": set()})

    def take(self, status: dict[str, Any], may: frozenset[str], second: float) -> None:
        """Judge one status; `may` is what the faults of the last moments may bring about."""
        self.statuses += 1
        for name, feature in status["features"].items():
            problems = [*self._sums(name, feature, may), *self._explained(name, feature, may, second)]
            self.violations += [f"{second:.1f} s: {name}: {each}" for each in problems]
            self._last[name] = feature["counters"]
            self._remember(feature)

    def _remember(self, feature: dict[str, Any]) -> None:
        for kind in ("programs", "maps"):
            self.ids[kind] |= {each["id"] for each in feature[kind]}
        self.ids["links"] |= set(feature["links"])

    def _sums(self, name: str, feature: dict[str, Any], may: frozenset[str]) -> Iterator[str]:
        counters, before = feature["counters"], self._last.get(name)
        if counters["produced"] != total(counters) or min(counters.values()) < 0:
            yield f"the sum is not exact: {counters}"
        if feature["state"] != "attached" and counters["in_flight"]:
            yield f"{feature['state']}, and yet something is in flight: {counters}"
        if before is None:
            return
        for key in GROWING:
            if counters[key] < before[key]:
                yield f"{key} went backwards, {before[key]} to {counters[key]}"
        if counters["dropped"] > before["dropped"] and not self._may_drop(name, feature, may):
            yield f"{counters['dropped'] - before['dropped']} events were dropped with no fault that explains it"

    def _may_drop(self, name: str, feature: dict[str, Any], may: frozenset[str]) -> bool:
        """A detach drops what still has no outcome, as the contract says: waits of runqlat, connections that begin."""
        detached = feature["state"] != "attached" or bool(feature.get("degraded")) or bool(may - {DROPS})
        ongoing = name == "runqlat" and detached
        return DROPS in may or ongoing

    def _explained(self, name: str, feature: dict[str, Any], may: frozenset[str], second: float) -> Iterator[str]:
        degraded = feature.get("degraded")
        now = (feature["state"], feature["reason_code"], degraded["step"] if degraded else None)
        if now != self._states.get(name):
            self._states[name] = now
            self.degradations.append(
                {"second": round(second, 1), "feature": name, "state": now[0], "reason_code": now[1],
                 "reason": feature["reason"], "degraded": degraded}
            )  # fmt: skip
        if not feature["reason_code"] or not feature["reason"]:
            yield f"{feature['state']} without a reason"
        if degraded and not self._says_why(degraded):
            yield f"degraded without reason, measure and limit: {degraded}"
        known = may | {"EF_UNKNOWN"}  # that is: about to be attached
        if feature["state"] in AT_REST and not degraded and feature["reason_code"] not in known:
            yield f"{feature['state']} by {feature['reason_code']}, which no fault explains"
        if feature["state"] == "disabled":
            yield f"disabled: {feature['reason']} ({feature['reason_code']})"

    @staticmethod
    def _says_why(degraded: dict[str, Any]) -> bool:
        known = isinstance(degraded["measured"], int) and isinstance(degraded["limit"], int)
        return (
            known
            and degraded["measured"] >= degraded["limit"]
            and str(degraded["reason_code"]).startswith("EF_BUDGET_")
            and bool(degraded["reason"])
        )
