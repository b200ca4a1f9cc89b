# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums of weights agree with the truth within their stated error, however the sampling changes.

The error that is stated (docs/formats/records.md#weights): an event is taken with the probability 1/w, independently
of the others, and counts w then. The sum of the weights of what was taken has the mean N, the number of events, and
the variance sum of (w - 1) over all events, of which sum of w (w - 1) over those that were taken is an estimate
without bias (Horvitz and Thompson, 1952). A test allows five standard errors: by chance it fails less than once in a
million runs.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.load.execs import Execs, copy_as
from tests.loader.bundles import Trust
from tests.loader.exposition import parse
from tests.loader.service import BOTH, Service, feature_of, make_service, total, until_end, wait_for

ERRORS = 5
UID = 61234


@pytest.fixture
def load_binary() -> Iterator[Path]:
    """Where any user may execute it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield copy_as(folder, "weighed")
    shutil.rmtree(folder)


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    yield from until_end(
        make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    )


def standard_error(weights: list[int]) -> float:
    """Of their sum; see above."""
    return math.sqrt(sum(weight * (weight - 1) for weight in weights))


def sampled(service: Service, **every: int) -> None:
    service.want(*BOTH, **every)
    for name, wanted in every.items():
        wait_for(lambda name=name, wanted=wanted: service.feature(name)["sample_every"] == wanted, "the sampling")


def told(service: Service) -> tuple[dict[str, Any], int, int]:
    """A status, and the weights of all executions in the file, added up before it and after it: others execute too."""
    service.fresh_status()  # what happened before this call is written by now
    before = sum(weights_of(service))
    status = service.fresh_status()["features"]
    return status, before, sum(weights_of(service))


def weights_of(service: Service, uid: int | None = None) -> list[int]:
    return [one["weight"] for one in service.events() if one["feature"] == "exec_events" and uid in (None, one["uid"])]


def samples(service: Service) -> dict[str, float]:
    found = parse((service.state / "metrics.prom").read_text()).samples
    return {
        f"{name}{''.join(sorted(f'{{{key}={value}}}' for key, value in labels))}": number
        for name, series in found.items()
        for labels, number in series.items()
    }


def test_a_known_load_under_changing_sampling_is_estimated_within_its_error(
    service: Service, load_binary: Path
) -> None:
    truth = 0
    sampled_at_start = 1
    service.want(*BOTH, exec_events=sampled_at_start, runqlat=2)
    service.start_settled()
    before, _least, _most = told(service)
    phases = [1, 4, 16, 3, 64, 1]
    for every in phases:
        sampled(service, exec_events=every, runqlat=2 * every)
        truth += Execs(load_binary, [UID], count=400).wait()
    status, least, most = told(service)
    weights = weights_of(service, UID)
    assert set(weights) == set(phases) and truth == 400 * len(phases)
    error = standard_error(weights)
    assert 0 < error < truth / 3, "an error that says something"
    assert abs(sum(weights) - truth) <= ERRORS * error, (sum(weights), truth, error)
    assert abs(len(weights) - truth) > ERRORS * error, "without weights it would be wrong"
    # All executions of the host, against the exact count of what was produced.
    weighted, counters = status["exec_events"]["weighted"], status["exec_events"]["counters"]
    assert total(counters) == counters["produced"] and counters["dropped"] == 0
    assert least <= weighted <= most
    allowed = ERRORS * standard_error(weights_of(service)) + counters["in_flight"] * max(phases)
    assert abs(weighted - counters["produced"]) <= allowed
    # The histogram, whose weights the kernel adds up: each was taken with one in 2 to 128.
    waits = status["runqlat"]["counters"]
    grown = waits["produced"] - before["runqlat"]["counters"]["produced"]
    assert total(waits) == waits["produced"] and grown > 1000
    bound = math.sqrt(
        2 * max(phases) * waits["produced"]
    )  # the variance is below (w - 1) for each, with the greatest w
    lost = waits["dropped"] + waits["in_flight"] * 2 * max(phases)
    assert abs(status["runqlat"]["weighted"] - waits["produced"]) <= ERRORS * bound + lost
    found = samples(service)
    count, estimate = (found[f"ebpf_fleet_run_queue_latency_seconds{kind}_count"] for kind in ("", "_weighted"))
    assert count < estimate == found["ebpf_fleet_events_weighted_total{feature=runqlat}"]
    buckets = [name for name in found if re.search(r"weighted_bucket", name)]
    assert len(buckets) == 41 and found["ebpf_fleet_events_weighted_total{feature=exec_events}"] >= weighted


def test_a_histogram_and_the_sum_of_its_weights_are_of_one_moment(service: Service) -> None:
    """Waits end all the time, also while the loader reads them."""
    service.want("runqlat", runqlat=2)
    service.start_settled()
    hogs = [subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) for _ in range(3)]
    try:
        sums = set()
        for _ in range(10):
            service.fresh_status()
            found = samples(service)
            sums.add(found["ebpf_fleet_run_queue_latency_seconds_weighted_count"])
            assert found["ebpf_fleet_events_weighted_total{feature=runqlat}"] == max(sums)
        assert len(sums) == 10, "waits ended between any two of them"
    finally:
        for each in hogs:
            each.kill()
            each.wait()


@pytest.mark.slow
def test_weights_stay_over_detach_and_attach(service: Service, load_binary: Path) -> None:
    service.want(*BOTH, exec_events=2, runqlat=2)
    service.start_settled()
    Execs(load_binary, [UID], count=100).wait()
    begun, _least, _most = told(service)
    order = service.order("global")
    service.wait_state("exec_events", "killed")
    held = service.fresh_status()["features"]
    assert all(held[name]["weighted"] >= begun[name]["weighted"] > 0 for name in BOTH)
    order.unlink()
    service.wait_state("exec_events", "attached")
    Execs(load_binary, [UID], count=100).wait()
    again, least, most = told(service)
    assert all(again[name]["weighted"] > held[name]["weighted"] for name in BOTH)
    assert least <= again["exec_events"]["weighted"] <= most and set(weights_of(service)) == {2}
