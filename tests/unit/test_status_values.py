# SPDX-License-Identifier: GPL-3.0-or-later
"""A status and an observation field by field: which may be null, which must be there, and both ends of each limit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import observation_fault, status_fault

ID = 2**32 - 1
STATUS: dict[str, Any] = {
    "schema": "ebpf.fleet/status/v1",
    "boot_id": "b",
    "boottime_ns": 1,
    "pid": 2,
    "started_boottime_ns": 3,
    "state": "running",
    "bundle": {"digest": "ab" * 32, "name": "n", "version": "v", "sequence": 4},
    "loader": {"cpu_ns": 5, "rss_bytes": 6, "map_memory_bytes": 7},
    "features": {
        "f": {
            "wanted": True,
            "state": "attached",
            "profile": "full",
            "programs": [{"name": "p", "id": 8, "tag": "t", "run_cnt": 9, "run_time_ns": 10, "verified_insns": 11}],
            "counters": {"produced": 1, "delivered": 2, "dropped": 3, "sampled_out": 4, "in_flight": 5},
            "consumer": {"lag_bytes": 1, "ring_bytes": 2, "lag_ns": 3, "lost": 4, "unwritten": 5, "backpressure": {}},
            "variant": "ring",
            "reason_code": "EF_OK",
            "reason": "fine",
            "sample_every": 1,
            "links": [12],
            "maps": [{"name": "m", "type": "hash", "memory_bytes": 1, "id": 2, "max_entries": 3, "entries": 4}],
            "series": {"entries": 1, "max_entries": 2, "unkept": 3},
            "degraded": {"step": "sampling", "reason_code": "EF_X", "reason": "why", "steps": 1},
        }
    },
    "time_unix_ns": 13,
    "loader_version": "1",
    "kernel": {},
    "reason_code": "EF_OK",
    "reason": "fine",
    "kills": [{"scope": "global", "path": "/x"}],
    "kill_unknown": ["/y"],
    "desired_error": "d",
    "policy_error": "p",
    "stats_enabled": True,
    "audit_lost": 14,
    "shipping": {},
    "trust": {"ok": True, "reason_code": "EF_OK", "reason": "fine"},
    "clock_known": True,
    "lease": {"expired": False},
    "privileges": {},
    "collector": {
        "pid": 15,
        "boottime_ns": 16,
        "loader": {"cpu_ns": 1, "rss_bytes": 2, "map_memory_bytes": 3},
        "cost": {"cpu_ns": 4, "rss_bytes": 5, "map_memory_bytes": 6},
        "features": ["f"],
        "started_boottime_ns": 17,
        "boot_id": "b",
    },
}
F = "features.f"
NULLABLE = {
    "started_boottime_ns", "bundle", "features", "kernel", "reason", "desired_error", "policy_error", "shipping",
    "trust", "trust.reason", "lease", "lease.expired", "privileges", "collector.started_boottime_ns", f"{F}.counters",
    f"{F}.consumer", f"{F}.variant", f"{F}.reason", f"{F}.links.0", f"{F}.series", f"{F}.degraded",
    f"{F}.degraded.reason", f"{F}.consumer.backpressure",
    *(f"{place}.{name}" for place in ("loader", "collector.loader", "collector.cost")
      for name in ("cpu_ns", "rss_bytes", "map_memory_bytes")),
    *(f"{F}.programs.0.{name}" for name in ("id", "tag", "run_cnt", "run_time_ns", "verified_insns")),
    *(f"{F}.counters.{name}" for name in ("produced", "delivered", "dropped", "sampled_out", "in_flight")),
    *(f"{F}.consumer.{name}" for name in ("lag_bytes", "ring_bytes", "lag_ns", "lost", "unwritten")),
    *(f"{F}.maps.0.{name}" for name in ("memory_bytes", "id", "max_entries", "entries")),
    *(f"{F}.series.{name}" for name in ("entries", "max_entries", "unkept")),
}  # fmt: skip
NEEDED = {
    "schema", "boot_id", "boottime_ns", "pid", "started_boottime_ns", "state", "bundle", "features", "loader",
    "bundle.digest", "kills.0.scope",
    *(f"{place}.{name}" for place in ("loader", "collector.loader", "collector.cost")
      for name in ("cpu_ns", "rss_bytes", "map_memory_bytes")),
    *(f"collector.{name}" for name in ("pid", "boottime_ns", "loader", "cost", "features")),
    *(f"{F}.{name}" for name in ("wanted", "state", "profile", "programs", "counters", "consumer")),
    f"{F}.programs.0.name", f"{F}.programs.0.id",
    *(f"{F}.counters.{name}" for name in ("produced", "delivered", "dropped", "sampled_out", "in_flight")),
    f"{F}.consumer.lag_bytes", f"{F}.consumer.ring_bytes",
    *(f"{F}.maps.0.{name}" for name in ("name", "type", "memory_bytes")),
    *(f"{F}.degraded.{name}" for name in ("step", "reason_code", "reason", "steps")),
}  # fmt: skip


def paths(value: Any, at: str = "") -> list[str]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path for key, child in below for path in paths(child, f"{at}.{key}" if at else str(key))]
    return ([at] if at else []) + found


PATHS = sorted(set(paths(STATUS)) - {F})
GONE = object()


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with another value at a path; GONE takes the field away."""
    made = copy.deepcopy(document)
    *above, last = path.split(".")
    place: Any = made
    for word in above:
        place = place[int(word)] if isinstance(place, list) else place[word]
    key: Any = int(last) if isinstance(place, list) else last
    if value is GONE:
        del place[key]
    else:
        place[key] = value
    return made


