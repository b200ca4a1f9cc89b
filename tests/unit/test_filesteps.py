# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files on a host: planned, shown as a diff, written atomically."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import filesteps
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError


def wanted(path: Path, content: str = "new\n", mode: int = 0o644) -> list:
    return [{"path": str(path), "content": content, "mode": mode}]


def plan(path: Path, **more) -> list:
    return filesteps.plan_files(wanted(path, **more), {str(path): filesteps.read_state(str(path))})


def test_a_missing_file_is_a_step_and_a_right_one_is_none(tmp_path):
    path = tmp_path / "deep" / "file"
    (step,) = plan(path)
    assert step.before == filesteps.FileState(None, None)
    filesteps.write_atomically(step.path, step.content, step.mode)
    assert path.read_text() == "new\n" and path.stat().st_mode & 0o777 == 0o644
    assert plan(path) == []


def test_a_wrong_mode_alone_is_a_step_and_shows_in_the_diff(tmp_path):
    path = tmp_path / "file"
    path.write_text("new\n")
    path.chmod(0o666)
    steps = plan(path)
    (diff,) = filesteps.diff_steps(steps)
    assert diff["before_header"].endswith("(mode 0666)") and diff["after_header"].endswith("(mode 0644)")
    # Ansible shows no entry whose texts are equal.
    assert (diff["before"], diff["after"]) == ("mode 0666\n", "mode 0644\n")


def test_a_symlink_is_refused_and_its_target_kept(tmp_path):
    target = tmp_path / "target"
    target.write_text("keep")
    os.symlink(target, tmp_path / "link")
    with pytest.raises(FleetError, match="is a symlink, not a regular file; remove it") as caught:
        filesteps.read_state(str(tmp_path / "link"))
    assert target.read_text() == "keep" and caught.value.code == "EF_UNREADABLE"


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FleetError, match="not a regular file"):
        filesteps.read_state(str(tmp_path / "fifo"))


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs that can be filled")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        path = tmp_path / "file"
        path.write_text("old")
        with pytest.raises(OSError, match="No space left"):
            filesteps.write_atomically(str(path), "x" * 200_000, 0o644)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_in_a_files_place_is_refused_and_costs_no_descriptor(tmp_path):
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _try in range(3):
        with pytest.raises(FleetError, match="folder is not a regular file; remove it"):
            filesteps.read_state(str(tmp_path / "folder"))
    assert len(os.listdir("/proc/self/fd")) == before
