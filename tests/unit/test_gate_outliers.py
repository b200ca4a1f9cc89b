# SPDX-License-Identifier: GPL-3.0-or-later
"""Single hosts that grew for a reason of their own: where they pass, and where their number stops the batch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_gate import SECOND, check, judge_all, observation, spend, spoil

HELD, PASSED, FAILED = "inconclusive", "pass", "fail"


def quiet(**host: Any) -> dict[str, Any]:
    pair = {"before": observation(50 * SECOND), "after": observation()}
    for one in pair.values():
        for end in ("start", "end"):
            one[end]["host"]["cpus"] = 1
    pair["after"]["end"]["host"].update(host)
    return pair


def busy(ppm: int, loader_ns: int = 10_000_000) -> dict[str, Any]:
    """A host with one CPU, so much busier than before, of which a part is the loader's."""
    pair = quiet(cpu_busy_ns=11 * SECOND + ppm * 10_000)
    spend(pair["after"], loader_ns, 1_000_000)
    return pair


def full(lost: int) -> dict[str, Any]:
    return quiet(memory_available_bytes=10**9 - lost)


def batch(hosts: int, *others: dict[str, Any], **more: Any) -> dict[str, Any]:
    pairs = {f"h{at:02}": one for at, one in enumerate([*others, *[quiet()] * (hosts - len(others))])}
    return judge_all(pairs, **more)


def of_host(verdict: dict[str, Any], name: str, host: str = "h00") -> dict[str, Any]:
    (found,) = [one for one in verdict["checks"] if one["check"] == name and one["host"] == host]
    return found


@pytest.mark.parametrize(("hosts", "expected"), [(20, PASSED), (19, FAILED)])
def test_one_host_of_a_large_batch_may_grow_by_another_load(hosts: int, expected: str) -> None:
    for bad, name in ((busy(60_000), "host_cpu_delta"), (full(200 << 20), "host_memory_delta")):
        verdict = batch(hosts, bad)
        found = of_host(verdict, name)
        assert found["verdict"] == verdict["verdict"] == expected, verdict["sentence"]
        if expected == PASSED:
            assert "over the limit of" in found["sentence"] and "counted by host_outliers" in found["sentence"]
            one = check(verdict, "host_outliers")
            assert (one["measured"], one["limit"], one["verdict"]) == (50_000, 50_000, PASSED)
            assert one["sentence"] == (
                "1 of 20 hosts are over a limit of their growth, 50000 ppm of at most 50000: h00"
            )
        else:
            assert "host_outliers" not in {one["check"] for one in verdict["checks"]}


def test_two_of_twenty_are_too_many_and_a_host_counts_once() -> None:
    verdict = batch(20, busy(60_000), full(200 << 20))
    one = check(verdict, "host_outliers")
    assert (verdict["verdict"], one["verdict"], one["measured"]) == (FAILED, FAILED, 100_000)
    assert one["sentence"].endswith(": h00, h01")
    both = quiet(cpu_busy_ns=11 * SECOND + 60_000 * 10_000, memory_available_bytes=10**9 - (200 << 20))
    assert check(batch(20, both), "host_outliers")["measured"] == 50_000
    assert batch(20, busy(60_000), limits={"host_outliers_ppm": 49_999})["verdict"] == FAILED
    assert batch(20, busy(60_000), busy(60_000), limits={"host_outliers_ppm": 100_000})["verdict"] == PASSED


@pytest.mark.parametrize(
    ("loader_ns", "cpus", "expected"),
    [(250_000_000, 1, PASSED), (250_000_001, 1, FAILED), (250_000_001, 2, PASSED), (510_000_001, 2, FAILED)],
)
def test_what_is_ours_is_not_another_load(loader_ns: int, cpus: int, expected: str) -> None:
    """25 millicores of loader and, rounded up, 1 of programs are 26 of one CPU: half of 52,000 ppm."""
    bad = busy(60_000, loader_ns)
    bad["after"]["end"]["host"]["cpus"] = cpus
    found = of_host(batch(20, bad, limits={"host_cpu_delta_ppm": 52_000}), "host_cpu_delta")
    assert found["verdict"] == expected, found["sentence"]


