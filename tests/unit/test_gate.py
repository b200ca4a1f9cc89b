# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts of the gate: each check can pass, fail and stay open, and open never promotes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments as gate_arguments
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import judge as gate
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import own as gate_own
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import shift
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Inputs, Pair
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import NAMES

SECOND = 10**9

CONTRACTS = [
    {
        "feature": "exec_events",
        "budget": {
            "cpu_millicores": 20,
            "map_memory_bytes": 1000,
            "event_rate_per_second": 100,
            "drop_ratio_ppm": 10000,
        },
    }
]


def feature() -> dict[str, Any]:
    return {
        "wanted": True,
        "state": "attached",
        "profile": "full",
        "reason": "attached",
        "programs": [{"id": 1, "name": "ef_exec", "tag": "aa", "run_cnt": 0, "run_time_ns": 0}],
        "links": [5],
        "maps": [
            {"name": "ef_events", "type": "ringbuf", "max_entries": 4096, "entries": None, "memory_bytes": 600},
            {"name": "ef_seen", "type": "hash", "max_entries": 100, "entries": 10, "memory_bytes": 300},
        ],
        "counters": {"produced": 0, "delivered": 0, "dropped": 0, "sampled_out": 0, "in_flight": 0},
        "degraded": None,
        "consumer": {"lag_bytes": 0, "ring_bytes": 4096},
    }


def status(at: int) -> dict[str, Any]:
    return {
        "schema": "ebpf.fleet/status/v1",
        "boot_id": "boot",
        "boottime_ns": at,
        "pid": 7,
        "started_boottime_ns": 1,
        "state": "running",
        "bundle": {"digest": "d" * 64},
        "kills": [],
        "desired_error": None,
        "loader": {"cpu_ns": 0, "rss_bytes": 4 << 20, "map_memory_bytes": 900},
        "features": {"exec_events": feature()},
    }


def witness(at: int) -> dict[str, Any]:
    """Root's own view at the very moment of the status."""
    main = {"pid": 7, "state": "S", "cpu_ns": 0, "children_cpu_ns": 0, "started_boottime_ns": 1, "rss_bytes": 4 << 20}
    program = {"id": 1, "name": "ef_exec", "tag": "aa", "type": "tracing", "links": [5], "run_cnt": 0, "run_time_ns": 0}
    loader = {
        "unit": "ebpf-fleet-loader.service",
        "main_pid": 7,
        "pids": [7],
        "main": {**main, "uids": [990, 990, 990, 990], "exe": "/x/ebpf-loader", "exe_is_installed": True},
        "cpu_ns": 0,
        "cpu_source": "cgroup",
        "rss_bytes": 4 << 20,
        "memory_bytes": 6 << 20,
        "programs": [program],
        "links": [5],
        "why": {},
    }
    return {
        "boottime_ns": at,
        "boot_id": "boot",
        "installed_digest": "d" * 64,
        "loader": loader,
        "collector": None,
        "why": {},
    }


