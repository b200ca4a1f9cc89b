# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of the gate by its record: the values on both sides of each boundary, and what was not measured."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import policy_ready
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments as gate_arguments
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import CHECKS, DEFAULT_LIMITS, NAMES
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.record import FLEET, SCOPES

from tests.unit import test_gate_witness
from tests.unit.test_gate import CONTRACTS, EXEC, SECOND, check, judge, observation, spend, spoil
from tests.unit.test_gate_witness import SEEN, both_ends

ROOT = Path(__file__).resolve().parents[2]
Observation = dict[str, Any]
HELD, PASSED, FAILED = "inconclusive", "pass", "fail"


# --- the records ---------------------------------------------------------------------------------


def test_a_record_is_whole() -> None:
    assert len(set(NAMES)) == len(CHECKS) and {one.scope for one in CHECKS} == set(SCOPES)
    for one in CHECKS:
        assert one.what and one.step and callable(one.judge), one.name
        # What has a limit of its own has the words to say by how much it is over.
        assert (one.limit is None and one.fallback is None) or (one.sentence and one.unit), one.name
        # Without any limit it could never pass, unless it is then not judged.
        assert not one.sentence or one.default is not None or one.fallback or one.optional, one.name
    limits = [name for one in CHECKS for name in (one.limit, one.switch) if name]
    assert sorted(limits) == sorted(DEFAULT_LIMITS) and len(set(limits)) == len(limits)


def test_the_defaults_are_these() -> None:
    """Changing one is a decision, seen here and on the page."""
    assert {name: value for name, value in DEFAULT_LIMITS.items() if value is not None} == {
        "status_age_ns": 30_000_000_000, "loader_restarts": 0, "loader_cpu_millicores": 50,
        "host_cpu_delta_ppm": 50_000, "host_memory_delta_bytes": 134_217_728, "degradation_steps": 0,
        "accounting_error_events": 0, "map_fill_ppm": 900_000, "consumer_lag_ppm": 800_000, "require_events": False,
        "host_outliers_ppm": 50_000, "host_cpu_shift_ppm": 10_000,
        "host_memory_shift_bytes": 33_554_432, "pressure_cpu_shift_ppm": 10_000,
        "pressure_memory_shift_ppm": 10_000, "pressure_io_shift_ppm": 10_000, "application_p95_shift_ppm": 50_000,
        "application_p99_shift_ppm": 50_000,
    }  # fmt: skip


def test_a_release_that_vouches_for_a_policy_feature_is_as_fresh_as_one_that_passes() -> None:
    """Facts are below the rollout, so the number stands there too."""
    assert {"status_age_ns": DEFAULT_LIMITS["status_age_ns"]} == policy_ready.DEFAULT_LIMITS


@pytest.mark.parametrize("name", ["ebpf_fleet_gate_limits", "ebpf_fleet_on_inconclusive"])
def test_limits_and_checks_that_files_give_as_examples_are_the_gates(name: str) -> None:
    accept = {"ebpf_fleet_gate_limits": gate_arguments.check_limits,
              "ebpf_fleet_on_inconclusive": gate_arguments.check_policies}[name]  # fmt: skip
    found = 0
    for path in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("roles/**/*.md"), *ROOT.glob("**/*.yml")]:
        if path.is_relative_to(ROOT / "build") or path.is_relative_to(ROOT / "collections"):
            continue
        for text in re.findall(rf"^{name}: (\{{.+\}})$", path.read_text(encoding="utf-8"), re.M):
            accept(yaml.safe_load(text))
            found += 1
    assert found, "the page has an example"


# --- numbers: (what was observed, measured, verdict) by check, on both sides of its limit ----------


def after(change: Callable[[Observation], Any]) -> Observation:
    found = observation()
    change(found)
    return found


def counters(**values: int | None) -> Observation:
    counted = dict(produced=0, delivered=0, dropped=0, sampled_out=0, in_flight=0)
    return spoil(EXEC + "counters", {**counted, **values})


def earlier(path: str, value: Any) -> Observation:
    """A healthy observation with one value of its start changed."""
    return spoil(path, value, "start")


def programs(spent_ns: int) -> Observation:
    found = observation()
    for part in (found["end"]["status"]["features"]["exec_events"], found["end"]["witness"]["loader"]):
        part["programs"][0]["run_time_ns"] = spent_ns
    return found


