# SPDX-License-Identifier: GPL-3.0-or-later
"""The running loader's parts by values: put to rest, call the loader that runs, publish, tell of orders, poll."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import process_start_ns

from tests.loader.drivers import ask, build, run

pytestmark = pytest.mark.apart

NEEDED = [f"{folder}/*.c" for folder in ("base", "bundle", "control", "events", "feature", "kernel", "run", "tell")]
WRAPPED = [f"-Wl,--wrap={name}" for name in ("epoll_wait", "ef_wake_pace", "ef_sink_flush")]
STATUS_BYTES = 4 << 20
TICK_NS = 10_000_000  # of the kernel's account of when a process started
QUIET_POLLS = 50
OFF, ATTACHED, KILLED, DISABLED, SHED = "01234"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("apply"), "apply", NEEDED, *WRAPPED)


@pytest.mark.parametrize("state", [OFF, KILLED, DISABLED, SHED])
def test_it_is_not_due_and_waits_for_nothing(driver: Path, state: str) -> None:
    """It was disabled, about to be attached, after three shortages."""
    assert ask(driver, "rest", state, "EF_X") == f"1 {state} 0 0 0 EF_X"


@pytest.mark.parametrize(
    ("state", "code", "changed"),
    [(KILLED, "EF_KILLED_GLOBAL", 0), (KILLED, "EF_KILLED_FEATURE", 1), (OFF, "EF_KILLED_GLOBAL", 1)],
)
def test_another_state_or_another_reason_is_a_change(driver: Path, state: str, code: str, changed: int) -> None:
    found = ask(driver, "twice", KILLED, "EF_KILLED_GLOBAL", state, code).split()
    assert found[:2] == ["1", str(changed)] and found[-1] == code


# ---- call the loader that runs ----


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """A folder whose path is too long for a socket: a loader that was found is not called."""
    folder = tmp_path / ("f" * 100)
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def other() -> Iterator[tuple[int, int]]:
    """A process, and when it started."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start_ns(process.pid)
    assert started is not None
    yield process.pid, started
    process.communicate()


def write_status(folder: Path, pid: int, started: int, size: int = 0) -> None:
    text = json.dumps({"pid": pid, "started_boottime_ns": started}).encode()
    (folder / "status.json").write_bytes(text.ljust(size))
    (folder / "status.json").chmod(0o644)


def found(driver: Path, folder: Path, whose: str = "other") -> bool:
    """Whether a loader runs by the status of that folder."""
    told = ask(driver, "meet", str(folder), whose)
    if "File name too long" in told:
        return True
    assert told == f"-1 no loader runs by {folder}/status.json; start one"
    return False


@pytest.mark.parametrize(("size", "read"), [(0, True), (STATUS_BYTES, True), (STATUS_BYTES + 1, False)])
def test_a_status_of_up_to_four_mebibytes_is_read(
    driver: Path, far: Path, other: tuple[int, int], size: int, read: bool
) -> None:
    write_status(far, *other, size=size)
    assert found(driver, far) is read


@pytest.mark.parametrize(
    ("off", "same"), [(TICK_NS, True), (-TICK_NS, True), (TICK_NS + 1, False), (-TICK_NS - 1, False), (0, True)]
)
def test_a_process_is_told_by_when_it_started(
    driver: Path, far: Path, other: tuple[int, int], off: int, same: bool
) -> None:
    pid, started = other
    write_status(far, pid, started + off)
    assert found(driver, far) is same


def test_neither_the_first_process_nor_itself_is_the_loader_that_runs(driver: Path, far: Path) -> None:
    assert found(driver, far) is False, "there is no status"
    write_status(far, 1, process_start_ns(1) or 0)
    assert found(driver, far) is False
    assert found(driver, far, "self") is False
    write_status(far, 2**22 + 1, 0)
    assert found(driver, far) is False


# ---- publish ----


@pytest.mark.parametrize(("when", "taken"), [("now", "0"), ("interval", "1")])
def test_the_account_is_taken_at_the_end_of_an_interval_only(
    driver: Path, tmp_path: Path, when: str, taken: str
) -> None:
    """Or the interval that it is of would be as short as what happened in between."""
    assert ask(driver, "publish", str(tmp_path), when) == taken
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["reason_code"]) == ("refused", "EF_SIG_MISSING")
    assert {path.name for path in tmp_path.iterdir()} == {"programs", "metrics.prom", "status.json"}


# ---- what the audit is told of orders ----


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("-", "-", []),
        ("-", "global=/e/global", [("kill", "EF_KILLED_GLOBAL", "kill order global holds", "/e/global")]),
        ("global=/e/global", "global=/e/global", []),
        ("global=/e/global", "-", [("unkill", "EF_KILLED_GLOBAL", "kill order global was removed", "/e/global")]),
        ("global=/e/global,family.6.1=/e/family.6.1", "feature.f=/r/feature.f,global=/e/global",
         [("kill", "EF_KILLED_FEATURE", "kill order feature.f holds", "/r/feature.f"),
          ("unkill", "EF_KILLED_FAMILY", "kill order family.6.1 was removed", "/e/family.6.1")]),
        ("global=/e/global", "global=/r/global",
         [("kill", "EF_KILLED_GLOBAL", "kill order global holds", "/r/global"),
          ("unkill", "EF_KILLED_GLOBAL", "kill order global was removed", "/e/global")]),
    ],
)  # fmt: skip
def test_each_order_that_is_new_or_gone_has_a_record(
    driver: Path, tmp_path: Path, before: str, now: str, told: list[tuple[str, ...]]
) -> None:
    lines = run(driver, "orders", str(tmp_path), before, now).stderr.decode().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["event"], one["reason_code"], one["reason"], one["who"]["path"]) for one in found] == told
    assert {(one["who"]["source"], one["who"]["uid"]) for one in found} <= {("kill file", None)}


def test_an_order_is_of_the_one_whose_file_it_is(driver: Path, tmp_path: Path) -> None:
    path = tmp_path / "global"
    path.touch()
    (line,) = run(driver, "orders", str(tmp_path), "-", f"global={path}").stderr.decode().splitlines()
    assert json.loads(line)["who"] == {"source": "kill file", "path": str(path), "uid": os.geteuid()}


# ---- the polls of the rings ----


def polls(driver: Path, *kinds: str) -> list[int]:
    """How often the rings' timer was set until after each poll."""
    *each, code = ask(driver, "polls", *kinds).split()
    counts = [tuple(map(int, one.split("/"))) for one in each]
    assert code == "0"
    assert [flushed for _paced, flushed in counts] == list(range(1, len(kinds) + 1)), "nothing waits longer"
    return [paced for paced, _flushed in counts]


def test_rings_that_stay_empty_are_polled_less_often_from_the_fiftieth_time_on(driver: Path) -> None:
    assert polls(driver, *"q" * (QUIET_POLLS + 3)) == [0] * (QUIET_POLLS - 1) + [1] * 4


@pytest.mark.parametrize("busy", ["r", "s"])
def test_what_is_read_or_is_behind_has_them_polled_often_again(driver: Path, busy: str) -> None:
    quiet = "q" * QUIET_POLLS
    assert polls(driver, *quiet, "q", busy, busy)[QUIET_POLLS - 2 :] == [0, 1, 1, 2, 2]
    # It begins to count again.
    assert polls(driver, *quiet, busy, *quiet)[QUIET_POLLS - 1 :] == [1, *[2] * QUIET_POLLS, 3]
    assert set(polls(driver, *quiet[1:], busy, *quiet[1:])) == {0}
