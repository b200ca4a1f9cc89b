# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place orders in the kill.d folders, and take back those that a person has not made his own meanwhile.

A pulled order is a file with a mark of ours in it and, as its time of change, the second that the mark names. A
person's order has no mark; and `touch`, an editor or the kill switch on a pulled one change its time or empty it: from
then on it is a person's, and only a person takes it back.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import sync_folder
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import BoundedReadError, read_bytes
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain

NOT_WRITTEN = "EF_NOT_WRITTEN"
MARK = re.compile(rb"ebpf\.fleet pull (?P<second>[0-9]{1,12})\n")
MAX_MARKED = 4096
# A name that begins with a dot is not an order.
TEMPORARY = ".pull-"


class Changed(NamedTuple):
    """What was done: names placed and taken, and what a folder refused."""

    placed: list[str]
    taken: list[str]
    problems: list[FleetError]


def content_of(second: int, why: str) -> bytes:
    """What a pulled order holds, for whoever reads it; its time of change is that second."""
    return f"ebpf.fleet pull {second}\n{why}\n".encode()


def is_ours(path: Path) -> bool:
    """Whether the pull channel placed this order and no one has touched it since. Unknown is no."""
    try:
        data = read_bytes(path, MAX_MARKED)
        changed = path.lstat().st_mtime_ns
    except (OSError, BoundedReadError):
        return False
    found = MARK.match(data or b"")
    return found is not None and changed == int(found["second"]) * 1_000_000_000


def place_all(folders: Sequence[Path], orders: Mapping[str, str], second: int) -> Changed:
    """Place the orders ({name: why}) in each folder, the first one first. One folder is enough to turn off."""
    changed = Changed([], [], [])
    for folder in folders:
        try:
            _make_folder(folder)
            for name, why in sorted(orders.items()):
                if _place(folder / name, content_of(second, why), second):
                    changed.placed.append(name)
        except OSError as error:
            changed.problems.append(explain(error, NOT_WRITTEN))
    return changed._replace(placed=sorted(set(changed.placed)))


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)


def _place(path: Path, data: bytes, second: int) -> bool:
    """Make the file, whole and with its time at once; False where there is one, whoever placed it."""
    if os.path.lexists(path):
        return False
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, 0o644)
            os.utime(fd, ns=(second * 1_000_000_000,) * 2)
            os.fsync(fd)
        # A link, as a rename would put itself over an order that a person places in this moment.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return True


def take_all(folders: Sequence[Path], wanted: Mapping[str, str]) -> Changed:
    """Take back the orders of ours that are not wanted any more, in every folder."""
    changed = Changed([], [], [])
    for folder in folders:
        try:
            for path in _files(folder):
                if path.name not in wanted and is_ours(path) and _take(path):
                    changed.taken.append(path.name)
        except OSError as error:
            changed.problems.append(explain(error, NOT_WRITTEN))
    return changed._replace(taken=sorted(set(changed.taken)))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _take(path: Path) -> bool:
    """Remove the order, unless a person has made it his own between the question and the deed."""
    aside = path.with_name(f"{TEMPORARY}{os.getpid()}")
    path.rename(aside)
    if not is_ours(aside):
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    sync_folder(path.parent)
    return True


def held(folders: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Names of the orders of ours, and of those of people, that lie in the folders; a name may be in both."""
    ours: set[str] = set()
    theirs: set[str] = set()
    for folder in folders:
        try:
            files = _files(folder)
        except OSError:
            continue
        for path in files:
            (ours if is_ours(path) else theirs).add(path.name)
    return sorted(ours), sorted(theirs)