def snapshot(at: int) -> dict[str, Any]:
    return {
        "boottime_ns": at,
        "host": {"cpu_busy_ns": at // 10, "cpu_total_ns": at, "memory_available_bytes": 10**9},
        "unit": {"active_state": "active", "n_restarts": 0, "main_pid": 7, "exit_status": 0},
        "status": status(at),
        "status_age_ns": SECOND,
        "application": None,
        "witness": witness(at),
    }


def observation(start: int = 100 * SECOND) -> dict[str, Any]:
    """A healthy host over ten seconds: 1000 events, 1 ms of BPF, 10 ms of loader."""
    found = {
        "schema": "ebpf.fleet/observation/v1",
        "window_ns": 10 * SECOND,
        "start": snapshot(start),
        "end": snapshot(start + 10 * SECOND),
    }
    end = found["end"]["status"]
    spend(found, 10_000_000, 1_000_000)
    end["features"]["exec_events"]["programs"][0]["run_cnt"] = 900
    end["features"]["exec_events"]["counters"].update(produced=900, delivered=900)
    found["end"]["witness"]["loader"]["programs"][0]["run_cnt"] = 900
    return found


def spend(found: dict[str, Any], loader_ns: int, programs_ns: int) -> dict[str, Any]:
    """CPU time within the window, by the status and by the kernel's account."""
    told, seen = found["end"]["status"], found["end"]["witness"]["loader"]
    told["loader"]["cpu_ns"] = seen["cpu_ns"] = seen["main"]["cpu_ns"] = loader_ns
    for programs in (told["features"]["exec_events"]["programs"], seen["programs"]):
        programs[0]["run_time_ns"] = programs_ns
    return found


def judge(after: Any, before: Any = None, **more: Any) -> dict[str, Any]:
    """The verdict over one host, h1."""
    changed = {"h1": {"before": before or observation(50 * SECOND), "after": after}}
    return judge_all(changed, **more)


def judge_all(changed: dict[str, Any], **more: Any) -> dict[str, Any]:
    return gate.judge(
        Inputs(
            changed=changed,
            controls=more.get("controls", {}),
            limits=gate_arguments.check_limits(more.get("limits")),
            contracts=gate_arguments.check_contracts(more.get("contracts", CONTRACTS)),
            expected=gate_arguments.check_expected(more.get("expected", {"*": {"exec_events": "full"}})),
            digest=more.get("digest"),
            on_inconclusive=gate_arguments.check_policies(more.get("on_inconclusive")),
            expressions=gate_arguments.check_expressions(more.get("extra_checks")),
            search=more.get("search"),
            budget=gate_arguments.check_budget(*more.get("budget", (0.05, 1, 1, 1))),
            dry_run=gate_arguments.check_dry_run(more.get("dry_run")),
            early=more.get("early", False),
        )
    )


def check(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    """The one check of that name."""
    found = [one for one in verdict["checks"] if one["check"] == name]
    assert len(found) == 1, found
    return found[0]


def test_a_healthy_host_passes_every_check() -> None:
    verdict = judge(observation(), digest="d" * 64)
    assert verdict["verdict"] == "pass", verdict["sentence"]
    ranked = [one for one in verdict["checks"] if one["check"] in shift.NAMES]
    assert {one["verdict"] for one in verdict["checks"] if one not in ranked} == {"pass"}
    # One host is not tested by ranks, which is said; this one has neither pressure nor an application.
    assert [(one["check"], one["verdict"]) for one in ranked] == [
        ("host_cpu_shift", "not_exercised"), ("host_memory_shift", "not_exercised")]  # fmt: skip
    judged = {one["check"] for one in verdict["checks"]} - set(shift.NAMES)
    never_here = {"observation", "counters_advance", "witness", "application_p95", "application_p99"}
    assert judged == set(NAMES) - never_here - {*shift.NAMES, "host_outliers"}


def test_measured_values_are_exact() -> None:
    verdict = judge(observation())
    assert check(verdict, "loader_cpu")["measured"] == 1
    assert check(verdict, "feature_cpu")["measured"] == 1  # 0.1 millicores, rounded up
    assert check(verdict, "event_rate")["measured"] == 90
    assert check(verdict, "map_memory")["measured"] == 900
    assert check(verdict, "map_fill")["measured"] == 100_000
    assert check(verdict, "drop_ratio")["measured"] == 0


def spoil(path: str, value: Any, end: str = "end") -> dict[str, Any]:
    """A healthy observation with one value changed."""
    found = observation()
    place = found[end]
    *steps, last = path.split("/")
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return found


EXEC = "status/features/exec_events/"


# What one check fails for.
FAULTS: list[tuple[str, Any, str]] = [
    ("status/loader/cpu_ns", 501_000_000, "loader_cpu"),
    (EXEC + "programs/0/run_time_ns", 201_000_000, "bpf_cpu"),
    (EXEC + "programs/0/run_time_ns", 201_000_000, "feature_cpu"),
    (EXEC + "programs/0/run_time_ns", 800_000_000, "total_cpu"),
    ("host/cpu_busy_ns", 12 * SECOND, "host_cpu_delta"),
    ("host/memory_available_bytes", 800_000_000, "host_memory_delta"),
    (EXEC + "counters", dict(produced=900, delivered=890, dropped=10, sampled_out=0, in_flight=0), "drop_ratio"),
    (EXEC + "counters", dict(produced=1900, delivered=1900, dropped=0, sampled_out=0, in_flight=0), "event_rate"),
    (EXEC + "counters", dict(produced=900, delivered=899, dropped=0, sampled_out=0, in_flight=0), "accounting"),
    (EXEC + "maps/1/entries", 91, "map_fill"),
    (EXEC + "maps/1/memory_bytes", 401, "map_memory"),
    (EXEC + "consumer", {"lag_bytes": 4000, "ring_bytes": 4096}, "consumer_lag"),
    ("unit/n_restarts", 1, "loader_restarts"),
    ("status/started_boottime_ns", 2, "loader_restarts"),
    ("unit/active_state", "failed", "loader_active"),
    (EXEC + "profile", "reduced", "features_attached"),
    (EXEC + "state", "disabled", "features_attached"),
    (EXEC + "state", "killed", "features_attached"),
    (EXEC + "state", "shed", "features_attached"),
    ("status/policy_error", "no JSON", "features_attached"),
    ("status/features", {}, "features_attached"),
    ("status/state", "killed", "features_attached"),
    ("status/desired_error", "no JSON", "features_attached"),
    ("status/bundle", {"digest": "e" * 64}, "release"),
]

# The limit of each check that has one number for it, and where the contract gives it, null.
LIMITS = {
    "loader_cpu": "loader_cpu_millicores", "bpf_cpu": "bpf_cpu_millicores", "total_cpu": "total_cpu_millicores",
    "host_cpu_delta": "host_cpu_delta_ppm", "host_memory_delta": "host_memory_delta_bytes",
    "drop_ratio": "drop_ratio_ppm", "event_rate": "event_rate_per_second", "accounting": "accounting_error_events",
    "map_fill": "map_fill_ppm", "map_memory": "map_memory_bytes", "consumer_lag": "consumer_lag_ppm",
    "loader_restarts": "loader_restarts", "status_fresh": "status_age_ns",
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "name"), FAULTS)
def test_each_check_can_fail(path: str, value: Any, name: str) -> None:
    verdict = judge(spoil(path, value), digest="d" * 64)
    assert verdict["verdict"] == "fail"
    failed = [one for one in verdict["checks"] if one["verdict"] == "fail"]
    assert name in {one["check"] for one in failed}
    assert all(one["host"] == "h1" and "h1" in one["sentence"] for one in failed)


def test_without_a_limit_of_its_own_all_may_cost_what_loader_and_budgets_may() -> None:
    for loader in (50, 30):
        judged = judge(observation(), limits={"loader_cpu_millicores": loader})
        assert check(judged, "total_cpu")["limit"] == 20 + loader


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [("status_age_ns", 5 * SECOND, "status_fresh"), *(one for one in FAULTS if one[2] in LIMITS)],
)
def test_a_limit_is_the_last_value_that_passes(path: str, value: Any, name: str) -> None:
    limit = LIMITS[name]
    measured = check(judge(spoil(path, value), limits={limit: 0}), name)["measured"]
    assert isinstance(measured, int) and measured > 0
    over = "inconclusive" if name == "status_fresh" else "fail"
    for allowed, verdict in ((measured - 1, over), (measured, "pass")):
        one = check(judge(spoil(path, value), limits={limit: allowed}), name)
        assert (one["measured"], one["limit"], one["verdict"]) == (measured, allowed, verdict)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("status/loader/cpu_ns", None, "loader_cpu"),
        (EXEC + "programs/0/run_time_ns", None, "bpf_cpu"),
        ("host/cpu_busy_ns", None, "host_cpu_delta"),
        ("host/memory_available_bytes", None, "host_memory_delta"),
        (EXEC + "counters", None, "drop_ratio"),
        (EXEC + "counters", None, "accounting"),
        (EXEC + "counters/produced", None, "drop_ratio"),
        (EXEC + "maps", [], "map_memory"),
        (EXEC + "consumer", {"lag_bytes": None, "ring_bytes": 4096}, "consumer_lag"),
        ("unit", None, "loader_active"),
        ("unit", None, "loader_restarts"),
        ("status_age_ns", None, "status_fresh"),
        ("status_age_ns", 60 * SECOND, "status_fresh"),
        ("status/boottime_ns", 100 * SECOND, "loader_cpu"),
        ("status", None, "observation"),
    ],
)
def test_what_was_not_measured_holds(path: str, value: Any, name: str) -> None:
    verdict = judge(spoil(path, value))
    assert verdict["verdict"] == "inconclusive", verdict["sentence"]
    held = {one["check"] for one in verdict["checks"] if one["verdict"] == "inconclusive"}
    assert name in held


