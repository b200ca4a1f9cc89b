# SPDX-License-Identifier: GPL-3.0-or-later
"""The two-minute soak; `make soak` runs the long one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.loader.bundles import Trust
from tests.loader.conftest import feature_objects, loader, signing_key, trust
from tests.soak.__main__ import BUILD, say
from tests.soak.account import Account
from tests.soak.process import slope
from tests.soak.soak import Plan, soak

__all__ = ["feature_objects", "loader", "signing_key", "trust"]
SEED = int(os.environ.get("EBPF_FLEET_SEED", str(time.time_ns() % 100_000)))


@pytest.mark.slow
def test_two_minutes_of_faults(loader: Path, feature_objects: Path, tmp_path: Path, trust: Trust) -> None:
    report = soak(loader, feature_objects, tmp_path / "host", trust, Plan(seconds=100, every=8, seed=SEED))
    out = BUILD / "soak"
    out.mkdir(parents=True, exist_ok=True)
    (out / "short.json").write_text(json.dumps(report, indent=1) + "\n")
    say(report)
    assert report["violations"] == []
    assert len(set(report["faults"])) >= 9, "each kind of fault at least once"
    assert report["counters"]["soak_calls"]["produced"] > 50_000
    assert report["counters"]["soak_calls"]["dropped"] > 0, "the faults were felt"
    assert sum(len(each["checked"]) for each in report["rests"]) >= 10


def status_of(state: str = "attached", code: str = "EF_OK", **counters: int) -> dict[str, object]:
    numbers = {key: counters.get(key, 0) for key in ("produced", "delivered", "dropped", "sampled_out", "in_flight")}
    feature = {"state": state, "reason_code": code, "reason": "because", "counters": numbers}
    return {"features": {"one": {**feature, "programs": [], "maps": [], "links": []}}}


def judged(*statuses: dict[str, object], may: frozenset[str] = frozenset()) -> str:
    """The violations that a soak would report of these statuses."""
    account = Account()
    for second, status in enumerate(statuses):
        account.take(status, may, float(second))
    return "\n".join(account.violations)


def test_the_account_sees_what_is_wrong() -> None:
    """A soak that cannot fail proves nothing."""
    good = status_of(produced=5, delivered=4, in_flight=1)
    assert judged(good, good) == ""
    assert "not exact" in judged(status_of(produced=5, delivered=4))
    assert "not exact" in judged(status_of(produced=5, delivered=6, in_flight=-1))
    assert "backwards" in judged(status_of(produced=5, delivered=5), status_of(produced=4, delivered=4))
    lossy = status_of(produced=6, delivered=4, dropped=2)
    assert "no fault that explains" in judged(good, lossy)
    assert judged(good, lossy, may=frozenset({"drops"})) == ""
    assert "which no fault explains" in judged(status_of("killed", "EF_KILLED_GLOBAL"))
    assert judged(status_of("killed", "EF_KILLED_GLOBAL"), may=frozenset({"EF_KILLED_GLOBAL"})) == ""
    assert "disabled" in judged(status_of("disabled", "EF_LOAD_REJECTED"), may=frozenset({"EF_LOAD_REJECTED"}))
    assert "in flight" in judged(status_of("off", "EF_UNKNOWN", produced=1, in_flight=1))


def test_a_degradation_has_to_say_why() -> None:
    def with_(degraded: dict[str, object]) -> dict[str, object]:
        status = status_of()
        status["features"]["one"]["degraded"] = {"step": "sampling", **degraded}  # type: ignore[index]
        return status

    whole = {"reason_code": "EF_BUDGET_CPU", "reason": "too dear", "measured": 7, "limit": 5}
    assert judged(with_(whole)) == ""
    for part in ({"measured": None}, {"limit": None}, {"reason": ""}, {"reason_code": "EF_OK"}):
        assert "without reason" in judged(with_({**whole, **part})), part


def test_the_slope_of_a_leak() -> None:
    assert slope([(0, 10), (1, 12), (2, 14)]) == 2
    assert slope([(0, 10), (1, 10)]) is None
    assert slope([(1, 1), (1, 2), (1, 3)]) is None
