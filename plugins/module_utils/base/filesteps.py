# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a set of text files must become on a host: a plan, its diff, and its safe execution.

The plan is data (:class:`FileStep`), made by pure functions from what is there
and what is wanted. :func:`write_atomically` is the only one that acts.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError


class FileState(NamedTuple):
    """A file as it is: its text (None when absent), its permission bits and its owner's number."""

    content: str | None
    mode: int | None
    owner: int = 0


class FileStep(NamedTuple):
    """One file that has to change, from what to what."""

    path: str
    before: FileState
    content: str
    mode: int


def plan_files(wanted: list[dict[str, Any]], found: dict[str, FileState]) -> list[FileStep]:
    """Return the steps that turn ``found`` into ``wanted``, all of it root's.

    ``wanted`` holds ``path``, ``content`` and ``mode`` (permission bits) each;
    ``found`` maps every such path to its state.
    """
    return [
        FileStep(item["path"], found[item["path"]], item["content"], item["mode"])
        for item in wanted
        if found[item["path"]] != FileState(item["content"], item["mode"])
    ]


def diff_steps(steps: list[FileStep]) -> list[dict[str, str]]:
    """Return one Ansible diff entry for each step.

    Where the text stays, the entry compares mode and owner: Ansible shows no entry of equal texts.
    """
    return [_diff_step(step) for step in steps]


def _diff_step(step: FileStep) -> dict[str, str]:
    before, after = _note(step.before.mode, step.before.owner), _note(step.mode, 0)
    same_text = step.before.content == step.content
    return {
        "before_header": f"{step.path} ({before})",
        "after_header": f"{step.path} ({after})",
        "before": before + "\n" if same_text else step.before.content or "",
        "after": after + "\n" if same_text else step.content,
    }


def _note(mode: int | None, owner: int) -> str:
    if mode is None:
        return "absent"
    return f"mode 0{mode:03o}" if owner == 0 else f"mode 0{mode:03o}, of user {owner}"


def read_state(path: str) -> FileState:
    """Read a regular file without following a symlink; absent gives ``FileState(None, None)``.

    Raises FleetError for anything that is there and is not a regular file, OSError where it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return FileState(None, None)
    except OSError as error:
        if error.errno == errno.ELOOP:
            problem = f"{path} is a symlink, not a regular file; remove it"
            raise FleetError("EF_UNREADABLE", problem, path) from error
        raise
    info = os.fstat(fd)
    # First this: a file object is not made of a folder, and would not close it.
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise FleetError("EF_UNREADABLE", f"{path} is not a regular file; remove it", path)
    with os.fdopen(fd, "rb") as file:
        return FileState(file.read().decode("utf-8", "replace"), stat.S_IMODE(info.st_mode), info.st_uid)


def write_atomically(path: str, content: str, mode: int) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old text or the new, never part.

    Missing parent directories are made with mode 0755. The temporary file is
    removed when anything fails (a full disk for one).
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".ebpf-fleet-", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content.encode("utf-8"))
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