UNTIMED = spoil(EXEC + "programs/0/run_time_ns", None)


def maps(*sizes: int | None) -> Observation:
    return spoil(EXEC + "maps", [{"name": "m", "type": "array", "memory_bytes": size} for size in sizes])


def one_map(kind: str, entries: int | None, most: int | None) -> Observation:
    return spoil(EXEC + "maps", [{"name": "seen", "type": kind, "max_entries": most, "entries": entries,
                                  "memory_bytes": 1}])  # fmt: skip


def lag(unread: int | None, ring: int | None) -> Observation:
    return spoil(EXEC + "consumer", {"lag_bytes": unread, "ring_bytes": ring})


def busy(ppm: int) -> Observation:
    """So much busier than before, of which a tenth was busy."""
    return after(lambda found: found["end"]["host"].update(cpu_busy_ns=11 * SECOND + ppm * 10_000))


def free(lost: int) -> Observation:
    return spoil("host/memory_available_bytes", 10**9 - lost)


def thinned(steps: int) -> Observation:
    return spoil(EXEC + "degraded", {"step": "sampling", "steps": steps, "reason_code": "EF_BUDGET_CPU", "reason": "r"})


MIB128 = 134_217_728
# The window is 10 s: 1 millicore is 10 ms of CPU. Measured is rounded up, so that one ns over the limit is over it.
CASES: dict[str, list[tuple[Observation, int | None, str]]] = {
    "status_fresh": [(spoil("status_age_ns", 30 * SECOND), 30 * SECOND, PASSED),
                     (spoil("status_age_ns", 30 * SECOND + 1), 30 * SECOND + 1, HELD),
                     (spoil("status_age_ns", 0), 0, PASSED), (spoil("status_age_ns", None), None, HELD)],
    "loader_restarts": [(observation(), 0, PASSED), (spoil("unit/n_restarts", 1), 1, FAILED),
                        (earlier("unit/n_restarts", 1), None, HELD), (spoil("unit/n_restarts", None), None, HELD),
                        (earlier("unit", None), None, HELD)],
    "loader_cpu": [(spend(observation(), 500_000_000, 1), 50, PASSED),
                   (spend(observation(), 500_000_001, 1), 51, FAILED),
                   (spoil("status/loader/cpu_ns", 500_000_001), 51, FAILED), (spend(observation(), 0, 1), 0, PASSED),
                   (spoil("status/loader/cpu_ns", None), None, HELD),
                   (earlier("status/loader/cpu_ns", 10_000_001), None, HELD),
                   (spoil("status/pid", 8), None, HELD)],
    "bpf_cpu": [(programs(200_000_000), 20, PASSED), (programs(200_000_001), 21, FAILED), (programs(0), 0, PASSED),
                (UNTIMED, None, HELD), (earlier(EXEC + "programs/0/run_time_ns", 1_000_001), None, HELD),
                (earlier(EXEC + "programs/0/run_time_ns", None), None, HELD)],
    "feature_cpu": [(programs(200_000_000), 20, PASSED), (programs(200_000_001), 21, FAILED), (programs(0), 0, PASSED),
                    (UNTIMED, None, HELD), (earlier(EXEC + "programs/0/run_time_ns", 1_000_001), None, HELD),
                    (spoil(EXEC + "programs", []), None, HELD)],
    "total_cpu": [(spend(observation(), 500_000_000, 200_000_000), 70, PASSED),
                  (spend(observation(), 500_000_000, 200_000_001), 71, FAILED),
                  (spend(observation(), 500_000_001, 200_000_000), 71, FAILED),
                  (spoil("status/loader/cpu_ns", None), None, HELD), (UNTIMED, None, HELD)],
    "host_cpu_delta": [(busy(50_000), 50_000, PASSED), (busy(50_001), 50_001, FAILED),
                       (busy(-100_000), -100_000, PASSED),
                       # Busy all the time is measured; one ns more than there was is not.
                       (spoil("host/cpu_busy_ns", 20 * SECOND), 900_000, FAILED),
                       (spoil("host/cpu_busy_ns", 20 * SECOND + 1), None, HELD),
                       (spoil("host/cpu_busy_ns", 10 * SECOND - 1), None, HELD),
                       (spoil("host/cpu_total_ns", 100 * SECOND), None, HELD),
                       (earlier("host/cpu_total_ns", None), None, HELD)],
    "host_memory_delta": [(free(MIB128), MIB128, PASSED), (free(MIB128 + 1), MIB128 + 1, FAILED),
                          (free(-1), -1, PASSED),
                          (free(0), 0, PASSED), (spoil("host/memory_available_bytes", None), None, HELD)],
    "degradation": [(observation(), 0, PASSED), (thinned(0), 0, PASSED), (thinned(1), 1, FAILED)],
    # 10,000 ppm of what sampling let pass, not of what was produced.
    "drop_ratio": [(counters(produced=100, delivered=99, dropped=1), 10_000, PASSED),
                   (counters(produced=99, delivered=98, dropped=1), 10_102, FAILED),
                   (counters(produced=199, delivered=98, dropped=1, sampled_out=100), 10_102, FAILED),
                   (counters(produced=200, delivered=99, dropped=1, sampled_out=100), 10_000, PASSED),
                   (counters(produced=1, delivered=1), 0, PASSED), (counters(produced=1, dropped=1), 10**6, FAILED),
                   (counters(), None, "not_exercised"), (counters(dropped=1), None, HELD),
                   (counters(produced=9, sampled_out=9), None, "not_exercised"),
                   (counters(produced=None), None, HELD), (counters(produced=9, dropped=None), None, HELD),
                   (earlier(EXEC + "counters/dropped", 1), None, HELD),
                   (earlier(EXEC + "counters/produced", 901), None, HELD)],
    # Of what was delivered: what sampling held back or the ring dropped costs no consumer.
    "event_rate": [(counters(produced=1000, delivered=1000), 100, PASSED),
                   (counters(produced=1001, delivered=1001), 101, FAILED),
                   (counters(produced=9000, delivered=1000, sampled_out=8000), 100, PASSED),
                   (counters(produced=9000, delivered=1001, sampled_out=7999), 101, FAILED),
                   (counters(produced=9000, delivered=0, dropped=9000), 0, PASSED), (counters(), 0, PASSED),
                   (counters(produced=9, delivered=None), None, HELD),
                   (earlier(EXEC + "counters/delivered", 901), None, HELD), (spoil("status/pid", 8), None, HELD)],
    "accounting": [(counters(produced=9, delivered=3, dropped=2, sampled_out=3, in_flight=1), 0, PASSED),
                   (counters(produced=9, delivered=3, dropped=2, sampled_out=3), 1, FAILED),
                   (counters(produced=8, delivered=3, dropped=2, sampled_out=3, in_flight=1), 1, FAILED),
                   *[(counters(**{"produced": 9, "delivered": 9, name: None}), None, HELD)
                     for name in ("produced", "delivered", "dropped", "sampled_out", "in_flight")],
                   (spoil(EXEC + "counters", None), None, HELD),
                   *[(earlier(EXEC + "counters/" + name, 901), None, HELD)
                     for name in ("produced", "delivered", "dropped", "sampled_out")]],
    "map_fill": [(one_map("hash", 90, 100), 900_000, PASSED), (one_map("hash", 91, 100), 910_000, FAILED),
                 (one_map("hash", 900_001, 10**6), 900_001, FAILED), (one_map("hash", 0, 100), 0, PASSED),
                 (one_map("percpu_hash", 100, 100), 10**6, FAILED)],
    "map_memory": [(maps(600, 400), 1000, PASSED), (maps(600, 401), 1001, FAILED), (maps(0), 0, PASSED),
                   (maps(), None, HELD), (maps(1, None), None, HELD)],
    "consumer_lag": [(lag(800, 1000), 800_000, PASSED), (lag(801, 1000), 801_000, FAILED),
                     (lag(800_001, 10**6), 800_001, FAILED), (lag(0, 1000), 0, PASSED),
                     (lag(1000, 1000), 10**6, FAILED),
                     (lag(None, 1000), None, HELD), (lag(1, None), None, HELD), (lag(0, 0), None, HELD)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "seen", "measured", "verdict"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_a_value_is_judged_for_what_it_is(name: str, seen: Observation, measured: int | None, verdict: str) -> None:
    found = check(judge(seen), name)
    assert (found["measured"], found["verdict"]) == (measured, verdict), found["sentence"]
    if verdict == FAILED:
        unit = found["unit"].removesuffix("s") if measured == 1 else found["unit"]
        assert found["sentence"].endswith(f" {measured} {unit}, over the limit of {found['limit']}")
    elif verdict == PASSED:
        assert found["sentence"].endswith(f"{measured} {found['unit']}, within the limit of {found['limit']}")


def test_every_check_with_a_limit_has_values_on_both_sides_of_it() -> None:
    """A new check needs its cases; those of all hosts (test_gate_shift.py) and the application's (test_gate.py) have
    tests of their own."""
    limited = {one.name for one in CHECKS if one.sentence and one.scope != FLEET}
    limited -= {"application_p95", "application_p99"}
    assert set(CASES) == limited
    for name, cases in CASES.items():
        verdicts = [verdict for _seen, _measured, verdict in cases]
        over = HELD if name == "status_fresh" else FAILED
        assert {PASSED, over} <= set(verdicts), name
        # A map that is not counted has no fill, and an account without its steps is refused as malformed.
        assert HELD in verdicts or name in ("map_fill", "degradation"), f"{name}: what was not measured is missing"


@pytest.mark.parametrize(("kind", "entries", "most"), [("array", None, 100), ("lru_hash", 100, 100), ("hash", 1, 0),
                                                       ("lru_percpu_hash", 9, 9), ("hash", 1, None)])  # fmt: skip
def test_a_map_that_is_meant_to_be_full_or_is_not_counted_has_no_fill(kind: str, entries: Any, most: Any) -> None:
    assert "map_fill" not in {one["check"] for one in judge(one_map(kind, entries, most))["checks"]}


@pytest.mark.parametrize("name", ["bpf_cpu", "total_cpu", "feature_cpu", "drop_ratio", "map_memory"])
def test_a_check_without_a_limit_holds_with_what_was_measured(name: str) -> None:
    found = check(judge(observation(), contracts=[]), name)
    assert (found["verdict"], found["limit"]) == (HELD, None) and found["measured"] is not None
    assert found["sentence"].endswith("has no limit; set one or pass the contracts")


def test_without_a_limit_a_rate_is_not_judged_and_a_set_one_outranks_the_contract() -> None:
    assert "event_rate" not in {one["check"] for one in judge(observation(), contracts=[])["checks"]}
    for name, limit in (("event_rate", "event_rate_per_second"), ("map_memory", "map_memory_bytes"),
                        ("bpf_cpu", "bpf_cpu_millicores"), ("total_cpu", "total_cpu_millicores"),
                        ("drop_ratio", "drop_ratio_ppm")):  # fmt: skip
        found = check(judge(observation(), limits={limit: 0}), name)
        assert found["limit"] == 0 and found["verdict"] == (PASSED if name == "drop_ratio" else FAILED), name


def test_a_feature_off_the_event_path_has_neither_rate_nor_lag() -> None:
    judged = {one["check"] for one in judge(spoil(EXEC + "consumer", None))["checks"]}
    assert judged & {"event_rate", "consumer_lag"} == set() and {"drop_ratio", "accounting"} <= judged


def test_an_object_of_third_parties_that_counts_nothing_is_not_judged_by_counts_it_does_not_have() -> None:
    third = [{**CONTRACTS[0], "origin": "third_party", "accounting": "none"}]
    nothing = spoil(EXEC + "counters", dict.fromkeys(("produced", "delivered", "dropped", "sampled_out", "in_flight")))
    for name in ("drop_ratio", "accounting"):
        found = check(judge(nothing, contracts=third), name)
        assert (found["verdict"], found["limit"]) == ("not_exercised", None)
        assert f"(accounting: none), {name} is not judged" in found["sentence"]
        # One that says so and counts is judged, and so is one that does not say so.
        assert check(judge(observation(), contracts=third), name)["verdict"] == PASSED
        for less in ({"origin": "third_party"}, {"accounting": "none"}):
            assert check(judge(nothing, contracts=[{**CONTRACTS[0], **less}]), name)["verdict"] == HELD


@pytest.mark.parametrize("start", ["active", "failed", "activating", None])
@pytest.mark.parametrize("end", ["active", "failed", "inactive", None])
def test_the_loader_must_be_active_at_both_ends(start: Any, end: Any) -> None:
    found = spoil("unit/active_state", end)
    found["start"]["unit"]["active_state"] = start
    expected = HELD if None in (start, end) else PASSED if start == end == "active" else FAILED
    judged = check(judge(found), "loader_active")
    assert (judged["verdict"], judged["measured"]) == (expected, end)
    assert expected != FAILED or f"the loader was {start}, then {end}" in judged["sentence"]


@pytest.mark.parametrize(("told", "wanted", "verdict"), [("d", "d", PASSED), ("d", "e", FAILED), ("e", "d", FAILED)])
def test_the_bundle_that_runs_is_the_one_that_is_brought(told: str, wanted: str, verdict: str) -> None:
    judged = judge(spoil("status/bundle", {"digest": told * 64}), digest=wanted * 64)
    assert check(judged, "release")["verdict"] == verdict
    assert "release" not in {one["check"] for one in judge(observation())["checks"]}


@pytest.mark.parametrize(
    ("told", "installed", "wanted", "verdict"),
    [("d", "d", "d", PASSED), ("d", "d", None, PASSED), ("d", "d", "e", FAILED), ("d", "e", "d", FAILED),
     ("d", "e", "e", FAILED), ("d", "e", None, FAILED), ("d", None, "d", HELD)],
)  # fmt: skip
def test_told_installed_and_planned_are_one_bundle(told: str, installed: Any, wanted: Any, verdict: str) -> None:
    found = spoil("status/bundle", {"digest": told * 64})
    found["end"]["witness"]["installed_digest"] = installed and installed * 64
    judged = check(judge(found, digest=wanted and wanted * 64), "witness_release")
    assert judged["verdict"] == verdict, judged["sentence"]


@pytest.mark.parametrize("state", ["disabled", "shed", "killed", "off"])
def test_of_a_feature_that_is_not_attached_only_its_profile_is_judged(state: str) -> None:
    judged = [one for one in judge(spoil(EXEC + "state", state))["checks"] if one["feature"] == "exec_events"]
    assert [(one["check"], one["verdict"]) for one in judged] == [("features_attached", FAILED)]


def test_a_feature_is_judged_only_where_it_is_expected() -> None:
    """What nobody expects has no checks of its own; what it costs counts for the host, and root's view of it stays."""
    other = observation()
    for end in ("start", "end"):
        features = other[end]["status"]["features"]
        features["stowaway"] = features["exec_events"]
    names = {(one["feature"], one["check"]) for one in judge(other)["checks"]}
    assert {check for feature, check in names if feature == "stowaway"} == {"witness_runs"}
    assert ("exec_events", "feature_cpu") in names


@pytest.mark.parametrize(("first", "verdict"), [(5_000_000, PASSED), (5_000_001, HELD)])
def test_a_program_that_went_backwards_is_not_hidden_by_one_that_ran(first: int, verdict: str) -> None:
    found = observation()
    for end, spent in (("start", (first, 0)), ("end", (5_000_000, 90_000_000))):
        feature = found[end]["status"]["features"]["exec_events"]
        (one,) = feature["programs"]
        feature["programs"] = [{**one, "id": number, "run_time_ns": spent[number - 1]} for number in (1, 2)]
    for name in ("feature_cpu", "bpf_cpu"):
        assert check(judge(found), name)["verdict"] == verdict


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("counted", [{}, {"produced": 9, "sampled_out": 9}])
def test_where_nothing_passed_only_required_events_hold(required: bool, counted: dict[str, int]) -> None:
    found = check(judge(counters(**counted), limits={"require_events": required}), "drop_ratio")
    assert (found["verdict"], found["limit"]) == (HELD if required else "not_exercised", 10_000)
    assert check(judge(observation(), limits={"require_events": required}), "drop_ratio")["verdict"] == PASSED


# --- services ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list("TtZXxRSDI"))
@pytest.mark.parametrize("end", ["start", "end"])
def test_a_process_that_does_not_run_at_either_end_fails(state: str, end: str) -> None:
    found = check(judge(spoil(SEEN + "main/state", state, end)), "witness_process")
    assert found["verdict"] == (FAILED if state in "TtZXx" else PASSED)


@pytest.mark.parametrize("name", ["loader", "collector"])
@pytest.mark.parametrize("end", ["start", "end"])
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda seen: None, PASSED),
        (lambda seen: seen.update(main_pid=0), FAILED),
        (lambda seen: seen["main"].update(state="Z"), FAILED),
        (lambda seen: seen["main"].update(state="X"), FAILED),
        (lambda seen: seen.update(pids=[4711]), FAILED),
        (lambda seen: seen.update(main=None), HELD),
    ],
)
def test_a_dead_service_does_not_count_as_alive(name: str, end: str, change: Any, verdict: str) -> None:
    found = test_gate_witness.TestCollector().with_collector()
    change(found[end]["witness"][name])
    checks = [one for one in judge(found)["checks"] if one["check"] == "witness_process"]
    by_name = dict(zip(("loader", "collector"), (one["verdict"] for one in checks)))
    other = {"loader": "collector", "collector": "loader"}[name]
    assert (by_name[name], by_name[other]) == (verdict, PASSED)


