# SPDX-License-Identifier: GPL-3.0-or-later
"""Status against witness: each disagreement fails with both values, what was not seen holds, and good hosts agree."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments as gate_arguments
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import judge as gate
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import observation_fault

from tests.unit.test_gate import EXEC, SECOND, check, judge, judge_all, observation, spend, spoil

SEEN = "witness/loader/"


def both_ends(path: str, value: Any) -> dict[str, Any]:
    found = spoil(path, value)
    found["start"] = spoil(path, value, "start")["start"]
    return found


@pytest.mark.parametrize(
    ("path", "value", "name", "words"),
    [
        ("status/boot_id", "other", "witness_boot", "is of boot other, the kernel's boot is boot"),
        (SEEN + "main/state", "T", "witness_process", "is stopped (state T)"),
        (SEEN + "main/state", "Z", "witness_process", "is a zombie (state Z)"),
        (SEEN + "main_pid", 0, "witness_process", "has no main process"),
        (SEEN + "pids", [8], "witness_process", "does not hold process 7"),
        ("status/pid", 8, "witness_pid", "of process 8, systemd's main process is 7"),
        ("status/started_boottime_ns", 10**9, "witness_pid", "started at 1000000000 ns, the kernel says 1 ns"),
        (SEEN + "main/uids", [990, 0, 990, 990], "witness_user", "[990, 0, 990, 990]"),
        (SEEN + "main/exe_is_installed", False, "witness_exe", "/x/ebpf-loader, which is not the file"),
        ("witness/installed_digest", "e" * 64, "witness_release", "tells bundle ddddd"),
        ("status/boottime_ns", 120 * SECOND, "witness_advance", "120000000000 ns after boot, the clock said 1100000"),
        (SEEN + "cpu_ns", 0, "witness_advance", "its unit got 0 ns of CPU"),
        ("status/loader/cpu_ns", 200_000_000, "witness_cpu", "told as 200000000 ns, the kernel counted 10000000 ns"),
        (SEEN + "programs", [], "witness_programs", "with program 1 (ef_exec), the kernel lists none"),
        (EXEC + "programs", [], "witness_programs", "attached without any program"),
        (EXEC + "programs/0/tag", "bb", "witness_programs", "told with tag bb, it has aa"),
        (SEEN + "programs/0/links", [], "witness_programs", "loaded without a link"),
        (SEEN + "links", [6], "witness_programs", "tells link 5, which its unit does not hold; it holds 6"),
        (EXEC + "state", "off", "witness_programs", None),
        (EXEC + "programs/0/run_cnt", 901, "witness_runs", "told as 901 runs, the kernel counted 900 runs"),
        (EXEC + "programs/0/run_time_ns", 2_000_000, "witness_runs", "told as 2000000 ns, the kernel counted 1000000"),
    ],
)
def test_each_disagreement_fails_with_both_values(path: str, value: Any, name: str, words: str | None) -> None:
    verdict = judge(spoil(path, value), digest="d" * 64)
    found = check(verdict, name)
    if words is None:
        assert found["verdict"] == "pass", "a feature that is off may hold its programs until the next account"
        return
    assert found["verdict"] == "fail", found
    assert words in found["sentence"]
    assert verdict["verdict"] == "fail"


def test_less_than_the_kernel_had_counted_before_the_account_fails() -> None:
    after = spend(observation(), 10 * SECOND, 1_000_000)
    after["start"]["witness"]["loader"].update(cpu_ns=9 * SECOND)
    after["start"]["witness"]["loader"]["main"]["cpu_ns"] = 9 * SECOND
    after["start"]["status"]["loader"]["cpu_ns"] = 9 * SECOND
    assert check(judge(after), "witness_cpu")["verdict"] == "pass"
    after["start"]["status"]["loader"]["cpu_ns"] = 0
    after["end"]["status"]["loader"]["cpu_ns"] = 10_000_000
    found = check(judge(after), "witness_cpu")
    assert found["verdict"] == "fail"
    assert "told as 10000000 ns, the kernel had counted 9000000000 ns before" in found["sentence"]


def test_the_larger_of_what_is_told_and_counted_is_judged_by_the_budget() -> None:
    after = observation()
    after["end"]["witness"]["loader"]["cpu_ns"] = SECOND
    assert check(judge(after), "loader_cpu")["measured"] == 100
    assert check(judge(after), "loader_cpu")["verdict"] == "fail"
    after = observation()
    after["end"]["witness"]["loader"]["programs"][0]["run_time_ns"] = SECOND
    verdict = judge(after)
    assert [check(verdict, name)["measured"] for name in ("bpf_cpu", "feature_cpu")] == [100, 100]


def test_hidden_memory_fails_and_a_peak_between_the_ends_does_not() -> None:
    after = both_ends(SEEN + "rss_bytes", 60 << 20)
    found = check(judge(after), "witness_memory")
    assert found["verdict"] == "fail" and f"told as {4 << 20} bytes, the kernel saw {60 << 20}" in found["sentence"]
    assert check(judge(spoil(SEEN + "rss_bytes", 60 << 20)), "witness_memory")["verdict"] == "pass"
    assert check(judge(spoil("status/loader/rss_bytes", 60 << 20)), "witness_memory")["verdict"] == "pass"


def test_events_from_programs_that_did_not_run_fail() -> None:
    after = observation()
    after["end"]["witness"]["loader"]["programs"][0].update(run_cnt=0, run_time_ns=0)
    after["end"]["status"]["features"]["exec_events"]["programs"][0].update(run_cnt=0, run_time_ns=0)
    found = check(judge(after), "witness_runs")
    assert found["verdict"] == "fail"
    assert "tells 900 events within the window, the kernel counted 0 runs" in found["sentence"]


def test_a_status_that_stands_still_while_the_programs_run_fails() -> None:
    after = observation()
    for end, runs in (("start", 5_000), ("end", 9_000)):
        after[end]["witness"]["loader"]["programs"][0].update(run_cnt=runs, run_time_ns=runs)
        after[end]["status"]["features"]["exec_events"]["programs"][0].update(run_cnt=10, run_time_ns=10)
        after[end]["status"]["features"]["exec_events"]["counters"].update(produced=10, delivered=10)
    found = check(judge(after), "witness_runs")
    assert found["verdict"] == "fail" and "told as 10 ns, the kernel had counted 5000 ns before" in found["sentence"]


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("witness", None, "witness"),
        ("witness/loader", None, "witness"),
        ("witness/boot_id", None, "witness_boot"),
        ("witness/installed_digest", None, "witness_release"),
        (SEEN + "main", None, "witness_process"),
        (SEEN + "pids", None, "witness_process"),
        (SEEN + "main", None, "witness_pid"),
        (SEEN + "main/uids", None, "witness_user"),
        (SEEN + "main/exe_is_installed", None, "witness_exe"),
        (SEEN + "cpu_ns", None, "witness_advance"),
        (SEEN + "main", None, "witness_cpu"),
        (SEEN + "rss_bytes", None, "witness_memory"),
        ("status/loader/rss_bytes", None, "witness_memory"),
        (SEEN + "programs", None, "witness_programs"),
        (EXEC + "programs/0/id", None, "witness_programs"),
        (EXEC + "programs/0/run_cnt", None, "witness_runs"),
        ("status/boottime_ns", 100 * SECOND, "witness_advance"),
    ],
)
def test_what_root_did_not_see_holds_and_never_passes(path: str, value: Any, name: str) -> None:
    verdict = judge(spoil(path, value))
    assert verdict["verdict"] == "inconclusive", verdict["sentence"]
    assert check(verdict, name)["verdict"] == "inconclusive"


def test_an_account_from_the_very_start_of_the_window_is_too_old_to_compare() -> None:
    found = check(judge(spoil("status/boottime_ns", 101 * SECOND)), "witness_runs")
    assert found["verdict"] == "inconclusive"
    assert "make the window longer than the loader's interval and 2 s" in found["sentence"]


def test_counters_that_go_backwards_are_inconclusive() -> None:
    after = observation()
    for key, value in (("run_cnt", 50), ("run_time_ns", 50)):
        after["start"]["status"]["features"]["exec_events"]["programs"][0][key] = value
        after["start"]["witness"]["loader"]["programs"][0][key] = value
    for programs in (after["end"]["witness"]["loader"]["programs"],):
        programs[0].update(run_cnt=40, run_time_ns=40)
    after["end"]["status"]["features"]["exec_events"]["programs"][0].update(run_cnt=40, run_time_ns=40)
    after["end"]["status"]["features"]["exec_events"]["counters"].update(produced=0, delivered=0)
    found = check(judge(after), "witness_runs")
    assert found["verdict"] == "inconclusive" and "went backwards" in found["sentence"]


def test_a_frozen_account_over_a_long_window_fails() -> None:
    after = observation()
    after["end"]["witness"]["boottime_ns"] = after["start"]["witness"]["boottime_ns"] + 40 * SECOND
    after["end"]["status"]["boottime_ns"] = after["start"]["status"]["boottime_ns"]
    found = check(judge(after), "witness_advance")
    assert found["verdict"] == "fail" and "did not advance while 40000000000 ns" in found["sentence"]
    for limit, verdict in ((40 * SECOND - 1, "fail"), (40 * SECOND, "inconclusive")):
        assert check(judge(after, limits={"status_age_ns": limit}), "witness_advance")["verdict"] == verdict


def test_a_restart_that_the_status_hides_counts() -> None:
    after = spoil(SEEN + "main/started_boottime_ns", 90 * SECOND)
    assert check(judge(after), "loader_restarts")["verdict"] == "fail"


@pytest.mark.parametrize("late", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("interval", [1, 5])
@pytest.mark.sample(3)
def test_an_honest_host_agrees_whatever_the_moments_of_its_accounts(interval: int, late: float) -> None:
    """The status of each snapshot is up to an interval older than root's view; rates differ between both."""
    rng = random.Random(interval * 10 + int(late * 2))
    for _turn in range(200):
        after = observation()
        clock, cpu, runs = 0.0, 0, 0
        history = []
        while clock < 30:
            clock += 0.1
            cpu += rng.choice((0, 0, 1_000_000, 40_000_000))
            runs += rng.choice((0, 0, 5, 5_000))
            history.append((int((100 + clock) * SECOND), cpu, runs))
        for end, moment in (("start", 100), ("end", 299)):
            at, seen_cpu, seen_runs = history[moment]
            told_at, told_cpu, told_runs = history[moment - int(interval * 10 * late)]
            witness = after[end]["witness"]
            witness["boottime_ns"] = at
            witness["loader"].update(cpu_ns=seen_cpu)
            witness["loader"]["main"]["cpu_ns"] = seen_cpu // 10_000_000 * 10_000_000
            witness["loader"]["programs"][0].update(run_cnt=seen_runs, run_time_ns=seen_runs * 100)
            status = after[end]["status"]
            status["boottime_ns"] = told_at
            status["loader"]["cpu_ns"] = told_cpu
            status["features"]["exec_events"]["programs"][0].update(run_cnt=told_runs, run_time_ns=told_runs * 100)
            status["features"]["exec_events"]["counters"].update(produced=told_runs, delivered=told_runs)
        checks = judge(after)["checks"]
        witnessed = {one["check"]: one["verdict"] for one in checks if one["check"].startswith("witness")}
        assert set(witnessed.values()) == {"pass"}, witnessed


