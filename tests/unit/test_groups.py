# SPDX-License-Identifier: GPL-3.0-or-later
"""Each group of tests names files that are there, and a worker gets a whole group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.groups import GROUP_OF, group_of

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = f"""
import runpy
GROUPS = runpy.run_path({str(ROOT / "tests/support/groups.py")!r})

def pytest_xdist_make_scheduler(config, log):
    return GROUPS["scheduler"](config, log)
"""
NOTE = """
import os, pathlib, time, pytest

@pytest.mark.parametrize("number", range(3))
def test_it(number):
    time.sleep(0.2)
    path = pathlib.Path(os.environ["SEEN"], f"{__file__.rpartition('/')[2]}-{number}")
    path.write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


def test_each_file_of_a_group_is_there() -> None:
    assert [path for path in GROUP_OF if not (ROOT / path).is_file()] == []


def test_a_file_is_a_group_by_itself_unless_it_is_named() -> None:
    assert group_of("tests/unit/test_plan.py::TestIt::test_x[a::b]") == "tests/unit/test_plan.py"
    assert (
        group_of("tests/loader/test_perf.py::test_x") == group_of("tests/loader/test_witness.py::test_y") == "machine"
    )
    assert group_of("tests/integration/test_kill_switch.py::test_x") == "loaded"


def test_a_group_is_run_by_one_worker_and_another_group_beside_it(tmp_path: Path) -> None:
    tests = tmp_path / "tests" / "loader"
    tests.mkdir(parents=True)
    (tmp_path / "seen").mkdir()
    (tmp_path / "tests/conftest.py").write_text(CONFTEST)
    for name in ("perf", "other", "witness"):
        (tests / f"test_{name}.py").write_text(NOTE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "tests",
    ]
    seen = {**os.environ, "SEEN": str(tmp_path / "seen"), "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=tmp_path, env=seen, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    by = {path.name: path.read_text() for path in (tmp_path / "seen").iterdir()}
    assert len(by) == 9
    machine = {worker for name, worker in by.items() if not name.startswith("test_other")}
    assert len(machine) == 1 and machine != {by["test_other.py-0"]}