@pytest.mark.parametrize(
    ("unit", "failed"),
    [
        ({"active_state": "activating", "n_restarts": 0}, {"loader_active"}),
        ({"active_state": "failed", "n_restarts": 0}, {"loader_active"}),
        ({"active_state": "active", "n_restarts": 2}, {"loader_restarts"}),
        ({"active_state": "activating", "n_restarts": 1}, {"loader_active", "loader_restarts"}),
        ({"active_state": "active", "n_restarts": 0}, set()),
        ({"active_state": None, "n_restarts": None}, set()),
    ],
)
def test_a_loader_that_ended_and_left_no_status_fails_by_what_systemd_says(unit: Any, failed: set[str]) -> None:
    found = observation()
    found["end"]["status"] = None
    found["end"]["unit"].update(unit)
    verdict = judge(found, observation(10 * SECOND))
    assert {one["check"] for one in verdict["checks"] if one["verdict"] == "fail"} == failed, verdict["checks"]
    assert verdict["verdict"] == ("fail" if failed else "inconclusive")
    assert check(verdict, "observation")["verdict"] == "inconclusive"
    told = {one["check"] for one in verdict["checks"] if one["host"] == "h1"}
    assert told == {"observation"} | failed, "nothing else of it was judged"


def test_of_a_malformed_answer_what_it_says_of_its_unit_is_not_believed_either() -> None:
    found = observation()
    found["end"]["status"] = None
    found["end"]["unit"].update(active_state="failed", n_restarts=3)
    found["end"]["host"]["cpu_busy_ns"] = "many"
    verdict = judge(found, observation(10 * SECOND))
    assert [(one["check"], one["verdict"]) for one in verdict["checks"] if one["host"] == "h1"] == [
        ("observation", "fail")
    ]
    assert "cpu_busy_ns" in check(verdict, "observation")["sentence"]


