# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is pinned in the bpffs mounts of this host, those of other mount namespaces too."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfqueries
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfholders import KINDS, id_in
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A bpffs: the device number that tells one from another, where it is mounted, and a path by which we reach it."""

    device: str
    shown: str
    path: str


class Pins(NamedTuple):
    """Pins, and what could not be read."""

    found: list[dict[str, Any]]
    unknown: list[str]


def parse_mounts(mountinfo: str) -> list[tuple[str, str]]:
    """(device, mount point) of each bpffs in the text of /proc/PID/mountinfo (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if "-" in fields and fields.index("-") + 1 < len(fields) and fields[fields.index("-") + 1] == "bpf":
            found.append((fields[2], _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), fields[4])))
    return found


def mounts(root: Path) -> list[Mount]:
    """Every bpffs once: as our own mount namespace has it, else as the first process has it that does."""
    found: dict[str, Mount] = {}
    seen = set()
    for folder in [root / "proc/self", *sorted((root / "proc").glob("[0-9]*"), key=lambda one: int(one.name))]:
        try:
            namespace = os.readlink(folder / "ns/mnt")
        except OSError:
            continue
        if namespace in seen:
            continue
        seen.add(namespace)
        for device, place in parse_mounts(read_text(folder / "mountinfo") or ""):
            reach = place if folder.name == "self" else f"{folder}/root{place}"
            found.setdefault(device, Mount(device, place, reach))
    return list(found.values())


def read_pins(root: Path, limit: int, end: int) -> Pins:
    """At most `limit` pins of all mounts, until the monotonic clock's `end` in ns."""
    pins: list[dict[str, Any]] = []
    unknown: list[str] = []
    seen = 0
    for mount in mounts(root):
        if not _is_it(mount):
            unknown.append(f"pins below {mount.shown}: something else is mounted or linked there")
            continue
        for path in _files(mount.path, unknown):
            seen += 1
            if seen > limit or time.monotonic_ns() > end:
                unknown.append(f"pins: stopped after {len(pins)}, there are more")
                return Pins(pins, unknown)
            one = _pin(path, mount.shown + path[len(mount.path) :], unknown)
            if one is not None:
                pins.append(one)
    return Pins(pins, unknown)


def _is_it(mount: Mount) -> bool:
    """Whether the path leads to that very bpffs: a container may have put a link of its own in the way."""
    try:
        device = os.stat(mount.path).st_dev
    except OSError:
        return False
    return f"{os.major(device)}:{os.minor(device)}" == mount.device


def _files(top: str, unknown: list[str]) -> Iterator[str]:
    def refused(error: OSError) -> None:
        unknown.append(f"pins below {top}: {errno_name(error.errno)}")

    for folder, below, files in os.walk(top, onerror=refused):
        below.sort()
        for name in sorted(files):
            yield os.path.join(folder, name)


def _pin(path: str, shown: str, unknown: list[str]) -> dict[str, Any] | None:
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return None  # what it leads to is listed at its own path
        fd = bpfqueries.open_pin(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        unknown.append(f"pin {shown}: {errno_name(error.errno)}")
        return None
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
        kind = KINDS.get(target)
        number = id_in(read_text(Path(f"/proc/self/fdinfo/{fd}")) or "", kind) if kind else None
    finally:
        os.close(fd)
    if kind is None or number is None:
        unknown.append(f"pin {shown}: holds {target}, which has no id")
        return None
    return {"path": shown, "kind": kind, "id": number, "uid": found.st_uid, "time_unix_ns": found.st_mtime_ns}
