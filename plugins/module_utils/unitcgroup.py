# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""The cgroup of a unit: what is in it, and its end. For a service that does not end when systemd asks it to."""

from __future__ import annotations

import contextlib
import os
import signal
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
            found += [one / unit for one in (root / hierarchy).glob(pattern) if "user.slice" not in one.parts]
    return [one for one in found if one.is_dir() and _is_of_root(one) and _is_of_root(one.parent)]


def _is_of_root(folder: Path) -> bool:
    return folder.stat().st_uid == 0


def pids(groups: list[Path]) -> set[int]:
    """Processes of these cgroups and of those below them."""
    found: set[int] = set()
    for group in groups:
        for pattern in ("cgroup.procs", "*/cgroup.procs", "*/*/cgroup.procs"):
            for path in group.glob(pattern):
                # The unit ended meanwhile.
                with contextlib.suppress(OSError):
                    found |= {int(word) for word in path.read_text(encoding="ascii").split()}
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