@pytest.mark.parametrize("after", [None, {}, [], "gone"])
def test_a_host_that_was_not_observed_holds(after: Any) -> None:
    verdict = judge(after)
    assert verdict["verdict"] == "inconclusive"
    assert check(verdict, "observation")["host"] == "h1"


def test_no_host_at_all_holds() -> None:
    verdict = judge_all({})
    assert (verdict["verdict"], verdict["checks"]) == ("inconclusive", [])


def test_one_lost_host_of_many_holds_the_batch() -> None:
    pair = {"before": observation(50 * SECOND), "after": observation()}
    assert judge_all({"h1": pair, "h2": pair})["verdict"] == "pass"
    assert judge_all({"h1": pair, "h2": {"before": pair["before"], "after": None}})["verdict"] == "inconclusive"


def test_a_failure_outweighs_what_is_open() -> None:
    after = spoil("status/loader/cpu_ns", 501_000_000)
    after["end"]["unit"] = None
    assert judge(after)["verdict"] == "fail"


def test_a_window_of_zero_has_no_rates() -> None:
    after = observation()
    after["window_ns"] = 0
    assert judge(after)["verdict"] == "inconclusive"


def test_an_open_check_may_be_let_through_by_name() -> None:
    after = spoil(EXEC + "programs/0/run_time_ns", None)
    let = {"bpf_cpu": "pass", "feature_cpu": "pass", "total_cpu": "pass"}
    assert judge(after, on_inconclusive={"bpf_cpu": "pass"})["verdict"] == "inconclusive"
    assert judge(after, on_inconclusive=let)["verdict"] == "pass"


def test_letting_everything_through_still_needs_one_pass() -> None:
    verdict = judge(None, on_inconclusive={"observation": "pass"})
    assert verdict["verdict"] == "inconclusive"
    assert "nothing speaks" in verdict["sentence"]


class TestDrops:
    IDLE = dict(produced=0, delivered=0, dropped=0, sampled_out=0, in_flight=0)

    def test_an_idle_host_passes_and_the_check_says_not_exercised(self) -> None:
        verdict = judge(spoil(EXEC + "counters", self.IDLE))
        assert check(verdict, "drop_ratio")["verdict"] == "not_exercised"
        assert check(verdict, "drop_ratio")["measured"] is None
        assert verdict["verdict"] == "pass"

    def test_an_idle_host_holds_where_events_are_required(self) -> None:
        verdict = judge(spoil(EXEC + "counters", self.IDLE), limits={"require_events": True})
        assert verdict["verdict"] == "inconclusive"

    def test_the_contract_gives_the_limit_and_the_task_overrides_it(self) -> None:
        lost = dict(produced=1000, delivered=980, dropped=20, sampled_out=0, in_flight=0)
        assert check(judge(spoil(EXEC + "counters", lost)), "drop_ratio")["limit"] == 10000
        verdict = judge(spoil(EXEC + "counters", lost), limits={"drop_ratio_ppm": 20000})
        assert check(verdict, "drop_ratio")["verdict"] == "pass"
        assert check(verdict, "drop_ratio")["measured"] == 20000

    @pytest.mark.parametrize(
        ("degraded", "limit", "verdict"),
        [
            (None, 0, "pass"),
            ("sampling", 0, "fail"),
            ("sampling", 1, "fail"),
            ("sampling", 2, "pass"),
            ("reduced", 3, "fail"),
            ("reduced", 4, "pass"),
        ],
    )
    def test_what_fits_only_once_a_budget_has_thinned_it_does_not_fit(
        self, degraded: str | None, limit: int, verdict: str
    ) -> None:
        steps = {"sampling": 2, "reduced": 4}
        found = degraded and {
            "step": degraded, "steps": steps[degraded], "reason_code": "EF_BUDGET_DROPS", "reason": "it drops",
            "measured": 5, "limit": 1, "since_boottime_ns": 5,
        }  # fmt: skip
        judged = judge(spoil(EXEC + "degraded", found), limits={"degradation_steps": limit})
        one = check(judged, "degradation")
        assert (one["measured"], one["limit"], one["verdict"]) == (steps.get(degraded or "", 0), limit, verdict)
        assert degraded is None or "EF_BUDGET_DROPS: it drops" in one["sentence"]

    @pytest.mark.parametrize(("sampled_out", "measured"), [(0, 5000), (500, 10000), (900, 50000)])
    def test_thinning_makes_no_loss_smaller(self, sampled_out: int, measured: int) -> None:
        lost = dict(produced=1000, delivered=995 - sampled_out, dropped=5, sampled_out=sampled_out, in_flight=0)
        found = check(judge(spoil(EXEC + "counters", lost)), "drop_ratio")
        assert (found["measured"], found["verdict"]) == (measured, "fail" if measured > 10000 else "pass")

    def test_where_sampling_let_nothing_pass_nothing_is_proven(self) -> None:
        thinned = dict(produced=1000, delivered=0, dropped=0, sampled_out=1000, in_flight=0)
        found = check(judge(spoil(EXEC + "counters", thinned)), "drop_ratio")
        assert (found["measured"], found["verdict"]) == (None, "not_exercised")
        assert "sampling let none of 1000 events pass" in found["sentence"]

    def test_without_any_limit_it_is_open(self) -> None:
        verdict = judge(observation(), contracts=[])
        assert check(verdict, "drop_ratio")["verdict"] == "inconclusive"

    def test_only_the_window_counts(self) -> None:
        """Drops from before the window are not this window's."""
        after = observation()
        old = dict(produced=500, delivered=400, dropped=100, sampled_out=0, in_flight=0)
        after["start"]["status"]["features"]["exec_events"]["counters"] = old
        new = dict(produced=1500, delivered=1400, dropped=100, sampled_out=0, in_flight=0)
        after["end"]["status"]["features"]["exec_events"]["counters"] = new
        assert check(judge(after), "drop_ratio")["measured"] == 0


