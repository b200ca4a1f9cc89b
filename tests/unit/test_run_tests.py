# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs beside another suite is counted, and a run that says nothing is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools import run_tests


@pytest.mark.parametrize(
    ("said", "code", "count"),
    [
        ("=== suite fuzz\n3 passed, 0 failed, 1 skipped\n", 0, (3, 0, 1)),
        ("3 passed, 2 failed, 0 skipped\n", 1, (3, 2, 0)),
        ("3 passed, 0 failed, 0 skipped\n", 1, (3, 1, 0)),
        ("3 passed, 0 failed, 0 skipped\nTraceback\n", 0, (0, 1, 0)),
        ("", 0, (0, 1, 0)),
        ("", 137, (0, 1, 0)),
    ],
)
def test_what_ran_beside_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, count: tuple[int, int, int]
) -> None:
    log = tmp_path / "beside.log"
    log.write_text(said)
    monkeypatch.setattr(run_tests, "BESIDE_LOG", log)
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    assert run_tests.end_beside(process) == run_tests.Count(*count)


def test_no_suite_is_named_twice_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    names = [*run_tests.SUITES, *run_tests.BESIDE, *run_tests.SLOW]
    assert len(names) == len(set(names))
    assert run_tests.main(["unti"]) == 2
    assert "no suite unti" in capsys.readouterr().err


@pytest.mark.parametrize(("apart", "kernel"), [(False, False), (False, True), (True, False), (True, True)])
def test_every_test_is_of_one_lane_and_of_that_with_the_kernel_unless_it_says_otherwise(
    apart: bool, kernel: bool
) -> None:
    marks = {"apart": apart, "kernel": kernel}
    beside, shared = eval(run_tests.APART, {}, marks), eval(run_tests.SHARED, {}, marks)
    assert (beside, shared) == (apart and not kernel, not apart or kernel)


TABLE = """
import pytest

def test_plain(): pass

@pytest.mark.apart
def test_apart(): pass

@pytest.mark.slow
@pytest.mark.apart
def test_slow(): pass
"""


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("mark", "quick", "count"),
    [("", "0", 3), ("", "1", 2), (run_tests.APART, "0", 2), (run_tests.APART, "1", 1), (run_tests.SHARED, "1", 1)],
)
def test_a_suite_runs_what_is_marked_and_leaves_out_what_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, quick: str, count: int
) -> None:
    (tmp_path / "test_table.py").write_text(TABLE)
    monkeypatch.setattr(run_tests, "OUT", tmp_path)
    monkeypatch.setenv("EBPF_FLEET_QUICK", quick)
    options = ["-c", str(run_tests.ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    for workers in (1, 2):
        ran = run_tests.run_pytest("table", *options, str(tmp_path / "test_table.py"), mark=mark, workers=workers)
        assert ran == (count, 0, 0)


def collected(quick: str, *paths: str) -> Counter[str]:
    """How many cases of each test pytest would run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *paths]
    where = {**os.environ, "EBPF_FLEET_QUICK": quick}
    done = subprocess.run(command, cwd=run_tests.ROOT, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Counter(line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line)


def test_of_a_table_a_quick_run_takes_what_it_is_marked_with_and_in_integration_one() -> None:
    orders, hostile = "tests/integration/test_kill_orders.py", "tests/integration/test_kill_hostile.py"
    unit = "tests/unit/test_freeze.py"
    every, quick = (collected(one, orders, hostile, unit) for one in ("0", "1"))
    plain = f"{orders}::test_the_wait_has_two_ends"
    marked = f"{hostile}::test_a_frozen_process_of_the_unit_is_killed_whatever_it_is_called"
    assert (every[plain], quick[plain]) == (4, 1)
    assert (every[marked], quick[marked]) == (3, 2)
    assert set(every) == set(quick), "of every test at least one case"
    assert {name: n for name, n in every.items() if name.startswith(unit)} == {
        name: n for name, n in quick.items() if name.startswith(unit)
    }, "elsewhere a table that is not marked is whole"
