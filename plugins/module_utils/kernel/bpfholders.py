# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process holds which BPF object by a descriptor, and which program its perf events run."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfqueries
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.linkinfo import with_offset

KINDS = {"anon_inode:bpf-prog": "program", "anon_inode:bpf-map": "map", "anon_inode:bpf_link": "link",
         "anon_inode:bpf-link": "link"}  # fmt: skip
_PERF, _STATS = "anon_inode:[perf_event]", "anon_inode:bpf-stats"
_ID = re.compile(r"^(prog|map|link)_id:\s*([0-9]{1,10})$", re.MULTILINE)
_FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of linux/proc_ns.h
_FIELDS = {"program": "prog", "map": "map", "link": "link"}


class Holding(NamedTuple):
    """A process, what it holds as (kind, id), and what its perf events run."""

    process: dict[str, Any]
    objects: list[tuple[str, int]]
    attachments: list[dict[str, Any]]
    unnamed_events: int


class Held(NamedTuple):
    """All holders; whether some process has run time counted; what could not be read."""

    holdings: list[Holding]
    counts_run_time: bool
    unknown: list[str]


def id_in(text: str, kind: str) -> int | None:
    """The id of the object that a descriptor's fdinfo tells of; a link tells its program's too."""
    found = {name: int(value) for name, value in _ID.findall(text)}
    return found.get(_FIELDS[kind])


def ask_processes(root: Path, end: int) -> Held:
    """All processes that this one can see, until the monotonic clock's `end` in ns; without our own."""
    holdings: list[Holding] = []
    unknown = list(_of_namespace(root))
    closed = asked = 0
    counts = False
    for folder in sorted((root / "proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        if time.monotonic_ns() > end:
            unknown.append(f"processes: stopped after {asked} for want of time")
            break
        asked += 1
        if int(folder.name) == os.getpid():
            continue
        try:
            found = _descriptors(folder)
        except PermissionError:
            closed += 1
            continue
        except OSError:
            continue  # It has ended meanwhile.
        counts = counts or any(target == _STATS for _fd, target in found)
        one = _holding(folder, found, unknown)
        if one is not None:
            holdings.append(one)
    if closed:
        unknown.append(f"processes: descriptors of {closed} could not be read")
    return Held(holdings, counts, unknown)


def _of_namespace(root: Path) -> Iterator[str]:
    try:
        inode = os.stat(root / "proc/self/ns/pid").st_ino
    except OSError:
        return
    if inode != _FIRST_NAMESPACE:
        yield "process namespace: this host is in one of its own, processes outside of it are not seen"


def _descriptors(folder: Path) -> list[tuple[int, str]]:
    found = []
    for name in os.listdir(folder / "fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(folder / "fd" / name)
            if target in KINDS or target in (_PERF, _STATS):
                found.append((int(name), target))
    return found


def _holding(folder: Path, found: list[tuple[int, str]], unknown: list[str]) -> Holding | None:
    objects = set()
    attachments: list[dict[str, Any]] = []
    unnamed = 0
    pid = int(folder.name)
    for fd, target in found:
        if target in KINDS:
            number = id_in(read_text(folder / "fdinfo" / str(fd)) or "", KINDS[target])
            if number is not None:
                objects.add((KINDS[target], number))
        elif target == _PERF:
            try:
                attachments.append(_perf(bpfqueries.behind_descriptor(pid, fd), pid))
            except OSError as error:
                unnamed += error.errno == errno.EOPNOTSUPP
                if error.errno in (errno.EPERM, errno.EACCES):
                    unknown.append(f"perf events of process {pid}: {errno_name(error.errno)} from BPF_TASK_FD_QUERY")
                    break
    if not objects and not attachments and not unnamed:
        return None
    return Holding(process_of(folder), sorted(objects), _distinct(attachments), unnamed)


def _distinct(attachments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of each: an event on every CPU runs the same program at the same place."""
    return list({(one["program_id"], one["hook"], one["target"]): one for one in attachments}.values())


def _perf(found: bpfqueries.PerfProgram, pid: int) -> dict[str, Any]:
    probe = found.kind in ("kprobe", "kretprobe", "uprobe", "uretprobe")
    target = with_offset(found.name, found.offset, found.kind.startswith("u")) if probe else found.name or None
    return {"program_id": found.program_id, "hook": found.kind, "target": target, "mode": None, "link_id": None,
            "source": "perf_event", "pid": pid}  # fmt: skip


def process_of(folder: Path) -> dict[str, Any]:
    """Pid, comm, executable, uid and cgroup of a process; null is what could not be read."""
    found: dict[str, Any] = {"pid": int(folder.name), "comm": None, "exe": None, "uid": None, "cgroup": None}
    comm = read_text(folder / "comm")
    found["comm"] = comm.rstrip("\n") if comm is not None else None
    with contextlib.suppress(OSError):
        found["exe"] = os.readlink(folder / "exe")
    with contextlib.suppress(OSError):
        found["uid"] = os.stat(folder).st_uid
    found["cgroup"] = cgroup_in(read_text(folder / "cgroup") or "")
    return found


def cgroup_in(text: str) -> str | None:
    """The cgroup of /proc/PID/cgroup by which systemd knows a process: of version 2, else of its own hierarchy.

    Beside version 1 ("hybrid") systemd keeps both, and the one of its own is always filled.
    """
    fields = [line.split(":", 2) for line in text.splitlines()]
    own = next((one[2] for one in fields if len(one) == 3 and one[1] == "name=systemd"), None)
    second = next((one[2] for one in fields if len(one) == 3 and one[0] == "0" and not one[1]), None)
    return second if second not in (None, "/") else own or second
