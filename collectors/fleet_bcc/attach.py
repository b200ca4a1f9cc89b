# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attaching a program: the descriptor that comes back is the attachment, and closing it detaches."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import NamedTuple

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import bpf, system_call
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

PERF_FLAG_FD_CLOEXEC, PERF_IOC_ENABLE, PERF_IOC_SET_BPF = 8, 0x2400, 0x40042408


def open_raw_tracepoint(name: str, program_fd: int) -> int:
    """Attach; the descriptor that comes back is the link, and closing it detaches."""
    text = ctypes.create_string_buffer(name.encode("ascii"))
    return bpf(bpfsys.RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(text), program_fd))


def open_perf_event(attributes: bytes, pid: int, cpu: int) -> int:
    """perf_event_open(2)."""
    block = ctypes.create_string_buffer(attributes.ljust(112, b"\0"), 112)
    flags = ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC)
    arguments = (block, ctypes.c_int(pid), ctypes.c_int(cpu), ctypes.c_int(-1), flags)
    return system_call(bpfsys.PERF_NUMBERS, *arguments)


def open_kprobe(symbol: str, is_return: bool, program_fd: int) -> int:
    """Attach through perf's kprobe unit: the probe is the descriptor's, with no entry in tracefs."""
    folder = Path("/sys/bus/event_source/devices/kprobe")
    kind = int((folder / "type").read_text())
    text = ctypes.create_string_buffer(symbol.encode("ascii"))
    # type, size, config (bit 0: return), period, sample and read format, flags, wakeup, bp_type, config1, config2
    attributes = struct.pack("=IIQQQQQIIQQ", kind, 112, int(is_return), 1, 0, 0, 0, 1, 0, ctypes.addressof(text), 0)
    fd = open_perf_event(attributes, -1, 0)
    try:
        fcntl.ioctl(fd, PERF_IOC_SET_BPF, program_fd)
        fcntl.ioctl(fd, PERF_IOC_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


class Hook(NamedTuple):
    """What a program is attached to: kind raw_tp, kprobe or kretprobe."""

    kind: str
    target: str

    def attach(self, program_fd: int) -> int:
        """The descriptor that is the attachment; raises OSError."""
        if self.kind == "raw_tp":
            return open_raw_tracepoint(self.target, program_fd)
        return open_kprobe(self.target, self.kind == "kretprobe", program_fd)
