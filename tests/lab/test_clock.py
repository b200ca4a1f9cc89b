# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak's clock jumps, in a guest: the wall clock of the machine itself belongs to everybody.

EBPF_FLEET_CLOCK_HOST names another guest than k612, EBPF_FLEET_CLOCK_ROUNDS how often it makes all of its jumps.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.lab import ssh
from tests.lab.test_features import port_of, send
from tests.loader.bundles import Trust, make_key
from tests.loader.conftest import BUILD, run_make
from tests.loader.features import rounds
from tests.loader.service import total

HOST = os.environ.get("EBPF_FLEET_CLOCK_HOST", "k612")
HERE = Path(__file__).resolve().parent
FOLDER = "/run/ef-features"  # where send() puts it
ROUNDS = int(os.environ.get("EBPF_FLEET_CLOCK_ROUNDS", "1"))
SECONDS = 600.0  # of a round
# `make soak` runs it with many rounds, make test-all with one.
pytestmark = pytest.mark.slow
GROWING = ("produced", "delivered", "dropped", "sampled_out")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the loader said while the guest's clock jumped."""
    port = port_of(HOST)
    run_make("loader", "features")
    folder = tmp_path_factory.mktemp("clock")
    binary = BUILD / "loader" / platform.machine() / "ebpf-loader"
    target = rounds.make_round(folder, 0, BUILD / "features", binary, Trust(folder / "trust", make_key(folder)))
    shutil.copy(HERE / "clock_jumps.py", target)
    send(port, target)
    command = f"cd {FOLDER} && python3 clock_jumps.py ./ebpf-loader $PWD/bundle $PWD/signers {ROUNDS}"
    document = json.loads(ssh.run(port, command, SECONDS * ROUNDS))
    ssh.run(port, f"rm -rf {FOLDER}")
    return document


def statuses(seen: Any) -> Iterator[dict[str, Any]]:
    for turn in seen["turns"]:
        yield from turn["statuses"]
    yield seen["off"]


def test_the_sums_are_exact_and_grow_whatever_the_clock_says(seen: Any) -> None:
    last: dict[str, dict[str, int]] = {}
    for status in statuses(seen):
        for name, feature in status["features"].items():
            counters = feature["counters"]
            assert counters["produced"] == total(counters) and min(counters.values()) >= 0, (name, counters)
            assert all(counters[key] >= last.get(name, counters)[key] for key in GROWING), (name, counters, last)
            last[name] = counters


def test_nothing_is_detached_or_goes_silent_by_a_jump(seen: Any) -> None:
    first = seen["turns"][0]["statuses"][0]
    links = {name: feature["links"] for name, feature in first["features"].items()}
    assert any(links.values())
    for turn in seen["turns"]:
        for status in turn["statuses"]:
            assert {name: each["links"] for name, each in status["features"].items()} == links, turn["jump"]
        late = turn["statuses"][-1]["boottime_ns"] - turn["statuses"][0]["boottime_ns"]
        assert late < 60e9, f"three statuses took {late / 1e9} s across a jump of {turn['jump']} s"


def test_every_program_is_counted_across_a_jump(seen: Any) -> None:
    for turn in seen["turns"]:
        _, behind, after = (each["features"]["exec_events"]["counters"]["produced"] for each in turn["statuses"])
        assert after - behind >= seen["execs"], turn["jump"]
    counters = seen["off"]["features"]["exec_events"]["counters"]
    assert counters["in_flight"] == 0 and counters["delivered"] == len(seen["events"])


def test_events_carry_the_wall_clock_of_their_moment(seen: Any) -> None:
    """Each status and event says the time that the clock had then, right or wrong; ktime_ns tells the order."""
    for turn in seen["turns"]:
        assert abs(turn["statuses"][-1]["time_unix_ns"] - turn["wall_ns"]) < 30e9, turn["jump"]
    ktimes = [each["ktime_ns"] for each in seen["events"] if each["feature"] == "exec_events"]
    assert ktimes == sorted(ktimes)
    hours = {each["time"][:13] for each in seen["events"]}
    assert len(hours) >= 4, f"an hour on, two back, a day on: {sorted(hours)}"