class TestRestarts:
    def test_an_ordered_restart_of_the_deployment_is_none(self) -> None:
        before = observation(50 * SECOND)
        for end in ("start", "end"):
            before[end]["status"]["pid"] = 3
            before[end]["unit"]["n_restarts"] = 5
        assert check(judge(observation(), before), "loader_restarts")["measured"] == 0

    def test_a_crash_between_deployment_and_window_counts(self) -> None:
        before = observation(50 * SECOND)
        for end in ("start", "end"):
            before[end]["status"]["pid"] = 3
        after = observation()
        for end in ("start", "end"):
            after[end]["unit"]["n_restarts"] = 1
        assert check(judge(after, before), "loader_restarts")["verdict"] == "fail"

    def test_an_old_restart_of_a_loader_that_was_not_touched_does_not(self) -> None:
        before, after = observation(50 * SECOND), observation()
        for snap in (before["end"], after["start"], after["end"]):
            snap["unit"]["n_restarts"] = 4
        assert check(judge(after, before), "loader_restarts")["measured"] == 0

    def test_a_fresh_host_has_no_before(self) -> None:
        before = observation(50 * SECOND)
        for end in ("start", "end"):
            before[end]["status"], before[end]["unit"] = None, None
        assert judge(observation(), before)["verdict"] == "pass"


class TestExpectation:
    def test_better_than_predicted_is_good(self) -> None:
        assert judge(observation(), expected={"h1": {"exec_events": "reduced"}})["verdict"] == "pass"

    def test_disabled_as_predicted_is_good(self) -> None:
        after = spoil(EXEC + "state", "disabled")
        after["end"]["status"]["features"]["exec_events"]["profile"] = "disabled"
        verdict = judge(after, expected={"h1": {"exec_events": "disabled"}})
        assert verdict["verdict"] == "pass", verdict["sentence"]

    def test_nobody_said_holds(self) -> None:
        assert judge(observation(), expected={})["verdict"] == "inconclusive"

    def test_a_host_of_its_own_goes_before_the_star(self) -> None:
        expected = {"*": {"exec_events": "full"}, "h1": {"exec_events": "reduced", "runqlat": "full"}}
        verdict = judge(observation(), expected=expected)
        assert verdict["verdict"] == "fail"
        assert "runqlat: the loader does not report it" in verdict["sentence"]

    def test_nothing_expected_and_something_runs_fails(self) -> None:
        assert judge(observation(), expected={"h1": {}})["verdict"] == "fail"

    def test_a_prediction_binds_only_where_the_feature_is_wanted(self) -> None:
        after = spoil(EXEC + "state", "off")
        after["end"]["status"]["features"]["exec_events"].update(wanted=False, profile="disabled")
        predicted = {"h1": {"exec_events": {"profile": "full", "variant": "full"}}}
        verdict = judge(after, expected=predicted)
        assert check(verdict, "features_attached")["verdict"] == "not_exercised"
        assert judge(after, expected={"h1": {"exec_events": "full"}})["verdict"] == "fail"

    def test_a_prediction_of_a_wanted_feature_binds(self) -> None:
        predicted = {"h1": {"exec_events": {"profile": "full", "variant": "full"}}}
        assert judge(spoil(EXEC + "profile", "reduced"), expected=predicted)["verdict"] == "fail"


