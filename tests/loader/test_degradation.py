# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the loader steps down and when it steps up again, and the audit of it."""

from __future__ import annotations

import json
import platform
import shutil
import signal
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.foreign import compile_ours, fixture_contract
from tests.loader.service import Service, make_service, wait_for
from tests.soak.load import Caller

CALLS = "soak_calls"
GETPPID = {"x86_64": 110, "aarch64": 173}
LIMITS = {"cpu_millicores": 1000, "map_memory_bytes": 1 << 24, "event_rate_per_second": 10**6, "drop_ratio_ppm": 10**6}
WIDE = {
    "cpu_millicores": 4000, "rss_bytes": 1 << 30, "map_memory_bytes": 1 << 30, "event_rate_per_second": 10**7,
    "drop_ratio_ppm": 10**6, "map_fill_ppm": 10**6,
}  # fmt: skip


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    made.end()


@pytest.fixture
def services() -> Iterator[list[Service]]:
    """Every service that a test made; ended after it."""
    made: list[Service] = []
    yield made
    for each in made:
        if each.process is not None:
            each.stop(signal.SIGKILL)


def calls_feature(folder: Path, caller: Caller, **limits: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A record for each getppid of the caller, in two variants that do the same."""
    folder.mkdir(parents=True, exist_ok=True)
    number = GETPPID[platform.machine()]
    options = (f"-DEF_SOAK_PID={caller.pid}", f"-DEF_SOAK_NR={number}")
    data = compile_ours(CALLS, "full", folder / "calls.bpf.o", *options)
    contract = fixture_contract(CALLS)
    contract["budget"] = {**LIMITS, **limits}
    contract["variants"] = [{**contract["variants"][0], "name": name} for name in ("full", "reduced")]
    return contract, {"full": data, "reduced": data}


def write_policy(service: Service, features: dict[str, Any] | None = None, **host: int) -> None:
    """Replace policy.json; the host's limits are wide where they are not named."""
    policy = {"schema": "ebpf.fleet/policy/v1", "host": {**WIDE, **host}, "features": features or {}}
    part = service.etc / ".policy.part"
    part.write_text(json.dumps(policy))
    part.rename(service.etc / "policy.json")


def degraded(service: Service, name: str, step: str, seconds: float = 30.0) -> dict[str, Any]:
    """The feature's status once it stands on that step."""

    def reached() -> dict[str, Any] | None:
        assert service.alive(), service.journal()
        found = service.feature(name)
        return found if found["degraded"] and found["degraded"]["step"] == step else None

    found: dict[str, Any] = wait_for(reached, f"{name} steps down to {step}", seconds)
    return found


def records(service: Service, event: str) -> list[dict[str, Any]]:
    lines = (service.log / "audit.jsonl").read_text().splitlines()
    return [each for each in map(json.loads, lines) if each["event"] == event]


@pytest.fixture
def calls(loader: Path, tmp_path: Path, trust: Trust, caller: Caller, services: list[Service]) -> Any:
    """Make a service with the calls feature under these contract limits; not started."""

    def make(**limits: int) -> Service:
        service = make_service(
            loader, tmp_path, trust, {CALLS: calls_feature(tmp_path / "o", caller, **limits)}, budgets=True
        )
        services.append(service)
        service.want(CALLS)
        return service

    return make


def test_at_run_time_the_policy_that_was_read_last_stays(calls: Any) -> None:
    service = calls()
    write_policy(service, {CALLS: {"cpu_millicores": 9}})
    service.start_settled()
    (service.etc / ".part").write_text("{")
    (service.etc / ".part").rename(service.etc / "policy.json")
    wait_for(lambda: service.now()["policy_error"], "it is said")
    wait_for(lambda: service.now()["budget"], "an account")
    assert service.feature(CALLS)["state"] == "attached"
    assert service.now()["budget"]["features"][CALLS]["cpu_millicores"]["limit"] == 9
    assert [each["reason_code"] for each in records(service, "policy")] == ["EF_OK", "EF_HOST_POLICY_MALFORMED"]


@pytest.mark.slow
def test_an_event_rate_is_thinned_until_it_fits_and_recovers_more_slowly(calls: Any, caller: Caller) -> None:
    service = calls(event_rate_per_second=400)
    write_policy(service)
    service.start_settled()
    caller.rate(2000)
    found = degraded(service, CALLS, "sampling")
    assert found["degraded"]["reason_code"] == "EF_BUDGET_EVENT_RATE"
    assert found["degraded"]["measured"] > found["degraded"]["limit"] == 400
    assert found["degraded"]["unit"] == "per_second"
    wait_for(lambda: service.feature(CALLS)["sample_every"] == 16, "16 is thin enough", 20)
    until = service.now()["time_unix_ns"] + 5 * 10**9
    wait_for(lambda: service.now()["time_unix_ns"] > until, "five more intervals")
    assert service.feature(CALLS)["sample_every"] == 16 and service.feature(CALLS)["state"] == "attached"
    assert service.feature(CALLS)["counters"]["sampled_out"] > 0
    assert "degraded: sampling: the feature's event_rate_per_second was" in service.journal()
    wait_for(lambda: records(service, "recover"), "one step up", 40)
    last_fall, recovery = records(service, "degrade")[-1], records(service, "recover")[0]
    assert recovery["boottime_ns"] - last_fall["boottime_ns"] > 11 * 10**9, "not before twelve good intervals"
    wait_for(lambda: len(records(service, "degrade")) == 3, "still too much: down again", 20)
    until = service.now()["time_unix_ns"] + 16 * 10**9
    wait_for(lambda: service.now()["time_unix_ns"] > until, "a relapse is waited for twice as long", 40)
    assert len(records(service, "recover")) == 1 and service.feature(CALLS)["sample_every"] == 16


@pytest.mark.sample(1)
@pytest.mark.parametrize("every", [1, 64])
def test_what_is_lost_is_held_to_its_ratio(calls: Any, caller: Caller, every: int) -> None:
    """Of what sampling lets pass: however thin it is, that all of it is lost is 100 %."""
    service = calls(drop_ratio_ppm=10000)
    service.want(CALLS, **{CALLS: every})
    write_policy(service)
    service.start_settled()
    shutil.rmtree(service.log)  # nothing can be written
    service.log.write_text("in its place")
    caller.rate(1000)
    found = degraded(service, CALLS, "sampling")
    # All but what one reading had as produced and the next as dropped; thinned 64 times some 15 pass in an interval.
    least = 900000 if every == 1 else 500000
    assert found["degraded"]["reason_code"] == "EF_BUDGET_DROPS" and found["degraded"]["measured"] > least
