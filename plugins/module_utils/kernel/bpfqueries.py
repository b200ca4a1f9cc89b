# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bpf(2) says of attachments: by hook, by a process's descriptor, by a pin's path.

Every function either returns what the kernel gave or raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

# No hook takes more: BPF_CGROUP_MAX_PROGS and BPF_MPROG_MAX of the kernel.
MOST_AT_A_HOOK = 64
_NAME_BYTES = 4096

# enum bpf_task_fd_type of linux/bpf.h
FD_TYPES = ("raw_tp", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe")


class AtHook(NamedTuple):
    """Ids of the programs at one hook in their order, of their links (0: not by a link), and the attach flags."""

    programs: list[int]
    links: list[int]
    flags: int


def at_hook(attach_type: int, target: int, with_links: bool = False) -> AtHook:
    """BPF_PROG_QUERY of a cgroup, a network namespace, a map (descriptors) or an interface (its index).

    `with_links`: only for hooks of 6.6 on, older ones refuse the field.
    """
    ids = bpfsys.id_buffer(MOST_AT_A_HOOK)
    links = bpfsys.id_buffer(MOST_AT_A_HOOK)
    attr = struct.pack("=IIIIQIIQ", target, attach_type, 0, 0, ctypes.addressof(ids), MOST_AT_A_HOOK, 0, 0)
    attr += struct.pack("=Q", ctypes.addressof(links) if with_links else 0)
    buffer = ctypes.create_string_buffer(attr, bpfsys.ATTR_BYTES)
    bpfsys.bpf_buffer(bpfsys.PROG_QUERY, buffer)
    flags, count = struct.unpack_from("=I", buffer.raw, 12)[0], struct.unpack_from("=I", buffer.raw, 24)[0]
    return AtHook(list(ids[:count]), list(links[:count]), flags)


class PerfProgram(NamedTuple):
    """The program that a descriptor runs, the kind of its hook, the hook's name (may be empty) and the offset in it."""

    program_id: int
    kind: str
    name: str
    offset: int


def behind_descriptor(pid: int, fd: int) -> PerfProgram:
    """BPF_TASK_FD_QUERY: what a process's perf event or raw tracepoint runs.

    ENOENT: it runs none; EOPNOTSUPP: it runs one that the kernel does not name, of type perf_event.
    """
    name = ctypes.create_string_buffer(_NAME_BYTES)
    attr = struct.pack("=IIIIQ", pid, fd, 0, _NAME_BYTES, ctypes.addressof(name))
    buffer = ctypes.create_string_buffer(attr, bpfsys.ATTR_BYTES)
    bpfsys.bpf_buffer(bpfsys.TASK_FD_QUERY, buffer)
    program, kind, offset = struct.unpack_from("=IIQ", buffer.raw, 24)
    word = FD_TYPES[kind] if kind < len(FD_TYPES) else f"fd_type_{kind}"
    return PerfProgram(program, word, name.value.decode("utf-8", "replace"), offset)


def open_pin(path: str) -> int:
    """BPF_OBJ_GET: a descriptor of what is pinned there, which the caller closes."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    return bpfsys.bpf(bpfsys.OBJ_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))


class BtfObject(NamedTuple):
    """A BTF that the kernel has: its bytes, its name (empty for a program's), and whether it is the kernel's own."""

    blob: bytes
    name: str
    of_kernel: bool


def btf_object(number: int) -> BtfObject:
    """The BTF of that id."""
    fd = bpfsys.bpf(bpfsys.BTF_GET_FD_BY_ID, struct.pack("=I", number))
    try:
        # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf
        size = struct.unpack_from("=I", bpfsys.object_info(fd), 8)[0]
        blob, name = ctypes.create_string_buffer(size), ctypes.create_string_buffer(64)
        given = struct.pack("=QIIQI", ctypes.addressof(blob), size, 0, ctypes.addressof(name), 64)
        info = bpfsys.object_info(fd, given)
        of_kernel = struct.unpack_from("=I", info, 28)[0]
        return BtfObject(blob.raw, name.value.decode("utf-8", "replace"), bool(of_kernel))
    finally:
        os.close(fd)