def test_a_whole_status_is_good_and_every_field_is_known() -> None:
    assert status_fault(STATUS) is None
    assert set(PATHS) >= NULLABLE | NEEDED, "the lists name fields that are not there"


@pytest.mark.parametrize("path", PATHS)
def test_only_what_need_not_be_measured_may_be_null(path: str) -> None:
    fault = status_fault(changed(STATUS, path, None))
    assert (fault is None) is (path in NULLABLE), fault


@pytest.mark.parametrize("path", [path for path in PATHS if not path.rpartition(".")[2].isdigit()])
def test_only_what_is_not_needed_may_be_missing(path: str) -> None:
    fault = status_fault(changed(STATUS, path, GONE))
    assert (fault is None) is (path not in NEEDED), fault


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("schema", [], ["ebpf.fleet/status/v2", 1]),
        ("state", ["idle", "killed", "refused"], ["attached", ""]),
        ("pid", [1, 1 << 22], [0, (1 << 22) + 1, True, "2"]),
        ("collector.pid", [1, 1 << 22], [0, (1 << 22) + 1]),
        ("boottime_ns", [0], [-1, 0.5]),
        ("boot_id", ["x" * 256], ["x" * 257, 1]),
        ("bundle.digest", ["cd" * 32], ["cd" * 31, "CD" * 32, "cd" * 33]),
        ("kills", [[], [{"scope": "x" * 1000, "path": "p" * 4096}], [{"scope": "x"}] * 1024],
         [[{"scope": "x" * 1001}], [{"scope": "x", "path": "p" * 4097}], [{"scope": "x"}] * 1025, [1]]),
        ("kill_unknown", [["x" * 4096], ["x"] * 1024], [["x" * 4097], ["x"] * 1025, "x"]),
        ("reason", ["x" * 4096], ["x" * 4097]),
        ("desired_error", ["x" * 4096], ["x" * 4097]),
        ("policy_error", ["x" * 4096], ["x" * 4097]),
        ("collector.features", [[], ["x" * 128], ["x"] * 256], [["x" * 129], ["x"] * 257]),
        ("features", [{}, {"n" * 128: STATUS["features"]["f"]}],
         [{"n" * 129: STATUS["features"]["f"]}, {"a b": STATUS["features"]["f"]}, []]),
        (f"{F}.state", ["off", "killed", "disabled", "shed"], ["running"]),
        (f"{F}.profile", ["reduced", "disabled"], ["attached"]),
        (f"{F}.wanted", [False], [0, 1]),
        (f"{F}.programs.0.id", [0, ID], [-1, ID + 1]),
        (f"{F}.programs.0.tag", ["x" * 64], ["x" * 65]),
        (f"{F}.links", [[0, ID], [], [1] * 1024], [[-1], [ID + 1], [1] * 1025]),
        (f"{F}.counters.dropped", [0, 2**63 - 1], [-1, 1.5, "1"]),
    ],
)  # fmt: skip
def test_each_limit_has_two_sides(path: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert status_fault(changed(STATUS, path, value)) is None, value
    for value in bad:
        fault = status_fault(changed(STATUS, path, value))
        assert fault is not None and path.split(".")[0] in fault, value


@pytest.mark.parametrize(("count", "fine"), [(256, True), (257, False)])
def test_a_status_may_have_256_features(count: int, fine: bool) -> None:
    features = {f"f{number}": STATUS["features"]["f"] for number in range(count)}
    assert (status_fault({**STATUS, "features": features}) is None) is fine


SNAPSHOT = {"host": {}, "unit": None, "status": STATUS, "status_age_ns": 1}
OBSERVATION = {
    "schema": "ebpf.fleet/observation/v1", "window_ns": 1, "start": SNAPSHOT, "end": copy.deepcopy(SNAPSHOT),
    "host": "h", "boot_id": "b",
}  # fmt: skip


@pytest.mark.parametrize("end", ["start", "end"])
def test_an_observation_is_as_good_as_both_of_its_ends(end: str) -> None:
    assert observation_fault(OBSERVATION) is None
    assert observation_fault(changed(OBSERVATION, f"{end}.status", None)) is None
    assert observation_fault(changed(OBSERVATION, f"{end}.status.pid", 0)) is not None
    for name in ("host", "unit", "status", "status_age_ns"):
        assert observation_fault(changed(OBSERVATION, f"{end}.{name}", GONE)) is not None
    assert observation_fault(changed(OBSERVATION, f"{end}.status_age_ns", None)) is None


@pytest.mark.parametrize("name", ["schema", "window_ns", "start", "end"])
def test_what_an_observation_needs(name: str) -> None:
    assert observation_fault(changed(OBSERVATION, name, GONE)) is not None
    assert observation_fault(changed(OBSERVATION, name, None)) is not None
    assert observation_fault(changed(OBSERVATION, "host", GONE)) is None