class TestControls:
    def busier(self, ppm: int) -> dict[str, Any]:
        found = {"before": observation(50 * SECOND), "after": observation()}
        end, start = found["after"]["end"]["host"], found["after"]["start"]["host"]
        end["cpu_busy_ns"] = start["cpu_busy_ns"] + 10 * SECOND // 10 + 10 * SECOND * ppm // 1_000_000
        return found

    def test_what_the_controls_also_did_is_not_ours(self) -> None:
        changed = {"h1": self.busier(80_000)}
        assert judge_all(changed)["verdict"] == "fail"
        controls = {name: self.busier(79_000) for name in ("c1", "c2", "c3")}
        verdict = judge_all(changed, controls=controls)
        assert check(verdict, "host_cpu_delta")["measured"] == 1000
        assert verdict["verdict"] == "pass"

    def test_a_host_that_is_busy_all_the_time_is_measured(self) -> None:
        """No more: busy time beyond all time measures nothing."""
        assert check(judge_all({"h1": self.busier(900_000)}), "host_cpu_delta")["measured"] == 900_000
        assert check(judge_all({"h1": self.busier(900_001)}), "host_cpu_delta")["verdict"] == "inconclusive"

    def test_controls_that_were_not_measured_hold(self) -> None:
        verdict = judge_all({"h1": self.busier(0)}, controls={"c1": {"before": None, "after": None}})
        assert check(verdict, "host_cpu_delta")["verdict"] == "inconclusive"

    def test_a_small_shift_of_all_hosts_is_seen(self) -> None:
        """20,000 ppm is within the limit of each host, but all of six hosts have it."""
        changed = {f"h{i}": self.busier(20_000 + i * 100) for i in range(6)}
        controls = {f"c{i}": self.busier(i * 100) for i in range(6)}
        limits = {"host_cpu_delta_ppm": 50_000}
        verdict = judge_all(changed, controls=controls, limits=limits)
        assert check(verdict, "host_cpu_shift")["verdict"] == "fail"
        same = judge_all({f"h{i}": self.busier(i * 100) for i in range(6)}, controls=controls)
        assert check(same, "host_cpu_shift")["verdict"] == "pass"

    def test_too_few_hosts_are_judged_by_limits_alone(self) -> None:
        verdict = judge_all({"h1": self.busier(0)}, controls={"c1": self.busier(0)})
        found = check(verdict, "host_cpu_shift")
        assert found["verdict"] == "not_exercised"
        assert found["sentence"] == (
            "host CPU: not judged by a rank test: 1 changed hosts and 1 controls, 5 of each at least"
        )


class TestApplication:
    def with_latency(self, before: int | None, after: int | None) -> dict[str, Any]:
        pair = {"before": observation(50 * SECOND), "after": observation()}
        for key, value in (("before", before), ("after", after)):
            if value is not None:
                pair[key]["end"]["application"] = {"p95_ns": value, "p99_ns": value}
        return pair

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [(100, 110, "pass"), (100, 111, "fail"), (None, 100, "inconclusive"), (100, None, "inconclusive"),
         (1, 1, "pass"), (0, 0, "inconclusive"), (0, 100, "inconclusive")],
    )  # fmt: skip
    def test_growth(self, before: int | None, after: int | None, expected: str) -> None:
        pair = self.with_latency(before, after)
        verdict = judge_all({"h1": pair}, limits={"application_p95_growth_ppm": 100_000})
        assert check(verdict, "application_p95")["verdict"] == expected

    @pytest.mark.parametrize("limits", [{}, {"application_p95_growth_ppm": 100_000, "application_p99_growth_ppm": 1}])
    @pytest.mark.parametrize("end", ["before", "after"])
    def test_a_file_that_cannot_be_used_holds_and_is_told_with_its_field(self, limits: Any, end: str) -> None:
        pair = self.with_latency(100, 100)
        pair[end]["end"].update(application=None, application_error="/run/a.json: p95_ns: is 'x' (text)")
        found = check(judge_all({"h1": pair}, limits=limits), "application_p95")
        assert found["verdict"] == "inconclusive" and "/run/a.json: p95_ns: is 'x'" in found["sentence"]

    @pytest.mark.parametrize(("before", "after", "when"), [(None, 100, "before"), (100, None, "after")])
    def test_an_application_that_came_or_went_holds_without_any_limit(
        self, before: int | None, after: int | None, when: str
    ) -> None:
        verdict = judge_all({"h1": self.with_latency(before, after)})
        found = check(verdict, "application_p99")
        assert (found["verdict"], verdict["verdict"]) == ("inconclusive", "inconclusive")
        assert found["sentence"] == f"h1: the application's p99 was not measured {when} the change"

    def test_not_judged_without_a_limit(self) -> None:
        verdict = judge_all({"h1": self.with_latency(100, 1000)})
        assert verdict["verdict"] == "pass"


