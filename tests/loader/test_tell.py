# SPDX-License-Identifier: GPL-3.0-or-later
"""Every number that metrics.prom and status.json tell of one snapshot that is known, without root, kernel or files."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.loader.drivers import ask, build

pytestmark = pytest.mark.apart

# What renders, and what that calls; the linker leaves out the rest of these files.
NEEDED = ("base/*.c", "tell/metrics.c", "tell/labelled.c", "tell/signals.c", "tell/status.c", "bundle/contract.c",
          "bundle/signal.c", "bundle/standing.c", "bundle/bundle.c", "control/orders.c", "control/lease.c",
          "control/policy.c", "control/sink_policy.c", "events/fairness.c", "events/backpressure.c", "feature/state.c",
          "feature/degrade.c", "feature/budget.c", "feature/series.c", "feature/seen.c", "feature/unobserved.c",
          "kernel/kernel.c", "kernel/privilege.c", "kernel/mapread.c", "kernel/format.c",
          "kernel/labels.c")  # fmt: skip

STATES = ("off", "attached", "killed", "disabled", "shed")
PROFILES = ("full", "reduced", "disabled")
# Of a feature of the driver: its state and profile.
FEATURES = {"one": ("attached", "full"), "two": ("disabled", "disabled"), "three": ("off", "disabled")}
CODES = ("EF_BUDGET_MAP_FILL", "EF_BUDGET_CPU", None, "EF_BUDGET_MAP_MEMORY", "EF_BUDGET_EVENT_RATE", "EF_BUDGET_DROPS")
HOST_CODES = (None, "EF_BUDGET_HOST_CPU", "EF_BUDGET_HOST_MEMORY", "EF_BUDGET_HOST_MAP_MEMORY",
              "EF_BUDGET_HOST_EVENT_RATE", None)  # fmt: skip
BARE = {"stats_enabled": 0, "clock_unknown": 1, "trust_withdrawn": 1, "desired_error": 1, "policy_error": 1}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tell"), "tell", NEEDED)


def samples(driver: Path, *words: str) -> dict[str, str]:
    """{name and labels: value}, without the common beginning; a sample that stands twice is an error."""
    found: dict[str, str] = {}
    for line in ask(driver, "metrics", *words).splitlines():
        if not line.startswith("#"):
            name, _, value = line.removeprefix("ebpf_fleet_").rpartition(" ")
            assert name not in found, name
            found[name] = value
    return found


def of_one(**values: Any) -> dict[str, str]:
    return {f'{name}{{feature="one"}}': str(value) for name, value in values.items()}


def by_feature(name: str, label: str, words: tuple[str, ...], hold: dict[str, str]) -> dict[str, str]:
    """A sample for each word, 1 where it holds."""
    return {
        f'{name}{{feature="{feature}",{label}="{word}"}}': str(int(held == word))
        for feature, held in hold.items() for word in words
    }  # fmt: skip


GAPS = ("attaching", "down", "reboot", "handover", "kill", "hold", "budget", "unable")


def unobserved() -> dict[str, str]:
    """Of the first the driver has 1 to 8 seconds and a half of each."""
    return {
        f'feature_unobserved_seconds_total{{feature="{feature}",reason="{gap}"}}':
        f"{number}.5" if feature == "one" else "0"
        for feature in FEATURES for number, gap in enumerate(GAPS, 1)
    }  # fmt: skip


def degradations() -> dict[str, str]:
    """The driver counts 1 to 6 for the feature's own budgets and 7 to 12 for the host's."""
    both = [*CODES, *HOST_CODES]
    return {
        f'degradations_total{{feature="{feature}",reason_code="{code}"}}': str(number if feature == "one" else 0)
        for feature in ("one", "two") for number, code in enumerate(both, 1) if code
    }  # fmt: skip


EXPECTED = {
    'build_info{loader_version="VERSION",bundle_version="1.2.3",bundle_digest="abc"}': "1",
    'kernel_info{release="6.1.0-\\"x\\"",family="6.1"}': "1",
    **by_feature("feature_profile", "profile", PROFILES, {name: profile for name, (_, profile) in FEATURES.items()}),
    **by_feature("feature_state", "state", STATES, {name: state for name, (state, _) in FEATURES.items()}),
    **by_feature("feature_degraded", "step", ("sampling", "reduced", "shed"), {"one": "sampling", "two": ""}),
    'feature_wanted{feature="one"}': "1",
    'feature_wanted{feature="two"}': "0",
    'feature_wanted{feature="three"}': "1",
    'feature_sample_every{feature="one"}': "2",
    'feature_sample_every{feature="two"}': "1",
    'feature_sample_every{feature="three"}': "3",
    **unobserved(),
    **of_one(events_produced_total=31, events_delivered_total=32, events_dropped_total=33, events_sampled_out_total=34,
             events_in_flight=35, consumer_lag_bytes=36, events_aggregated_total=44, events_weighted_total=45,
             series_unkept_total=61, consumer_lag_seconds="0.0025", events_thinned_total=100 + 11),
    'program_run_seconds_total{feature="one",program="p"}': "0.000000042",
    'program_runs_total{feature="one",program="p"}': "41",
    'map_entries{feature="one",map="m"}': "52",
    'map_max_entries{feature="one",map="m"}': "51",
    'map_memory_bytes{feature="one",map="m"}': "53",
    'backpressure_active{feature="one",policy="sample"}': "1",
    'source_thinned_events{feature="one",uid="1000"}': str(5 + 2),
    'source_thinned_events{feature="one",uid="1001"}': "3",
    'source_thinned_events{feature="one",uid="other"}': "7",
    'kill_engaged{scope="feature.one"}': "1",
    'kill_engaged{scope="family.6.1"}': "1",
    "kill_orders_unknown": "2",
    "desired_error": "0",
    "policy_error": "0",
    "stats_enabled": "1",
    "trust_withdrawn": "0",
    "clock_unknown": "0",
    "lease_left_seconds": "7.25",
    "events_unshipped_bytes": "84",
    "events_unshipped_deleted_bytes_total": "85",
    "audit_lost_total": "22",
    "loader_cpu_seconds_total": "1.5",
    "loader_resident_memory_bytes": "24",
    "status_timestamp_seconds": "1700000000.000000005",
    'budget_used_ratio{feature="one",budget="map_fill_ppm"}': "0.5",
    'budget_used_ratio{feature="one",budget="cpu_millicores"}': "0.5",
    'budget_used_ratio{feature="one",budget="map_memory_bytes"}': "0.25",
    'budget_used_ratio{feature="one",budget="event_rate_per_second"}': "0",
    'budget_used_ratio{feature="one",budget="drop_ratio_ppm"}': "+Inf",
    'host_budget_used_ratio{budget="cpu_millicores"}': "0.25",
    'host_budget_used_ratio{budget="rss_bytes"}': "0.25",
    # 12801 of 12800, cut to millionths.
    'host_budget_used_ratio{budget="map_memory_bytes"}': "1.000078",
    'host_budget_used_ratio{budget="event_rate_per_second"}': "0",
    **degradations(),
    'calls_total{call="read"}': "63",
    'calls_weighted_total{call="read"}': "630",
}  # fmt: skip


def is_histogram(name: str) -> bool:
    return name.startswith("wait_seconds")


def test_the_page_has_every_number_once_in_its_place_and_nothing_else(driver: Path) -> None:
    version = json.loads(ask(driver, "status"))["loader_version"]
    found = {name: value for name, value in samples(driver).items() if not is_histogram(name)}
    assert found == {name.replace("VERSION", version): value for name, value in EXPECTED.items()}


@pytest.mark.parametrize(("word", "divisor"), [("", 10**9), ("us", 10**6), ("bytes", 1)])
def test_the_bounds_of_a_histogram_are_powers_of_two_and_inf_has_every_slot(
    driver: Path, word: str, divisor: int
) -> None:
    """Slot i, in which the driver counted i + 1 values of weight 10, holds 2^i to 2^(i+1) - 1 of the raw unit."""
    for name, weight in (("wait_seconds", 1), ("wait_seconds_weighted", 10)):
        found = {key: value for key, value in samples(driver, *word.split()).items() if key.startswith(name + "_")}
        buckets = {key.split('"')[1]: int(value) for key, value in found.items() if key.startswith(f"{name}_bucket")}
        assert buckets.pop("+Inf") == weight * 64 * 65 // 2 == int(found[f"{name}_count"])
        assert {Fraction(bound): count for bound, count in buckets.items()} == {
            Fraction(2 ** (slot + 1) - 1, divisor): weight * (slot + 1) * (slot + 2) // 2 for slot in range(40)
        }
        assert Fraction(found[f"{name}_sum"]) == Fraction(weight * (3 * 10**9 + 1), divisor)


def test_what_is_not_known_has_no_sample_and_what_is_wrong_is_1(driver: Path) -> None:
    whole, bare = samples(driver), samples(driver, "bare")
    gone = {name.split("{")[0] for name in set(whole) - set(bare)}
    assert gone == {"events_unshipped_bytes", "events_unshipped_deleted_bytes_total", "budget_used_ratio",
                    "host_budget_used_ratio"}  # fmt: skip
    assert {name: int(value) for name, value in bare.items() if whole[name] != value} == BARE


@pytest.mark.parametrize(("word", "left"), [("lease=over", "0"), ("lease=none", None), ("lease=unusable", None)])
def test_a_lease_has_time_left_only_while_it_is_one(driver: Path, word: str, left: str | None) -> None:
    assert samples(driver, word).get("lease_left_seconds") == left


def test_without_a_bundle_the_build_is_empty_and_no_trust_is_withdrawn(driver: Path) -> None:
    found = samples(driver, "refused")
    assert [name.partition("bundle_version")[2] for name in found if name.startswith("build_info")] == [
        '="",bundle_digest=""}'
    ]
    assert found["trust_withdrawn"] == "0"
    status = json.loads(ask(driver, "status", "refused"))
    assert (status["bundle"], status["features"], status["trust"]) == (None, None, None)


def test_each_number_of_the_status_stands_in_its_place(driver: Path) -> None:
    status = json.loads(ask(driver, "status"))
    host = {name: status[name] for name in ("time_unix_ns", "boottime_ns", "started_boottime_ns", "boot_id", "pid",
                                           "state", "reason_code", "reason", "desired_error", "policy_error",
                                           "clock_known", "audit_lost", "stats_enabled", "compatibility")}  # fmt: skip
    assert host == {
        "time_unix_ns": 1700000000000000005, "boottime_ns": 100 * 10**9, "started_boottime_ns": 90 * 10**9,
        "boot_id": "boot", "pid": 21, "state": "running", "reason_code": "EF_OK", "reason": "all is well",
        "desired_error": None, "policy_error": None, "clock_known": True, "audit_lost": 22, "stats_enabled": True,
        "compatibility": None,
    }  # fmt: skip
    assert status["schema"] == "ebpf.fleet/status/v1"
    assert status["loader"] == {"cpu_ns": 1500000000, "rss_bytes": 24, "map_memory_bytes": 25}
    assert status["bundle"] == {"name": "fleet", "version": "1.2.3", "sequence": 77, "digest": "abc"}
    assert status["shipping"] == {
        "segment": 81, "cursor_segment": 82, "cursor_offset": 83, "unshipped_bytes": 84, "unshipped_deleted_bytes": 85,
    }  # fmt: skip
    assert status["lease"] == {
        "expires_boottime_ns": 107250000000, "left_ns": 7250000000, "holder": "h", "expired": False,
    }  # fmt: skip
    assert [one["path"] for one in status["kills"]] == ["/etc/feature.one", "/run/feature.one", "/run/family.6.1"]
    assert status["kill_unknown"] == ["/run/globl", "/run/x"]


def test_a_feature_in_the_status_tells_what_is_known_and_null_for_the_rest(driver: Path) -> None:
    features = json.loads(ask(driver, "status"))["features"]
    assert list(features) == ["one", "two", "three"]
    one = features["one"]
    assert one["programs"] == [
        {"name": "p", "id": 71, "tag": "0123456789abcdef", "run_cnt": 41, "run_time_ns": 42, "verified_insns": 43},
        None,
    ]
    assert one["links"] == [72, None]
    assert one["maps"] == [
        {"name": "m", "id": 73, "type": "hash", "max_entries": 51, "entries": 52, "memory_bytes": 53}, None
    ]  # fmt: skip
    assert one["counters"] == {"produced": 31, "delivered": 32, "dropped": 33, "sampled_out": 34, "in_flight": 35}
    backpressure = {"policy": "sample", "active": True, "thinning": 4, "aggregated": 44}
    assert one["consumer"] == {"lag_bytes": 36, "lag_ns": 2500000, "ring_bytes": 37, "lost": 38, "unwritten": 39,
                               "backpressure": backpressure}  # fmt: skip
    assert one["series"] == {"entries": 1, "max_entries": 62, "unkept": 61}
    assert {**one["degraded"], "reason": None} == {
        "step": "sampling", "reason_code": "EF_BUDGET_CPU", "reason": None, "measured": 46, "limit": 47,
        "unit": "millicores", "since_boottime_ns": 48, "steps": 1,
    }  # fmt: skip
    assert one["fairness"]["thinned"] == 111 and one["fairness"]["rate_per_second"] == 45
    assert [source["thinned"] for source in one["fairness"]["top"]] == [5, 3, 2]
    assert one["fairness"]["others_thinned"] == 7
    told = {key: one[key] for key in ("wanted", "state", "profile", "variant", "reason_code", "reason", "sample_every")}
    assert list(told.values()) == [True, "attached", "full", "ring", "EF_OK", "fine", 2]
    two = features["two"]
    assert [two[key] for key in ("consumer", "series", "degraded", "fairness", "variant")] == [None] * 5
    assert set(two["counters"].values()) == {None} and two["programs"] == two["links"] == two["maps"] == []
    assert (two["wanted"], two["state"], two["reason_code"]) == (False, "disabled", "EF_X")
    assert (features["three"]["wanted"], features["three"]["sample_every"]) == (True, 3)


def test_the_budget_in_the_status_has_what_was_used_beside_its_limit(driver: Path) -> None:
    budget = json.loads(ask(driver, "status"))["budget"]
    assert budget["host"] == {
        "cpu_millicores": {"measured": 5, "limit": 20}, "rss_bytes": {"measured": 1600, "limit": 6400},
        "map_memory_bytes": {"measured": 12801, "limit": 12800},
        "event_rate_per_second": {"measured": 0, "limit": 2000},
    }  # fmt: skip
    assert list(budget["features"]) == ["one"]
    assert budget["features"]["one"] == {
        "map_fill_ppm": {"measured": 450000, "limit": 900000}, "cpu_millicores": {"measured": 5, "limit": 10},
        "map_memory_bytes": {"measured": 300, "limit": 1200}, "event_rate_per_second": {"measured": 0, "limit": 7},
        "drop_ratio_ppm": {"measured": 1, "limit": 0},
    }  # fmt: skip
    bare = json.loads(ask(driver, "status", "bare"))
    assert (bare["budget"], bare["shipping"], bare["clock_known"], bare["trust"]["ok"]) == (None, None, False, False)


def test_the_list_of_programs_has_only_those_that_the_kernel_knows(driver: Path) -> None:
    assert ask(driver, "programs") == "71 0123456789abcdef one p"
