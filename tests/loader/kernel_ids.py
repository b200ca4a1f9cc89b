# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids of the kernel's BPF objects and who holds them, by the system call and /proc: no tool of anybody between."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
from typing import Iterator, Mapping

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
NEXT_ID = {"prog": 11, "map": 12, "link": 31}  # enum bpf_cmd: BPF_{PROG,MAP,LINK}_GET_NEXT_ID
ENOENT = 2
LIBC = ctypes.CDLL(None, use_errno=True)


def kernel_ids(kind: str) -> set[int]:
    """Every id of this kind (prog, map, link)."""
    found: set[int] = set()
    last = 0
    while True:
        attr = ctypes.create_string_buffer(struct.pack("III", last, 0, 0), 12)
        if LIBC.syscall(SYS_BPF, NEXT_ID[kind], attr, 12) < 0:
            error = ctypes.get_errno()
            if error == ENOENT:
                return found
            raise OSError(error, f"the kernel's ids of kind {kind} cannot be listed: {os.strerror(error)}")
        last = struct.unpack("III", attr.raw)[1]
        found.add(last)


def all_ids() -> dict[str, set[int]]:
    return {kind: kernel_ids(kind) for kind in NEXT_ID}


def held_ids() -> dict[str, set[int]]:
    """The ids that a living process has a descriptor of."""
    held: dict[str, set[int]] = {kind: set() for kind in NEXT_ID}
    for text in _descriptors():
        for kind, number in re.findall(r"^(prog|map|link)_id:\s*(\d+)$", text, re.M):
            held[kind].add(int(number))
    return held


def _descriptors() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        folder = f"/proc/{pid}/fdinfo"
        try:
            names = os.listdir(folder)
        except OSError:
            continue  # it ended meanwhile
        for name in names:
            try:
                with open(f"{folder}/{name}") as file:
                    yield file.read()
            except OSError:
                continue  # closed meanwhile


def orphans(before: Mapping[str, set[int]]) -> dict[str, set[int]]:
    """What is in the kernel, was not there before, and is held by no process: left behind by one that ended.

    Others on this machine run loaders as well; what is theirs, their descriptors tell.
    """
    new = {kind: found - before[kind] for kind, found in all_ids().items()}
    if not any(new.values()):
        return {}
    held = held_ids()
    still = all_ids()
    left = {kind: (found & still[kind]) - held[kind] for kind, found in new.items()}
    return {kind: found for kind, found in left.items() if found}
