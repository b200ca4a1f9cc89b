# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, links and folders that are whole or not there, whatever ends the process; and how one is brought back."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import time
from pathlib import Path
from typing import NamedTuple

TEMPORARY = ".tmp-"
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def make_folder(path: Path) -> None:
    """Make a folder and its parents readable for the loader's user, whatever the umask."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir()
    path.chmod(0o755)


def remove_tree(path: Path) -> None:
    """Remove a file, a symlink or a folder; nothing there is as good."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Create a new file with these bytes, synced; it must not exist."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)


def temporary_in(folder: Path) -> Path:
    return folder / f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}"


def replace_file(path: Path, data: bytes, mode: int, beside: Path) -> None:
    """Replace a file so that a reader sees the old bytes or the new, never part of them.

    The temporary is made in ``beside``, of the same file system, where the next
    run finds it: within a bundle it would be a file too many.
    """
    temporary = temporary_in(beside)
    try:
        write_file(temporary, data, mode)
        temporary.rename(path)
    except BaseException:
        remove_tree(temporary)
        raise
    sync_folder(path.parent)


def replace_link(link: Path, target: str) -> None:
    """Point a symlink elsewhere by one rename(2)."""
    make_folder(link.parent)
    temporary = temporary_in(link.parent)
    try:
        temporary.symlink_to(target)
        temporary.rename(link)
    except BaseException:
        remove_tree(temporary)
        raise
    sync_folder(link.parent)


def put_folder(temporary: Path, final: Path) -> Path | None:
    """Rename a finished folder into place; what was there is exchanged, never missing, and its new place returned."""
    if not final.exists():
        temporary.rename(final)
        return None
    if _exchange(temporary, final):
        return temporary
    former = temporary.with_name(temporary.name + "-old")
    final.rename(former)
    temporary.rename(final)
    return former


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names by renameat2(2); False where the C library or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    arguments = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if renameat2(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(number, os.strerror(number), str(other))


class Former(NamedTuple):
    """A file or symlink as it was, and when its folder changed; all None of one that was not there."""

    path: Path
    data: bytes | None
    target: str | None
    mode: int
    times: tuple[int, int] | None
    folder_times: tuple[int, int] | None


def remember(path: Path) -> Former:
    """What is needed to bring a file or symlink back as it is now."""
    folder = _times(path.parent)
    if path.is_symlink():
        return Former(path, None, os.readlink(path), 0, _times(path), folder)
    if not path.exists():
        return Former(path, None, None, 0, None, folder)
    return Former(path, path.read_bytes(), None, stat.S_IMODE(path.stat().st_mode), _times(path), folder)


def _times(path: Path) -> tuple[int, int] | None:
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_atime_ns, info.st_mtime_ns


def bring_back(former: Former, beside: Path) -> None:
    """Make a file or symlink what it was, with its times; ``beside`` is where the temporary is made."""
    if former.target is not None:
        replace_link(former.path, former.target)
    elif former.data is not None:
        replace_file(former.path, former.data, former.mode, beside)
    else:
        remove_tree(former.path)
    if former.times is not None:
        os.utime(former.path, ns=former.times, follow_symlinks=False)
    if former.folder_times is not None:
        os.utime(former.path.parent, ns=former.folder_times)
