# SPDX-License-Identifier: GPL-3.0-or-later
"""Budgets: each is really exceeded, by a real load on this kernel, and the loader gives way in steps."""

from __future__ import annotations

import os
import platform
import re
import signal
import time
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest

from tests.loader.bundles import Trust
from tests.loader.exposition import parse
from tests.loader.foreign import Caller, compile_ours, fixture_contract
from tests.loader.service import ROOMY_BUDGET, ROOMY_POLICY, Service, make_service, wait_for

GETPPID = {"x86_64": 110, "aarch64": 173}[platform.machine()]
LADDER = [("sampling", 1), ("sampling", 2), ("sampling", 3), ("shed", 4)]
FIREHOSE = [("sampling", 1), ("sampling", 2), ("sampling", 3), ("reduced", 4), ("shed", 5)]


def policy(host: Mapping[str, int] | None = None, **features: Mapping[str, int]) -> dict[str, Any]:
    """A host's policy that limits nothing but what is named."""
    document: dict[str, Any] = {**ROOMY_POLICY, "host": {**ROOMY_POLICY["host"], **(host or {})}}  # type: ignore[dict-item]
    if features:
        document["features"] = features
    return document


class Loaded:
    """The service with counter_kinds and syscall_firehose, and processes that call without end."""

    def __init__(self, loader: Path, folder: Path, trust: Trust) -> None:
        self.loader, self.folder, self.trust = loader, folder, trust
        self.caller = Caller()
        self.service: Service | None = None

    def counting(self, entries: int = 64, spread: int = 5, **budget: int) -> tuple[Any, dict[str, bytes]]:
        """counter_kinds over a hash map; the budget is roomy but for what is named."""
        options = ["-DEF_CK_TYPE=BPF_MAP_TYPE_HASH", f"-DEF_CK_ENTRIES={entries}", f"-DEF_CK_SPREAD={spread}"]
        options += [f"-DEF_CK_PID={self.caller.pid}", f"-DEF_CK_NR={GETPPID}"]
        contract = fixture_contract("counter_kinds")
        contract["maps"][-1]["max_entries"] = entries
        contract["budget"] = {**ROOMY_BUDGET, "event_rate_per_second": 0, **budget}
        return contract, {"full": compile_ours("counter_kinds", "full", self.folder / "ck.bpf.o", *options)}

    def firehose(self, **budget: int) -> tuple[Any, dict[str, bytes]]:
        """syscall_firehose in two variants, which drops whatever it is asked."""
        contract = fixture_contract("syscall_firehose")
        contract["budget"] = {**ROOMY_BUDGET, **budget}
        target = self.folder / "fh.bpf.o"
        return contract, {each: compile_ours("syscall_firehose", each, target) for each in ("full", "reduced")}

    def start(self, host_policy: Any, **features: tuple[Any, dict[str, bytes]]) -> Service:
        self.service = make_service(self.loader, self.folder, self.trust, features, budgets=True)
        self.service.allow(host_policy)
        self.service.want(*features)
        self.service.start_settled()
        return self.service

    def storm(self) -> None:
        self.caller.begin(1 << 40)

    def end(self) -> None:
        self.caller.process.kill()
        self.caller.process.wait()
        if self.service is not None and self.service.process is not None:
            self.service.stop(signal.SIGKILL)


@pytest.fixture
def loaded(loader: Path, tmp_path: Path, trust: Trust) -> Iterator[Loaded]:
    made = Loaded(loader, tmp_path, trust)
    yield made
    made.end()


def steps_down(service: Service, feature: str) -> list[str]:
    """The steps of a feature, in the journal's order."""
    return re.findall(rf"feature {feature}: degraded: (\w+):", service.journal())


def follow_down(service: Service, feature: str, last: str = "shed", seconds: float = 40) -> list[tuple[str, int]]:
    """Every state of `degraded` that the status showed, in order, until the last step."""
    seen: list[tuple[str, int]] = []

    def reached() -> bool:
        degraded = service.feature(feature)["degraded"]
        if degraded and (degraded["step"], degraded["steps"]) not in seen:
            seen.append((degraded["step"], degraded["steps"]))
        return bool(seen) and seen[-1][0] == last

    wait_for(reached, f"{feature} is {last}", seconds)
    return seen


