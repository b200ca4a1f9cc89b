# SPDX-License-Identifier: GPL-3.0-or-later
"""When the set-up of this machine does nothing, and when it looks again; the real script, with an apt-get of ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("tools/packages.txt", "requirements.txt", "tools/setup.sh")

# A user may run the file, and another system may be at hand; make test refuses both.
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the set-up does"),
    pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg-query is not installed"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout that was set up; its only package is one that every Debian has."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/setup.sh", tmp_path / "tools")
    (tmp_path / "tools/packages.txt").write_text("# of everything\ndpkg\n")
    (tmp_path / "requirements.txt").write_text("")
    for place, text in ((".cache/venv/bin/ansible", "exit 0"), ("bin/apt-get", 'echo "$@" >>"$CALLS"; exit 1')):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    stamp(tmp_path)
    return tmp_path


def stamp(tree: Path) -> None:
    digest = hashlib.sha256(b"".join((tree / name).read_bytes() for name in INPUTS)).hexdigest()
    (tree / ".cache/setup.stamp").write_text(digest + "\n")


def set_up(tree: Path) -> tuple[int, str, str]:
    """(exit status, what it says, what apt-get was asked)."""
    calls = tree / "calls"
    env = {**os.environ, "PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    done = subprocess.run(["sh", "tools/setup.sh"], cwd=tree, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, calls.read_text() if calls.exists() else ""


def test_a_machine_that_has_everything_is_left_alone(tree: Path) -> None:
    assert set_up(tree) == (0, "", "")


def test_a_package_that_went_away_since_is_installed_again(tree: Path) -> None:
    with (tree / "tools/packages.txt").open("a") as file:
        file.write("no-such-package-here\n")
    stamp(tree)
    status, said, asked = set_up(tree)
    assert status != 0 and "installing Debian packages: no-such-package-here\n" in said and asked.startswith("update")


@pytest.mark.slow
def test_a_virtual_environment_that_does_not_work_is_made_again(tree: Path) -> None:
    (tree / ".cache/venv/bin/ansible").unlink()
    status, said, asked = set_up(tree)
    assert "installing the controller's Python packages" in said and asked == ""
    assert status == 0 and (tree / ".cache/venv/bin/python").exists()
