# SPDX-License-Identifier: GPL-3.0-or-later
"""How images of guests are built: what a build that is killed leaves on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.images import in_its_own_mounts

# A user may run the file; make test refuses one.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a folder")


def test_what_a_killed_build_has_mounted_is_gone_with_it(tmp_path: Path) -> None:
    """Whoever cleans the folder up must not go on into /proc and /sys of this machine."""
    script = f"mount -t tmpfs own {tmp_path} && touch {tmp_path}/inside && echo ready && exec sleep 600"
    command = in_its_own_mounts(["sh", "-c", script])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert Path(f"/proc/{process.pid}/root{tmp_path}/inside").exists(), "it was not mounted; nothing was tested"
        assert str(tmp_path) not in Path("/proc/mounts").read_text()
    finally:
        process.kill()
        process.wait(30)
    assert list(tmp_path.iterdir()) == []


def test_what_it_says_and_how_it_ends_is_the_commands_own() -> None:
    done = subprocess.run(in_its_own_mounts(["sh", "-c", "echo --; exit 7"]), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "--\n")
