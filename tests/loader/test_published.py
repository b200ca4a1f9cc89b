# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader publishes can be read by others and written by none, and it samples as it was told."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.service import Service, feature_of, make_service, total, wait_for

EXEC = "exec_events"
COUNT = 400


@pytest.fixture
def start(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Any]:
    """Start a service with exec_events whose contract and wish sample so; `wish` None leaves it to the contract."""
    made: list[Service] = []

    def begin(contract_says: int, wish: int | None, **options: Any) -> Service:
        contract, objects = feature_of(feature_objects, EXEC)
        contract = copy.deepcopy(contract)
        for signal_ in contract["signals"]:
            signal_["sample_every"] = contract_says
        service = make_service(loader, tmp_path, trust, {EXEC: (contract, objects)}, **options)
        features = {EXEC: {"enabled": True, **({} if wish is None else {"sample_every": wish})}}
        service.write_desired(
            canonical({"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": features})
        )
        made.append(service)
        service.start_settled()
        return service

    yield begin
    for service in made:
        service.stop(signal.SIGKILL)


@pytest.mark.parametrize("mask", ["000", "022", "077"])
def test_published_files_are_read_by_all_and_written_by_none(start: Any, mask: str) -> None:
    """Whatever mask the process began with: node_exporter and the status command are other users."""
    service = start(1, 1, prefix=("sh", "-c", f'umask {mask}; exec "$@"', "sh"))
    wait_for(lambda: (service.state / "metrics.prom").exists(), "the metrics")
    modes = {path.name: path.stat().st_mode & 0o7777 for path in service.state.iterdir() if path.is_file()}
    assert {"status.json", "metrics.prom", "programs"} <= set(modes)
    assert {name: oct(mode) for name, mode in modes.items()} == dict.fromkeys(modes, "0o644")


@pytest.mark.parametrize(("contract_says", "wish", "every"), [(1, 1, 1), (1, 2, 2), (2, None, 2), (4, 1, 1), (1, 4, 4)])
def test_one_event_in_so_many_is_told_as_the_wish_or_else_the_contract_says(
    start: Any, contract_says: int, wish: int | None, every: int
) -> None:
    """Which ones is drawn at random: of 400 one in two is 200, give or take six standard deviations."""
    service = start(contract_says, wish)
    assert service.feature(EXEC)["sample_every"] == every
    before = service.fresh_status()["features"][EXEC]["counters"]
    subprocess.run(["sh", "-c", f"i=0; while [ $i -lt {COUNT} ]; do /bin/true; i=$((i + 1)); done"], check=True)

    def done() -> dict[str, int] | None:
        # Others execute meanwhile, so that something may be in flight in every account.
        now = service.feature(EXEC)["counters"]
        return now if now["produced"] - before["produced"] >= COUNT else None

    after: dict[str, int] = wait_for(done, "every exec is counted")
    assert total(after) == after["produced"]
    produced, sampled = (after[name] - before[name] for name in ("produced", "sampled_out"))
    share = 1 - 1 / every
    deviation = (produced * share * (1 - share)) ** 0.5
    assert abs(sampled - produced * share) <= 6 * deviation
    metrics = (service.state / "metrics.prom").read_text()
    assert f'ebpf_fleet_feature_sample_every{{feature="{EXEC}"}} {every}\n' in metrics
    assert os.path.getsize(service.events_path) > 0 and json.loads(service.events_path.read_text().splitlines()[0])