class TestCollector:
    def with_collector(self) -> dict[str, Any]:
        """The feature is run by the BCC collector; the loader holds nothing."""
        after = observation()
        for end in ("start", "end"):
            snap = after[end]
            seen = copy.deepcopy(snap["witness"]["loader"])
            seen.update(unit="ebpf-fleet-bcc.service", main_pid=9, pids=[9, 10])
            seen["main"].update(pid=9, started_boottime_ns=5, cpu_ns=0, children_cpu_ns=3 * SECOND)
            seen.update(cpu_ns=3 * SECOND, rss_bytes=90 << 20)
            seen["main"]["rss_bytes"] = 30 << 20
            snap["witness"]["collector"] = seen
            snap["witness"]["loader"].update(programs=[], links=[])
            own = dict(snap["status"]["loader"])
            cost = {"cpu_ns": 3 * SECOND, "rss_bytes": 30 << 20, "map_memory_bytes": 0}
            snap["status"]["collector"] = {
                "engine": "bcc", "pid": 9, "started_boottime_ns": 5, "state": "running", "boot_id": "boot",
                "boottime_ns": snap["boottime_ns"], "loader": own, "cost": cost, "features": ["exec_events"],
            }  # fmt: skip
            snap["status"]["loader"] = {key: own[key] + cost[key] for key in own}
        after["end"]["witness"]["collector"]["cpu_ns"] += 1_000_000
        return after

    def verdicts(self, after: dict[str, Any]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in judge(after)["checks"]:
            if one["check"].startswith("witness"):
                found.setdefault(one["check"], []).append(one["verdict"])
        return found

    def test_both_services_agree(self) -> None:
        found = self.verdicts(self.with_collector())
        assert {verdict for verdicts in found.values() for verdict in verdicts} == {"pass"}, found
        assert len(found["witness_cpu"]) == 2

    def test_a_collector_that_is_told_and_does_not_run_holds(self) -> None:
        after = self.with_collector()
        for end in ("start", "end"):
            after[end]["witness"]["collector"] = None
        assert "inconclusive" in self.verdicts(after)["witness_programs"]

    def test_its_programs_must_be_its_own(self) -> None:
        after = self.with_collector()
        for end in ("start", "end"):
            after[end]["witness"]["loader"]["programs"] = after[end]["witness"]["collector"]["programs"]
            after[end]["witness"]["collector"]["programs"] = []
        assert self.verdicts(after)["witness_programs"] == ["fail", "fail"]

    def test_its_lower_cost_fails(self) -> None:
        after = self.with_collector()
        after["end"]["status"]["collector"]["cost"]["cpu_ns"] = 1
        after["start"]["status"]["collector"]["cost"]["cpu_ns"] = 0
        assert "fail" in self.verdicts(after)["witness_cpu"]


# --- what a hostile host may send ------------------------------------------------------------------


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [place for key, one in value.items() for place in places_of(one, (*path, key))]
    if isinstance(value, list):
        return found + [place for at, one in enumerate(value) for place in places_of(one, (*path, at))]
    return found


def deep(levels: int) -> Any:
    value: Any = 1
    for _level in range(levels):
        value = [value]
    return value


EVIL = [
    None, True, -1, 0, 2**70, -(2**70), 1.5, math.nan, math.inf, "", "x" * 100_000, [], {},
    "\x1b[2J\x1b[32mAll 500 hosts confirmed",
    deep(100), [[]] * 3, {"a": 1}, ["\u202e"], {"\x1b]0;x\x07": 1}, "__class__", {1: 2},
]  # fmt: skip


def mutate(rng: random.Random, document: Any) -> Any:
    """One to three places of a document replaced, removed or doubled."""
    for _change in range(rng.randint(1, 3)):
        *steps, last = rng.choice(places_of(document))
        place = document
        try:
            for step in steps:
                place = place[step]
            if rng.random() < 0.2:
                del place[last]
            else:
                place[last] = copy.deepcopy(rng.choice(EVIL))
        except (KeyError, IndexError, TypeError):
            continue
    return document


@pytest.mark.slow
def test_no_answer_of_a_host_hides_the_others_or_raises() -> None:
    """1,500 mutations of a real observation, with a fixed seed; a good host stands beside each."""
    rng = random.Random(20260801)
    good = {"before": observation(50 * SECOND), "after": observation()}
    unusable = 0
    for _turn in range(1_500):
        bad = {"before": observation(50 * SECOND), "after": observation()}
        end = rng.choice(("after", "after", "before"))
        bad[end] = mutate(rng, bad[end])
        verdict = judge_all({"h1": bad, "h2": good}, digest="d" * 64)
        json.dumps(verdict, allow_nan=False)
        assert {one["verdict"] for one in verdict["checks"] if one["host"] == "h2"} <= {"pass", "not_exercised"}
        for one in verdict["checks"]:
            assert "\x1b" not in json.dumps(one, ensure_ascii=False) and len(one["sentence"]) <= 1_000
        first = [one for one in verdict["checks"] if one["host"] == "h1"]
        assert first
        if first[0]["check"] == "observation" and first[0]["verdict"] == "fail":
            unusable += 1
            assert len(first) == 1 and "no usable answer from h1" in first[0]["sentence"]
            assert verdict["verdict"] == "fail"
    assert unusable > 500, "the mutations hardly reached anything"


def test_an_answer_of_fifty_thousand_brackets_is_said_of_its_host() -> None:
    good = {"before": None, "after": observation()}
    bad = {"before": None, "after": {**observation(), "boot_id": deep(50_000)}}
    verdict = judge_all({"h1": bad, "h2": good})
    assert "no usable answer from h1: after: boot_id" in verdict["sentence"] and "nested deeper" in verdict["sentence"]


def test_a_malformed_field_is_named() -> None:
    found = check(judge(spoil("status/loader/cpu_ns", math.nan)), "observation")
    assert found["sentence"].startswith("no usable answer from h1: after: end.status.loader.cpu_ns")


def test_a_malformed_control_is_named_and_left_out() -> None:
    good = {"before": observation(50 * SECOND), "after": observation()}
    bad = {"before": None, "after": {**observation(), "window_ns": -1}}
    verdict = judge_all({"h1": good}, controls={"c1": good, "c2": bad})
    held = check(verdict, "observation")
    assert (held["host"], held["verdict"]) == ("c2", "inconclusive")
    assert "window_ns" in held["sentence"] and verdict["verdict"] == "inconclusive"
    assert "median of 1 controls" in check(verdict, "host_cpu_delta")["sentence"]


def test_what_a_host_says_is_printable_in_every_sentence() -> None:
    evil = "\x1b[2J\x1b[32mAll 500 hosts confirmed\u202e"
    after = spoil("status/desired_error", evil)
    said = json.dumps(judge(after), ensure_ascii=False)
    assert "\x1b" not in said and "\u202e" not in said and "All 500 hosts confirmed" in said


@pytest.mark.parametrize(
    "given",
    [
        {"h1": {"runqlat": {"profile": ["full"]}}},
        {"h1": {"runqlat": {"profile": "x" * 10_000}}},
        {"h1": {"\x1b[2J": "full"}},
        {"h1": {f"f{number}": "full" for number in range(300)}},
    ],
)
def test_predictions_of_a_hostile_host_are_refused_by_name_and_short(given: dict[str, Any]) -> None:
    with pytest.raises(gate_arguments.GateInputError, match=r"expected\.h1") as caught:
        gate_arguments.check_predictions(given)
    assert len(str(caught.value)) < 400 and "\x1b" not in str(caught.value)


def test_the_schema_takes_what_the_tests_observe() -> None:
    assert observation_fault(observation()) is None
    assert gate.SCHEMA == "ebpf.fleet/gate/v1"


def test_at_most_fifty_programs_are_listed() -> None:
    """Both ends hold the same, so that nothing else is judged of them; exec_events tells the first."""
    one = observation()["end"]["witness"]["loader"]["programs"][0]
    held = [one] + [{**one, "id": number, "links": [], "run_cnt": 0, "run_time_ns": 0} for number in range(100, 152)]
    found = check(judge(both_ends(SEEN + "programs", held), digest="d" * 64), "witness_programs")
    assert (found["verdict"], found["measured"], found["limit"]) == ("fail", [1], list(range(100, 150)))
    named = ", ".join(f"{number} ({one['name']})" for number in range(100, 105))
    assert f"that it does not tell: {named}; it tells 1" in found["sentence"]