def holds_the_reason(service: Service, feature: str, code: str, limit: int) -> None:
    """Status, journal and metrics tell the same of a feature that was shed."""
    found = service.feature(feature)
    degraded = found["degraded"]
    assert (found["state"], found["reason_code"], found["programs"], found["links"]) == ("shed", code, [], [])
    assert (degraded["reason_code"], degraded["limit"]) == (code, limit)
    assert degraded["measured"] >= limit and str(degraded["measured"]) in degraded["reason"]
    assert degraded["since_boottime_ns"] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert f"feature {feature}: degraded: shed: {degraded['reason']} ({code})" in service.journal()
    metrics = parse((service.state / "metrics.prom").read_text())
    labels = {
        dict(each)["step"]: value
        for each, value in metrics.samples["ebpf_fleet_feature_degraded"].items()
        if dict(each)["feature"] == feature
    }
    assert labels == {"sampling": 0.0, "reduced": 0.0, "shed": 1.0}
    total = metrics.samples["ebpf_fleet_degradations_total"]
    assert total[(("feature", feature), ("reason_code", code))] == len(steps_down(service, feature))


CASES = {
    "cpu": ("counter_kinds", {"cpu_millicores": 1}, "EF_BUDGET_CPU", LADDER),
    "event_rate": ("syscall_firehose", {"event_rate_per_second": 1}, "EF_BUDGET_EVENT_RATE", FIREHOSE),
    "drops": ("syscall_firehose", {"drop_ratio_ppm": 0}, "EF_BUDGET_DROPS", None),
    "map_memory": (
        "syscall_firehose",
        {"map_memory_bytes": 4096},
        "EF_BUDGET_MAP_MEMORY",
        [("reduced", 1), ("shed", 2)],
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("case", ["cpu", "event_rate", "map_memory"])
def test_a_contracts_limit_takes_its_feature_down_step_by_step(loaded: Loaded, case: str) -> None:
    feature, budget, code, ladder = CASES[case]
    made = loaded.counting(**budget) if feature == "counter_kinds" else loaded.firehose(**budget)
    # 64 times thinner is still over one event a second, and the program's own run time over one millicore.
    service = loaded.start(policy(), **{feature: made})
    loaded.storm()
    assert follow_down(service, feature) == ladder
    holds_the_reason(service, feature, code, next(iter(budget.values())))
    assert service.now()["state"] == "idle" and service.now()["reason_code"] == code


def test_drops_thin_the_sampling_and_the_programs_obey(loaded: Loaded) -> None:
    service = loaded.start(policy(), syscall_firehose=loaded.firehose(drop_ratio_ppm=10000))
    loaded.storm()
    follow_down(service, "syscall_firehose", "sampling")
    found = service.feature("syscall_firehose")
    assert found["degraded"]["reason_code"] == "EF_BUDGET_DROPS"
    assert found["degraded"]["measured"] > 10000 == found["degraded"]["limit"]
    assert found["sample_every"] == 4 ** found["degraded"]["steps"]
    before = service.fresh_status()["features"]["syscall_firehose"]["counters"]["sampled_out"]
    after = service.fresh_status()["features"]["syscall_firehose"]["counters"]["sampled_out"]
    assert after > before, "the thinner sampling is in the kernel"


def test_a_map_is_acted_on_before_it_is_full(loaded: Loaded) -> None:
    service = loaded.start(policy({"map_fill_ppm": 500000}), counter_kinds=loaded.counting(1000, 700))
    loaded.caller.call(700)
    assert follow_down(service, "counter_kinds") == LADDER
    holds_the_reason(service, "counter_kinds", "EF_BUDGET_MAP_FILL", 500000)
    assert service.feature("counter_kinds")["counters"]["dropped"] == 0, "it was never full"
    assert service.feature("counter_kinds")["degraded"]["measured"] == 700000


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        pytest.param({"cpu_millicores": 1}, "EF_BUDGET_HOST_CPU", marks=pytest.mark.slow),
        pytest.param({"event_rate_per_second": 1}, "EF_BUDGET_HOST_EVENT_RATE", marks=pytest.mark.slow),
        ({"map_memory_bytes": 1}, "EF_BUDGET_HOST_MAP_MEMORY"),
        ({"rss_bytes": 1}, "EF_BUDGET_HOST_MEMORY"),
    ],
)
def test_a_hosts_limit_sheds_by_cost_order(loaded: Loaded, limits: dict[str, int], code: str) -> None:
    cheap, dear = loaded.counting(), loaded.firehose()
    cheap[0]["cost_order"], dear[0]["cost_order"] = 10, 90
    service = loaded.start(policy(limits), counter_kinds=cheap, syscall_firehose=dear)
    loaded.storm()
    follow_down(service, "syscall_firehose", seconds=60)
    holds_the_reason(service, "syscall_firehose", code, next(iter(limits.values())))
    if "event_rate_per_second" in limits:
        assert service.feature("counter_kinds")["state"] == "attached", "it sends no events"
        return
    follow_down(service, "counter_kinds", seconds=60)
    shed = re.findall(r"feature (\w+): degraded: shed", service.journal())
    assert shed == ["syscall_firehose", "counter_kinds"], "the highest cost order goes first"


