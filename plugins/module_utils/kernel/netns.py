# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network namespaces of this host, and asking in each of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
from pathlib import Path
from typing import Callable, Generic, NamedTuple, TypeVar

_CLONE_NEWNET = 0x40000000
_NAMED = ("run/netns",)
_LINK = re.compile(r"net:\[([0-9]{1,20})\]")

Answer = TypeVar("Answer")


class Namespace(NamedTuple):
    """A network namespace: its inode, a path by which it is entered, its name by ip-netns(8), a process in it."""

    inode: int
    path: str
    name: str | None
    pid: int | None


def own_inode(proc: Path = Path("/proc")) -> int | None:
    """The namespace that this process is in."""
    return _inode_of_link(str(proc / "self/ns/net"))


def namespaces(root: Path, limit: int) -> tuple[list[Namespace], int]:
    """At most `limit` namespaces that a process is in or a file keeps, our own first; and how many more there are."""
    found: dict[int, Namespace] = {}
    own = own_inode(root / "proc")
    if own is not None:
        found[own] = Namespace(own, str(root / "proc/self/ns/net"), None, None)
    for folder in sorted((root / "proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        path = f"{folder}/ns/net"
        inode = _inode_of_link(path)
        if inode is not None and inode not in found:
            found[inode] = Namespace(inode, path, None, int(folder.name))
    for folder in (root / one for one in _NAMED):
        for path in sorted(map(str, folder.glob("*"))):
            with contextlib.suppress(OSError):
                inode = os.stat(path).st_ino
                kept = found.get(inode, Namespace(inode, path, None, None))
                found[inode] = kept._replace(name=os.path.basename(path))
    every = list(found.values())
    return every[:limit], max(0, len(every) - limit)


def _inode_of_link(path: str) -> int | None:
    try:
        match = _LINK.fullmatch(os.readlink(path))
    except OSError:
        return None
    return int(match.group(1)) if match else None


class _Asked(Generic[Answer]):
    """What a thread of its own answered or raised; it alone changes its namespace, and ends."""

    def __init__(self, path: str, ask: Callable[[], Answer]) -> None:
        self.answers: list[Answer] = []
        self.errors: list[Exception] = []
        self._path, self._ask = path, ask

    def run(self) -> None:
        try:
            with open(self._path, "rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            self.answers.append(self._ask())
        except Exception as error:  # whatever it is, it is the caller's, and not of this thread
            self.errors.append(error)


def inside(namespace: Namespace, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns in that namespace, or what it raises; OSError where it cannot be entered (CAP_SYS_ADMIN)."""
    asked = _Asked(namespace.path, ask)
    thread = threading.Thread(target=asked.run)
    thread.start()
    thread.join()
    if asked.errors:
        raise asked.errors[0]
    return asked.answers[0]