def test_a_collector_that_is_told_of_while_no_unit_runs_does_not_pass() -> None:
    found = test_gate_witness.TestCollector().with_collector()
    for end in ("start", "end"):
        found[end]["witness"]["collector"] = None
    verdict = judge(found)
    assert verdict["verdict"] == HELD
    held = [one["sentence"] for one in verdict["checks"] if one["check"] == "witness_pid" and one["verdict"] == HELD]
    assert held == ["h1: the unit of the collector could not be seen: systemd says that it does not run"]


@pytest.mark.parametrize("which", range(4))
def test_each_user_id_of_root_fails(which: int) -> None:
    uids = [990, 990, 990, 990]
    uids[which] = 0
    assert check(judge(spoil(SEEN + "main/uids", uids)), "witness_user")["verdict"] == FAILED


def later(told: int, seen: int) -> Observation:
    """CPU time of the loader's process: told and counted, of a start at which 10 s were told and counted."""
    found = spend(observation(), 10 * SECOND + told, 1_000_000)
    found["start"]["status"]["loader"]["cpu_ns"] = found["start"]["witness"]["loader"]["main"]["cpu_ns"] = 10 * SECOND
    found["end"]["witness"]["loader"]["main"]["cpu_ns"] = 10 * SECOND + seen
    return found