@pytest.mark.slow
def test_recovery_is_slower_than_degradation_and_slower_with_each_relapse(loaded: Loaded) -> None:
    service = loaded.start(policy(counter_kinds={"map_memory_bytes": 1}), counter_kinds=loaded.counting())
    follow_down(service, "counter_kinds")
    down = time.monotonic()
    wait_for(lambda: "recovered a step: shed" in service.journal(), "it is tried again", 30)
    first = time.monotonic() - down
    wait_for(lambda: len(steps_down(service, "counter_kinds")) == 2, "a relapse", 10)
    down = time.monotonic()
    wait_for(lambda: service.journal().count("recovered a step: shed") == 2, "and again", 60)
    second = time.monotonic() - down
    # Counted in intervals of a second each: 2 bad ones down, 12 good ones up, then 24.
    assert first > 10 and second > 20 and second > first + 8
    assert len(steps_down(service, "counter_kinds")) <= 3, "flapping is bounded"


@pytest.mark.slow
def test_it_comes_back_when_the_load_is_over(loaded: Loaded) -> None:
    service = loaded.start(policy(counter_kinds={"map_memory_bytes": 1}), counter_kinds=loaded.counting())
    follow_down(service, "counter_kinds")
    counted = service.feature("counter_kinds")["counters"]
    service.allow(policy())
    service.wait_state("counter_kinds", "attached", 30)
    found = service.fresh_status()["features"]["counter_kinds"]
    assert (found["degraded"], found["sample_every"], found["reason_code"]) == (None, 1, "EF_OK")
    assert found["counters"]["produced"] >= counted["produced"], "nothing goes backwards"


def test_a_policy_tightens_and_never_loosens(loaded: Loaded) -> None:
    limits = {"cpu_millicores": 1000, "map_memory_bytes": 1 << 30, "drop_ratio_ppm": 900000}
    made = loaded.counting(cpu_millicores=7, map_memory_bytes=1 << 20, drop_ratio_ppm=5)
    service = loaded.start(policy(counter_kinds=limits), counter_kinds=made)
    budget = service.fresh_status()["budget"]["features"]["counter_kinds"]
    in_force = {name: entry["limit"] for name, entry in budget.items()}
    assert in_force == {
        "cpu_millicores": 7,
        "map_memory_bytes": 1 << 20,
        "event_rate_per_second": None,
        "drop_ratio_ppm": 5,
        "map_fill_ppm": 1000000,
    }
    service.allow(policy(counter_kinds={"cpu_millicores": 3, "event_rate_per_second": 9}))

    def tightened() -> bool:
        now = service.now()["budget"]["features"]["counter_kinds"]
        return (now["cpu_millicores"]["limit"], now["event_rate_per_second"]["limit"]) == (3, 9)

    wait_for(tightened, "the tighter policy is in force")