class TestOwnChecks:
    def test_the_rates_that_an_expression_may_use(self) -> None:
        after = observation()
        feature = after["end"]["status"]["features"]["exec_events"]
        feature["counters"].update(produced=904, delivered=900, dropped=3, sampled_out=1)
        after["end"]["status"]["features"]["other"] = {**feature, "state": "off"}
        pair = Pair("h", None, after, None)  # type: ignore[arg-type]
        counted = {"produced_delta": 904, "delivered_delta": 900, "dropped_delta": 3, "sampled_out_delta": 1}
        assert gate_own.rates(pair) == {
            "window_ns": 10 * SECOND, "status_span_ns": 10 * SECOND, "loader_cpu_millicores": 1,
            "bpf_cpu_millicores": 1, "host_cpu_ppm": 100_000,
            "features": {"exec_events": {**counted, "cpu_millicores": 1}},
        }  # fmt: skip
        after["end"]["status"]["pid"] = 8
        lost = gate_own.rates(pair)
        assert (lost["status_span_ns"], lost["loader_cpu_millicores"]) == (None, None)
        assert {name: lost["features"]["exec_events"][name] for name in counted} == dict.fromkeys(counted)

    def test_the_document_has_both_observations_and_the_rates(self) -> None:
        seen: list[Any] = []

        def search(expression: str, document: Any) -> Any:
            seen.append((expression, document))
            return 3

        mine = [{"name": "low", "expression": "a", "max": 3, "unit": "s"},
                {"name": "high", "expression": "b", "min": 3.5}]  # fmt: skip
        before = observation(50 * SECOND)
        verdict = judge(observation(), before, extra_checks=mine, search=search)
        assert [one[0] for one in seen] == ["a", "b"] and set(seen[0][1]) == {"before", "after", "rates"}
        assert (seen[0][1]["before"], seen[0][1]["after"]) == (before, observation())
        assert check(verdict, "low") == {
            "host": "h1", "feature": None, "check": "low", "verdict": "pass", "measured": 3, "limit": 3, "unit": "s",
            "sentence": "h1: low is 3, at most 3 is allowed",
        }  # fmt: skip
        assert check(verdict, "high") == {
            "host": "h1", "feature": None, "check": "high", "verdict": "fail", "measured": 3, "limit": 3.5,
            "unit": None, "sentence": "h1: high is 3, at least 3.5 is allowed",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("bound", "value", "verdict"),
        [({"max": 3}, 3, "pass"), ({"max": 3}, 4, "fail"), ({"min": 3}, 3, "pass"), ({"min": 3}, 2, "fail"),
         ({"max": 0}, 0, "pass"), ({"min": 0}, -1, "fail")],
    )  # fmt: skip
    def test_a_bound_is_the_last_value_that_is_allowed(self, bound: Any, value: int, verdict: str) -> None:
        mine = {"name": "mine", "expression": "x", **bound}
        found = judge(observation(), extra_checks=[mine], search=lambda _e, _d: value)
        assert check(found, "mine")["verdict"] == verdict

    def test_without_jmespath_an_own_check_holds(self) -> None:
        held = check(judge(observation(), extra_checks=[{"name": "mine", "expression": "x", "max": 0}]), "mine")
        assert (held["verdict"], held["measured"], held["limit"]) == ("inconclusive", None, 0)
        assert held["sentence"] == "h1: mine: no JMESPath at hand"

    def test_bounds(self) -> None:
        def search(expression: str, document: Any) -> Any:
            return document["rates"][expression]

        low = {"name": "mine", "expression": "loader_cpu_millicores", "max": 1}
        assert check(judge(observation(), extra_checks=[low], search=search), "mine")["verdict"] == "pass"
        high = {"name": "mine", "expression": "loader_cpu_millicores", "min": 2}
        assert judge(observation(), extra_checks=[high], search=search)["verdict"] == "fail"

    @pytest.mark.parametrize("value", [None, "12", True, [], float("nan"), float("inf"), float("-inf")])
    def test_what_is_no_number_holds(self, value: Any) -> None:
        own = {"name": "mine", "expression": "x", "max": 1}
        verdict = judge(observation(), extra_checks=[own], search=lambda _e, _d: value)
        assert check(verdict, "mine")["verdict"] == "inconclusive"
        assert verdict["verdict"] == "inconclusive"

    def test_an_expression_that_breaks_holds(self) -> None:
        def search(_expression: str, _document: Any) -> Any:
            raise ValueError("no such function")

        own = {"name": "mine", "expression": "x", "max": 1}
        verdict = judge(observation(), extra_checks=[own], search=search)
        assert "no such function" in check(verdict, "mine")["sentence"]
        assert verdict["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"limits": {"drop_ration_ppm": 1}},
         r"^limits: unknown name 'drop_ration_ppm'; did you mean drop_ratio_ppm\?$"),
        ({"limits": {"xyzzy": 1}}, "^limits: unknown name 'xyzzy'; known are accounting_error_events, "),
        ({"limits": {"loader_cpu_millicores": -1}}, "limits.loader_cpu_millicores: is -1"),
        ({"limits": {"loader_cpu_millicores": 1.5}}, "1000 is one core"),
        ({"limits": {"loader_cpu_millicores": None}}, "limits.loader_cpu_millicores: is nothing"),
        ({"limits": {"status_age_ns": "5s"}}, "nanoseconds"),
        ({"limits": {"require_events": "maybe"}}, "require_events: is 'maybe'"),
        ({"on_inconclusive": {"bpf_cpo": "pass"}},
         r"^on_inconclusive: unknown name 'bpf_cpo'; did you mean bpf_cpu\?$"),
        ({"dry_run": ["bpf_cpo"]}, r"^dry_run: unknown name 'bpf_cpo'; did you mean bpf_cpu\?$"),
        ({"on_inconclusive": {"bpf_cpu": "ignore"}}, "^on_inconclusive.bpf_cpu: 'ignore'; say hold or pass$"),
        ({"expected": {"h1": "full"}}, "expected.h1"),
        ({"expected": {"h1": {"f": "ful"}}}, r"^expected.h1.f: unknown name 'ful'; did you mean full\?$"),
        ({"expected": {"h1": {"f": {"variant": "full"}}}}, "expected.h1.f"),
        ({"contracts": [{"feature": "f"}]}, "contracts: each needs"),
        ({"extra_checks": [{"name": "a"}]}, "extra_checks: each needs"),
        ({"extra_checks": [{"name": "a", "expression": "x"}]}, "give one of max and min"),
        ({"extra_checks": [{"name": "a", "expression": "x", "max": 1, "min": 0}]}, "give one of max and min"),
        ({"extra_checks": [{"name": "a", "expression": "x", "max": "one"}]}, "max: is 'one' .*give a number"),
        ({"extra_checks": [{"name": "a", "expression": "x", "maximum": 1}]},
         r"^extra_checks.a: unknown name 'maximum'; did you mean max\?$"),
        ({"extra_checks": [{"name": "bpf_cpu", "expression": "x", "max": 1}]},
         "^extra_checks.bpf_cpu: the name is taken; choose another$"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(more: dict[str, Any], message: str) -> None:
    with pytest.raises(gate_arguments.GateInputError, match=message):
        judge(observation(), **more)


def test_the_inputs_are_not_changed() -> None:
    after = observation()
    copied = copy.deepcopy(after)
    judge(after)
    assert after == copied


def test_a_degradation_is_in_the_sentence_and_a_shed_feature_fails_whatever_was_predicted() -> None:
    degraded = {"step": "shed", "reason_code": "EF_BUDGET_CPU", "reason": "its cpu is over", "steps": 5}
    end = observation()
    end["end"]["status"]["features"]["exec_events"].update(state="shed", profile="disabled", degraded=degraded)
    verdict = judge(end, expected={"*": {"exec_events": "disabled"}})
    found = check(verdict, "features_attached")
    assert found["verdict"] == "fail"
    assert "degraded to shed, 5 steps down, for EF_BUDGET_CPU: its cpu is over" in found["sentence"]
    end["end"]["status"]["features"]["exec_events"]["degraded"]["steps"] = 1
    found = check(judge(end, expected={"*": {"exec_events": "disabled"}}), "features_attached")
    assert "degraded to shed, 1 step down, for EF_BUDGET_CPU" in found["sentence"]


def test_numbers_and_truths_as_text_are_what_they_say() -> None:
    found = gate_arguments.check_limits({"loader_cpu_millicores": "50", "status_age_ns": "5", "require_events": "no"})
    assert (found["loader_cpu_millicores"], found["status_age_ns"], found["require_events"]) == (50, 5, False)
    (own,) = gate_arguments.check_expressions([{"name": "a", "expression": "x", "max": "1.5"}])
    assert own["max"] == 1.5