@pytest.mark.parametrize("lost", ["cpus", "cpu"])
def test_where_ours_is_not_measured_each_host_is_held_to_its_limit(lost: str) -> None:
    bad = busy(60_000)
    if lost == "cpus":
        bad["after"]["end"]["host"]["cpus"] = None
    else:
        bad["after"]["end"]["status"]["loader"]["cpu_ns"] = None
    assert of_host(batch(20, bad), "host_cpu_delta")["verdict"] == FAILED


def test_memory_that_is_ours_is_not_another_load() -> None:
    for rss, expected in ((64 << 20, FAILED), ((64 << 20) - 900, PASSED)):
        bad = full(200 << 20)
        bad["after"]["end"]["status"]["loader"]["rss_bytes"] = rss
        assert of_host(batch(20, bad), "host_memory_delta")["verdict"] == expected
    bad["after"]["end"]["status"]["loader"]["rss_bytes"] = None
    assert of_host(batch(20, bad), "host_memory_delta")["verdict"] == FAILED


def test_controls_excuse_and_do_not_accuse() -> None:
    controls = {f"c{at}": busy(30_000) for at in range(3)}
    found = of_host(batch(1, busy(80_000), controls=controls), "host_cpu_delta")
    assert (found["measured"], found["verdict"]) == (50_000, PASSED) and "less the median of 3 controls" in found[
        "sentence"
    ]
    controls = {f"c{at}": busy(-30_000) for at in range(3)}
    found = of_host(batch(1, busy(40_000), controls=controls), "host_cpu_delta")
    assert (found["measured"], found["verdict"]) == (40_000, PASSED)
    # What they excuse is no outlier either.
    controls = {f"c{at}": busy(60_000) for at in range(3)}
    assert check(batch(20, *[busy(60_000)] * 20, controls=controls), "host_outliers")["measured"] == 0


def test_a_host_that_was_not_measured_is_held_by_its_own_check() -> None:
    verdict = batch(20, {"before": observation(50 * SECOND), "after": spoil("host/cpu_busy_ns", None)})
    assert verdict["verdict"] == HELD and of_host(verdict, "host_cpu_delta")["verdict"] == HELD


@pytest.mark.parametrize(("bad", "name"), [(busy(60_000), "host_cpu_delta"), (full(200 << 20), "host_memory_delta")])
def test_a_host_of_a_small_batch_is_measured_again_before_another_load_fails_it(bad: dict[str, Any], name: str) -> None:
    for readings, reading, expected in ((2, 1, HELD), (3, 2, HELD), (2, 2, FAILED), (1, 1, FAILED)):
        verdict = batch(3, bad, budget=(0.05, 1, readings, reading))
        found = of_host(verdict, name)
        assert found["verdict"] == verdict["verdict"] == expected, (readings, reading, verdict["sentence"])
        assert ("by something else than ours" in found["sentence"]) is (expected == HELD)
    assert of_host(batch(3, bad, budget=(0.05, 1, 2, 1)), name)["sentence"].endswith(
        "it fails where the next measurement is over too"
    )
    # Where an open check would stop nothing it is judged at once, and a dry run tells what it would be.
    assert batch(3, bad, budget=(0.05, 1, 2, 1), on_inconclusive={name: "pass"})["verdict"] == FAILED
    assert of_host(batch(3, bad, budget=(0.05, 1, 2, 1), dry_run=[name]), name)["verdict"] == FAILED


def test_what_is_ours_is_not_measured_again() -> None:
    over = batch(3, busy(60_000, 600_000_000), budget=(0.05, 1, 2, 1), limits={"loader_cpu_millicores": 1_000})
    assert of_host(over, "host_cpu_delta")["verdict"] == FAILED
    unknown = busy(60_000)
    unknown["after"]["end"]["host"]["cpus"] = None
    assert of_host(batch(3, unknown, budget=(0.05, 1, 2, 1)), "host_cpu_delta")["verdict"] == FAILED
