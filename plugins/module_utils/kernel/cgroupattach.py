# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BPF programs attached to cgroups, by BPF_PROG_QUERY of each cgroup of the hierarchy."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfqueries
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import ATTACH_TYPES

ALLOW_OVERRIDE, ALLOW_MULTI = 1, 2
_ROOT_INODE = 1
_LSM = "lsm_cgroup"
HOOKS = {number: name for number, name in enumerate(ATTACH_TYPES) if name.startswith("cgroup_") or name == _LSM}


class OfCgroups(NamedTuple):
    """What is attached, the path of each cgroup by its id, and what could not be asked."""

    attachments: list[dict[str, Any]]
    paths: dict[int, str]
    unknown: list[str]


def mode_of(flags: int) -> str:
    """What else may be at the hook of a cgroup and those below it."""
    return "multi" if flags & ALLOW_MULTI else "override" if flags & ALLOW_OVERRIDE else "exclusive"


def mounted(mounts: str) -> str | None:
    """Where the cgroup2 hierarchy is mounted, by the text of /proc/self/mounts."""
    fields = (line.split(" ") for line in mounts.splitlines())
    return next((one[1].replace("\\040", " ") for one in fields if len(one) > 2 and one[2] == "cgroup2"), None)


def ask_cgroups(root: Path, limit: int, end: int) -> OfCgroups:
    """Ask each cgroup, at most `limit` and until the monotonic clock's `end` in ns."""
    top = mounted((root / "proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    if top is None:
        return OfCgroups([], {}, ["cgroups: no cgroup2 hierarchy is mounted here"])
    attachments: list[dict[str, Any]] = []
    paths: dict[int, str] = {}
    unknown: list[str] = []
    hooks = dict(HOOKS)
    if os.stat(top).st_ino != _ROOT_INODE:
        unknown.append("cgroups: only those below this host's own root are seen; it is not the root of the machine")
    for folder, below, _files in os.walk(top):
        below.sort()
        if len(paths) >= limit or time.monotonic_ns() > end:
            unknown.append(f"cgroups: stopped after {len(paths)}, there are more")
            break
        attachments += _ask(folder, folder[len(top.rstrip("/")) :] or "/", hooks, paths, unknown)
    return OfCgroups(attachments, paths, unknown)


def _ask(
    folder: str, shown: str, hooks: dict[int, str], paths: dict[int, str], unknown: list[str]
) -> list[dict[str, Any]]:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []  # It has gone meanwhile.
    try:
        number = os.fstat(fd).st_ino
        paths[number] = shown
        found = []
        for attach_type, hook in list(hooks.items()):
            try:
                at_hook = bpfqueries.at_hook(attach_type, fd)
            except OSError as error:
                # A hook that this kernel does not have is not asked again; another refusal is told once.
                del hooks[attach_type]
                if error.errno != errno.EINVAL:
                    unknown.append(f"{hook}: {errno_name(error.errno)} from BPF_PROG_QUERY of {shown}")
                continue
            for program in at_hook.programs:
                found.append(
                    {"program_id": program, "hook": hook, "target": shown, "cgroup_id": number,
                     "mode": mode_of(at_hook.flags), "link_id": None, "source": "query"}
                )  # fmt: skip
        return found
    finally:
        os.close(fd)
