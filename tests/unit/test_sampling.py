# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make test` takes of a table of cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sampling import evenly

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("count", "most", "taken"),
    [
        (0, 3, []),
        (1, 3, [0]),
        (3, 3, [0, 1, 2]),
        (4, 1, [0]),
        (4, 2, [0, 3]),
        (10, 4, [0, 3, 6, 9]),
        (5, 4, [0, 1, 3, 4]),
    ],
)
def test_the_first_the_last_and_even_steps(count: int, most: int, taken: list[int]) -> None:
    assert evenly(range(count), most) == taken


def test_none_is_no_sample() -> None:
    with pytest.raises(ValueError, match="one at least"):
        evenly([1, 2], 0)


@pytest.mark.parametrize(("quick", "ran"), [("1", 3), ("0", 10)])
def test_only_the_quick_run_leaves_cases_out(tmp_path: Path, quick: str, ran: int) -> None:
    """A run of its own, with the project's own conftest."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  sample\n  slow\n")
    (tmp_path / "test_cases.py").write_text(
        "import pytest\nslow = pytest.param(9, marks=pytest.mark.slow)\n"
        "@pytest.mark.sample(2)\n@pytest.mark.parametrize('n', [*range(8), slow])\ndef test_n(n): pass\n"
        "def test_alone(): pass\n"
    )
    environment = {**os.environ, "EBPF_FLEET_QUICK": quick, "PYTHONPATH": str(ROOT)}
    chosen = ["-m", "not slow"] if quick == "1" else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{ran} passed" in done.stdout, done.stdout
    assert ("7 deselected" in done.stdout) == (quick == "1"), done.stdout
