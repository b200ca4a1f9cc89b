# SPDX-License-Identifier: GPL-3.0-or-later
"""A flood of executions by one user hides nothing of another, on the lab's kernels.

Leaves nothing in a guest: the loader runs from a folder of its own, which is removed.
"""

from __future__ import annotations

import functools
import json
import platform
import shutil
from pathlib import Path
from typing import Any, Mapping

import pytest

from tests.lab import ssh
from tests.lab.test_features import port_of, send
from tests.load.execs import copy_as
from tests.loader.bundles import Trust, canonical, make_bundle, make_key
from tests.loader.conftest import BUILD, run_make
from tests.loader.service import feature_of, total

HOSTS = ("k510", "k612")
FOLDER = "/run/ef-flood"
SECONDS = 300.0
NAME = "exec_events"
MARKS, MISSING = 50, 1
# An emulated processor executes some 30 times fewer programs a second than this machine, and all that the loader does
# costs it as much more: the rate that the flood exceeds is lower, and the CPU budgets are higher.
RATE = {"event_rate_per_second": 100}
CPU = {"cpu_millicores": 400}


@pytest.fixture(scope="session")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of a flood on a host, once in a session."""
    run_make("loader", "features")
    folder = tmp_path_factory.mktemp("flood")
    loader = BUILD / "loader" / platform.machine() / "ebpf-loader"
    trust = Trust(folder / "trust", make_key(folder / "keys"))
    target = folder / "host"
    target.mkdir()
    contract, objects = feature_of(BUILD / "features", NAME)
    contract["budget"].update(CPU, **RATE)
    make_bundle(target / "bundle", trust.key, {NAME: (contract, objects)}, loader)
    (target / "policy.json").write_bytes(canonical({"schema": "ebpf.fleet/policy/v1", "host": CPU}))
    shutil.copy(trust.signers, target / "signers")
    shutil.copy(loader, target / "ebpf-loader")
    shutil.copy(Path(__file__).parent / "flood" / "driver.py", target / "driver.py")
    for name in ("ef-flood", "ef-marked"):
        copy_as(target, name)

    @functools.lru_cache(maxsize=None)
    def run(host: str) -> Mapping[str, Any]:
        port = port_of(host)
        send(port, target, FOLDER)
        document: Mapping[str, Any] = json.loads(ssh.run(port, f"cd {FOLDER} && python3 driver.py .", SECONDS))
        ssh.run(port, f"rm -rf {FOLDER}")
        return document

    return run


@pytest.mark.parametrize("host", HOSTS)
def test_a_flood_by_one_user_hides_nothing_of_another(flooded: Any, host: str) -> None:
    found = flooded(host)
    counters = found["counters"]
    told = {key: found[key] for key in ("variant", "flooded", "marks", "marked", "counters", "fairness", "degraded")}
    print(host, told)
    assert found["variant"] == "full" and found["marks"] == MARKS
    assert found["marked"] >= MARKS - MISSING, told
    assert counters["produced"] == total(counters) and counters["in_flight"] == counters["dropped"] == 0
    assert counters["produced"] >= found["flooded"] + MARKS
    assert counters["delivered"] == found["lines"] and counters["sampled_out"] == found["thinned"]


@pytest.mark.parametrize("host", HOSTS)
def test_the_contracts_budgets_hold_meanwhile(flooded: Any, host: str) -> None:
    """Nothing over its limit for so long that a budget had to take a step."""
    found = flooded(host)
    assert found["degraded"] == [], found["degraded"]
    assert found["fairness"]["rate_per_second"] == RATE["event_rate_per_second"]
    assert found["thinned"] > 0, f"{found['flooded']} executions in 10 s: was it a flood, on a machine that is busy?"
    rates = [each["features"][NAME]["event_rate_per_second"] for each in found["budgets"]]
    assert all(each["measured"] is None or each["measured"] <= each["limit"] for each in rates), rates
