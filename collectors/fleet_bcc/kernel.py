# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel: its system calls, and what it says of itself and of processes."""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import struct
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import NAME
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import read_small
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys, hostfiles

MAP_LOOKUP, MAP_UPDATE, MAP_LOOKUP_BATCH = 1, 2, 24
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 15, 38

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def system_call(table: dict[tuple[str, int], int], *arguments: Any) -> int:
    """A system call by its number on this machine; raises OSError."""
    try:
        number = bpfsys.syscall_number(table)
    except bpfsys.UnsupportedMachineError as error:
        raise OSError(errno.ENOSYS, str(error)) from error
    result = int(LIBC.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def bpf_in_place(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2) on a block of bpfsys.ATTR_BYTES, which the kernel may write to; raises OSError."""
    size = ctypes.c_uint(bpfsys.ATTR_BYTES)
    return system_call(bpfsys.BPF_NUMBERS, ctypes.c_int(command), attributes, size)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2), the attributes filled up with zeros; raises OSError."""
    return bpf_in_place(command, ctypes.create_string_buffer(attributes, bpfsys.ATTR_BYTES))


def info_by_fd(fd: int) -> bytes:
    """What the kernel says of a program, map or link: the bytes of its info struct."""
    info = ctypes.create_string_buffer(bpfsys.INFO_BYTES)
    bpf(bpfsys.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, bpfsys.INFO_BYTES, ctypes.addressof(info)))
    return info.raw


@functools.lru_cache(maxsize=None)
def possible_cpus() -> int:
    """How many values a per-CPU element has."""
    found = 0
    for part in Path("/sys/devices/system/cpu/possible").read_text().strip().split(","):
        first, _dash, last = part.partition("-")
        found += int(last or first) - int(first) + 1
    return found


def process_start_ns(pid: int) -> int | None:
    """When a process started, in ns since boot; None when it is gone."""
    fields = read_small(f"/proc/{pid}/stat").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[19]) * (1000000000 // ticks) if len(fields) > 19 else None


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that is in RAM, in bytes; None when it is gone."""
    fields = read_small(f"/proc/{pid}/statm").split()
    return int(fields[1]) * mmap.PAGESIZE if len(fields) > 1 else None


def boot_id() -> str:
    return read_small("/proc/sys/kernel/random/boot_id").strip()


def kernel_facts() -> dict[str, Any]:
    """The kernel as status.json tells of it."""
    release = os.uname().release
    family = hostfiles.kernel_family(release) or ""
    distro = hostfiles.read_os_release(Path("/"))["id"]
    return {
        "release": release,
        "family": family,
        "distro_family": f"{distro}-{family}" if distro and family else None,
        "machine": os.uname().machine,
        "btf": "vmlinux" if os.access("/sys/kernel/btf/vmlinux", os.R_OK) else "missing",
    }


def set_process_name() -> None:
    """The name by which the kill script finds us."""
    LIBC.prctl(PR_SET_NAME, ctypes.create_string_buffer(NAME.encode("ascii")), 0, 0, 0)
