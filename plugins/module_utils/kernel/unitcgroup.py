# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroup of a unit: what is in it, and its end. For a service that does not end when systemd asks it to."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import stat
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# cgroup v2; beside v1 ("hybrid"); v1, where systemd keeps a hierarchy of its own.
HIERARCHIES = (".", "unified", "systemd")
SLICES = ("*.slice", "*.slice/*.slice")
SECONDS_BETWEEN_ROUNDS = 0.05


def find(unit: str, root: Path = ROOT) -> list[Path]:
    """The unit's cgroups below a slice of the system: folders of root, and none below user.slice."""
    found = []
    for hierarchy in HIERARCHIES:
        for pattern in SLICES:
            # glob.glob, since Path.glob raises where a slice goes away meanwhile.
            slices = [Path(one) for one in glob.glob(f"{glob.escape(str(root / hierarchy))}/{pattern}")]
            found += [one / unit for one in slices if "user.slice" not in one.parts]
    return [one for one in found if _is_folder_of_root(one) and _is_folder_of_root(one.parent)]


def _is_folder_of_root(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:  # the unit ended meanwhile
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0


def pids(groups: list[Path]) -> set[int]:
    """Processes of these cgroups and of those below them."""
    found: set[int] = set()
    for group in groups:
        for folder, _below, _files in os.walk(group):  # says nothing of a folder that goes away meanwhile
            with contextlib.suppress(OSError):
                text = Path(folder, "cgroup.procs").read_text(encoding="ascii")
                found |= {int(word) for word in text.split()}
    # 0 is a process of another namespace.
    return found - {0, 1}


def kill(groups: list[Path], seconds: float) -> bool:
    """SIGKILL for whatever is in these cgroups, until nothing is or the time is over; whether nothing is left.

    Where there is no cgroup.kill (before Linux 5.14) they are frozen meanwhile, so that none forks
    between the list and the kill.
    """
    until = time.monotonic() + seconds
    left = pids(groups)
    while left and time.monotonic() < until:
        for group in groups:
            _write(group / "cgroup.kill", "1") or _write(group / "cgroup.freeze", "1")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(SECONDS_BETWEEN_ROUNDS)
        left = pids(groups)
    for group in groups:
        _write(group / "cgroup.freeze", "0")
    return not left


def _write(path: Path, word: str) -> bool:
    """Whether the kernel has that file and took the word; the file is never made."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, word.encode("ascii")) > 0
    except OSError:
        return False
    finally:
        os.close(fd)