def test_without_a_policy_the_documented_defaults_hold(loaded: Loaded) -> None:
    service = loaded.start(policy(), counter_kinds=loaded.counting())
    wait_for(lambda: service.now()["budget"], "the first interval is over")
    (service.etc / "policy.json").unlink()

    def host() -> dict[str, int]:
        return {name: each["limit"] for name, each in service.now()["budget"]["host"].items()}

    wait_for(
        lambda: (
            host()
            == {
                "cpu_millicores": 20,
                "rss_bytes": 67108864,
                "map_memory_bytes": 134217728,
                "event_rate_per_second": 200000,
            }
        ),
        "the defaults hold",
    )
    measured = wait_for(lambda: service.now()["budget"]["host"]["cpu_millicores"]["measured"], "CPU is measured")
    assert 0 < measured < 1000


BAD = [
    (b"{", "policy.json: "),
    (b'{"schema": "ebpf.fleet/policy/v2"}', "field 'schema'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "hosts": {}}', "field 'hosts'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "host": {"cpu_millicores": 0}}', "field 'host.cpu_millicores'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "host": {"cpu_millicores": 1.5}}', "field 'host.cpu_millicores'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "host": {"cpu": 5}}', "field 'host.cpu'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "features": {"a": {"rss_bytes": 5}}}', "field 'features.a.rss_bytes'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "features": {"A": {}}}', "field 'features.A'"),
    (b'{"schema": "ebpf.fleet/policy/v1", "sink": {"kind": "tcp"}}', "sink.kind"),
    (b'{"schema": "ebpf.fleet/policy/v1", "sink": {"kind": "datagram", "path": "x"}}', "sink.path"),
    (b'{"schema": "ebpf.fleet/policy/v1", "sink": {"kind": "jsonl", "path": "/x"}}', "sink.path"),
    (b'{"schema": "ebpf.fleet/policy/v1", "sink": {"kind": "jsonl", "files": 0}}', "sink.files"),
]


def test_a_malformed_policy_runs_nothing_at_start_until_it_is_mended(loaded: Loaded) -> None:
    service = loaded.start(BAD[0][0], counter_kinds=loaded.counting())
    found = service.feature("counter_kinds")
    assert (found["state"], found["reason_code"]) == ("off", "EF_HOST_POLICY_MALFORMED")
    assert service.now()["state"] == "idle" and service.now()["reason_code"] == "EF_HOST_POLICY_MALFORMED"
    service.allow(policy())
    service.wait_state("counter_kinds", "attached")
    assert service.now()["policy_error"] is None


def test_a_malformed_policy_at_run_time_leaves_the_old_one_in_force(loaded: Loaded) -> None:
    service = loaded.start(policy({"cpu_millicores": 4321}), counter_kinds=loaded.counting())
    wait_for(lambda: service.now()["budget"], "the first interval is over")
    for data, word in BAD:
        service.allow(data)
        wait_for(lambda word=word: word in (service.now()["policy_error"] or ""), f"{data!r} is named by {word}")
        assert "ebpf_fleet_policy" in service.now()["policy_error"], "the remedy is named"
        assert service.now()["budget"]["host"]["cpu_millicores"]["limit"] == 4321
        assert service.feature("counter_kinds")["state"] == "attached"
    service.allow(policy({"cpu_millicores": 4322}))
    wait_for(lambda: service.now()["budget"]["host"]["cpu_millicores"]["limit"] == 4322, "the good one is read")
    assert service.now()["policy_error"] is None


def test_a_kill_goes_before_a_shed_and_what_is_not_wanted_is_forgotten(loaded: Loaded) -> None:
    service = loaded.start(policy(counter_kinds={"map_memory_bytes": 1}), counter_kinds=loaded.counting())
    follow_down(service, "counter_kinds")
    order = service.order("feature.counter_kinds")
    service.wait_state("counter_kinds", "killed")
    order.unlink()
    service.wait_state("counter_kinds", "shed")
    service.want()
    service.wait_state("counter_kinds", "off")
    assert service.feature("counter_kinds")["degraded"] is None
    assert os.path.exists(service.state / "status.json")
