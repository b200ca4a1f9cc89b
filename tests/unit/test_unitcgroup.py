# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit's cgroup: where it is found and how it ends, with real cgroups of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import unitcgroup

from tests.integration.killplace import cgroup2, remove_group

UNIT = "ebpf-fleet-loader.service"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or cgroup2() is None, reason="making a cgroup needs root and cgroup v2"
)


@pytest.fixture
def group() -> Iterator[Path]:
    base = cgroup2()
    assert base is not None
    made = base / f"ef-test-{os.getpid()}-unit"
    made.mkdir()
    yield made
    remove_group(made)


def put(root: Path, group: Path, where: str) -> None:
    place = root / where / UNIT
    place.parent.mkdir(parents=True)
    place.symlink_to(group)


def forker(group: Path) -> subprocess.Popen[str]:
    """Forks on and on and ignores what can be ignored."""
    script = f"echo 0 >{group}/cgroup.procs; trap '' TERM HUP INT; echo in; while :; do (sleep 0.01) & wait; done"
    process = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


@pytest.mark.parametrize("where", ["system.slice", "unified/system.slice", "systemd/a.slice/a-b.slice"])
def test_found_in_every_hierarchy_and_slice(tmp_path: Path, group: Path, where: str) -> None:
    put(tmp_path, group, where)
    assert len(unitcgroup.find(UNIT, tmp_path)) == 1


def test_what_a_user_owns_or_runs_is_not_a_unit(tmp_path: Path, group: Path) -> None:
    put(tmp_path, group, "user.slice/user-1.slice")
    assert unitcgroup.find(UNIT, tmp_path) == []
    put(tmp_path, group, "system.slice")
    os.chown(group, 65534, 65534)
    assert unitcgroup.find(UNIT, tmp_path) == []


@pytest.mark.parametrize("hidden", [[], ["cgroup.kill"]])
def test_whatever_is_in_it_ends(tmp_path: Path, group: Path, hidden: list[str]) -> None:
    """Without cgroup.kill, as before Linux 5.14, it is frozen, killed and thawed."""
    place = tmp_path / "system.slice" / UNIT
    place.mkdir(parents=True)
    for name in {"cgroup.kill", "cgroup.procs", "cgroup.freeze"} - set(hidden):
        (place / name).symlink_to(group / name)
    process = forker(group)
    found = unitcgroup.find(UNIT, tmp_path)
    assert process.pid in unitcgroup.pids(found)
    assert unitcgroup.kill(found, 10) is True
    assert process.wait(5) == -signal.SIGKILL
    assert (group / "cgroup.freeze").read_text() == "0\n"


def test_an_empty_one_is_done_at_once(tmp_path: Path, group: Path) -> None:
    put(tmp_path, group, "system.slice")
    assert unitcgroup.kill(unitcgroup.find(UNIT, tmp_path), 0) is True
    assert unitcgroup.kill([], 0) is True


def test_a_unit_that_ends_in_the_middle_of_the_question_is_no_error(tmp_path: Path) -> None:
    """systemd removes the cgroup, and the slice when it was the last in it, while it is asked for."""
    places = [tmp_path / "a.slice" / "a-b.slice" / UNIT / "below", tmp_path / "a.slice" / UNIT]
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for place in places:
                place.mkdir(parents=True)
                (place / "cgroup.procs").write_text("")
            shutil.rmtree(tmp_path / "a.slice")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    seen, rounds, until = set(), 0, time.monotonic() + 60
    try:
        # On a busy machine the two may take turns for a while: go on until both were seen.
        while (rounds < 3000 or not {0, 2} <= seen) and time.monotonic() < until:
            seen.add(len(unitcgroup.find(UNIT, tmp_path)))
            assert unitcgroup.pids(unitcgroup.find(UNIT, tmp_path)) == set()
            rounds += 1
    finally:
        done.set()
        thread.join()
    assert {0, 2} <= seen, "the unit never went away in the middle of a question"