def early(told: int) -> Observation:
    """What is told at the end, where the kernel had counted 10 s already at the start."""
    found = later(0, SECOND)
    found["start"]["status"]["loader"]["cpu_ns"] = 0
    found["end"]["status"]["loader"]["cpu_ns"] = 10 * SECOND + told
    return found


def resident(told: int, seen: int) -> Observation:
    found = both_ends(SEEN + "rss_bytes", seen)
    found["end"]["status"]["loader"]["rss_bytes"] = told
    return found


def told_at(end_ns: int) -> Observation:
    return spoil("status/boottime_ns", end_ns)


def runs(told: int, seen: int) -> Observation:
    found = spoil(EXEC + "programs/0/run_cnt", told)
    found["end"]["witness"]["loader"]["programs"][0]["run_cnt"] = seen
    return found


WITNESSED: list[tuple[str, Observation, str]] = [
    ("witness_pid", spoil(SEEN + "main/started_boottime_ns", 20_000_001), PASSED),
    ("witness_pid", spoil(SEEN + "main/started_boottime_ns", 20_000_002), FAILED),
    ("witness_pid", spoil("status/started_boottime_ns", 20_000_001), PASSED),
    ("witness_pid", spoil("status/started_boottime_ns", 20_000_002), FAILED),
    ("witness_pid", spoil("status/pid", 8), FAILED),
    ("witness_cpu", later(1_050_000_000, SECOND), PASSED),
    ("witness_cpu", later(1_050_000_001, SECOND), FAILED),
    ("witness_cpu", early(-50_000_000), PASSED),
    ("witness_cpu", early(-50_000_001), FAILED),
    ("witness_memory", resident(4 << 20, (6 << 20) + (8 << 20)), PASSED),
    ("witness_memory", resident(4 << 20, (6 << 20) + (8 << 20) + 1), FAILED),
    ("witness_memory", resident(0, 8 << 20), PASSED),
    ("witness_memory", resident(0, (8 << 20) + 1), FAILED),
    # One s ahead of the clock is forgiven; an account must be 2 s younger than the start to be compared.
    ("witness_advance", told_at(111 * SECOND), PASSED),
    ("witness_advance", told_at(111 * SECOND + 1), FAILED),
    ("witness_runs", told_at(102 * SECOND), PASSED),
    ("witness_runs", told_at(102 * SECOND - 1), HELD),
    ("witness_advance", told_at(100 * SECOND), HELD),
    ("witness_advance", told_at(100 * SECOND + 1), PASSED),
    ("witness_advance", spoil(SEEN + "cpu_ns", 0), FAILED),
    ("witness_advance", spoil(SEEN + "cpu_ns", 1), PASSED),
    ("witness_runs", runs(900, 900), PASSED),
    ("witness_runs", runs(901, 900), FAILED),
    ("witness_runs", runs(0, 0), FAILED),
    ("witness_runs", runs(1, 1), PASSED),
]


@pytest.mark.parametrize(("name", "seen", "verdict"), WITNESSED)
def test_a_comparison_forgives_what_it_says_and_no_more(name: str, seen: Observation, verdict: str) -> None:
    found = check(judge(seen), name)
    assert found["verdict"] == verdict, found["sentence"]


@pytest.mark.parametrize("field", ["pid", "started_boottime_ns"])
def test_cpu_time_of_two_processes_is_not_compared(field: str) -> None:
    found = spoil(SEEN + "main/" + field, 6, "start")
    judged = check(judge(found), "witness_cpu")
    assert judged["verdict"] == HELD and "was not one process throughout the window" in judged["sentence"]


def test_what_a_frozen_account_hides_is_judged_once_it_is_older_than_a_status_may_be() -> None:
    found = observation()
    found["end"]["status"]["boottime_ns"] = found["start"]["status"]["boottime_ns"]
    for window, verdict in ((30 * SECOND, HELD), (30 * SECOND + 1, FAILED)):
        found["end"]["witness"]["boottime_ns"] = found["start"]["witness"]["boottime_ns"] + window
        assert check(judge(found), "witness_advance")["verdict"] == verdict


# --- a new check ---------------------------------------------------------------------------------

RECORD = """    Check(
        name="tide",
        scope=HOST,
        judge=lambda pair: Measured(7),
        what="how high the water stands",
        step="wait for the ebb",
        sentence="the tide",
        unit="ppm",
        limit="tide_ppm",
        default=6,
    ),
"""
ASK = """
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments, judge
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Inputs
from tests.unit.test_gate import judge as ask, observation
from tools import gate_page
(found,) = [one for one in ask(observation())["checks"] if one["check"] == "tide"]
assert found["sentence"] == "h1: the tide 7 ppm, over the limit of 6", found
assert "tide: wait for the ebb" in ask(observation())["next"]
assert ask(observation(), limits={"tide_ppm": "7"})["verdict"] == "pass"
arguments.check_policies({"tide": "pass"})
for wrong, words in (({"tide_ppm": None}, "is nothing"), ({"tide_ppm": -1}, "parts per million")):
    try:
        arguments.check_limits(wrong)
    except arguments.GateInputError as error:
        assert words in str(error)
    else:
        raise AssertionError(wrong)
assert "`tide` `release`" in gate_page.listed(gate_page.list_page().read_text())
assert "C(tide_ppm) 6" in gate_page.described(gate_page.MODULE.read_text())
assert "| `tide` | how high the water stands | 6 ppm | `tide_ppm` |" in gate_page.tables()["checks"]
print("every part knows the tide")
"""


def test_a_new_check_is_one_record(tmp_path: Path) -> None:
    """In a copy of the collection: nothing but the record is added, and every part of the gate knows the check."""
    copy = tmp_path / "ansible_collections/ebpf/fleet"
    for name in ("plugins", "tools", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests/unit").mkdir(parents=True)
    shutil.copy(ROOT / "tests/unit/test_gate.py", copy / "tests/unit")
    path = copy / "plugins/module_utils/rollout/gate/checks.py"
    source = path.read_text(encoding="utf-8")
    before, found, rest = source.partition('    Check(\n        name="release",\n')
    assert found
    source = before + RECORD + found + rest
    path.write_text(source.replace("base import INCONCLUSIVE", "base import INCONCLUSIVE, Measured"))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", ASK], cwd=copy, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.stdout == "every part knows the tide\n", done.stderr
