# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system calls of a program that reads files and writes to its standard output, as a seccomp filter. Pure.

The filter is classic BPF over ``struct seccomp_data``. Another architecture's calls end the process;
a call that is not listed fails with EPERM, so that a later C library that tries one more goes on without it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; both machines are little-endian.
NR, ARCH, ARGS = 0, 4, 16
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
KILL_PROCESS, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
X32_BIT = 0x40000000

# Which descriptor the one allowed execveat(2) names. It is above the program's own limit of
# descriptors and closed by that call, so the program can never have it again.
EXEC_FD = 200
OPEN_FILES = 64


class Machine(NamedTuple):
    """What a filter must know of a machine: AUDIT_ARCH_*, and where in ``CALLS`` its numbers are."""

    arch: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}

EXECVEAT, PRLIMIT64 = (322, 281), (302, 261)
# (x86_64, aarch64); None where the machine has no such call.
CALLS: dict[str, tuple[int | None, int | None]] = {
    # files that it reads, and its answer
    "read": (0, 63),
    "pread64": (17, 67),
    "readv": (19, 65),
    "write": (1, 64),
    "writev": (20, 66),
    "open": (2, None),
    "openat": (257, 56),
    "close": (3, 57),
    "lseek": (8, 62),
    "fcntl": (72, 25),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # how a static C program starts and ends
    "arch_prctl": (158, None),
    "set_tid_address": (218, 96),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # who and where it is, time and chance
    "uname": (63, 160),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "sched_getaffinity": (204, 123),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    # a limit can be read or lowered; to raise one takes a capability
    "prlimit64": PRLIMIT64,
}


def _instruction(code: int, true: int, false: int, value: int) -> bytes:
    """One ``struct sock_filter``."""
    return struct.pack("=HBBI", code, true, false, value)


def _returns(value: int) -> bytes:
    return _instruction(RETURN, 0, 0, value)


def _allowed_if(number: int, argument: int, value: int) -> bytes:
    """That call with that 64-bit argument; any other value is refused."""
    at = ARGS + 8 * argument
    return b"".join(
        (
            _instruction(JUMP_EQUAL, 0, 6, number),
            _instruction(LOAD, 0, 0, at),
            _instruction(JUMP_EQUAL, 0, 3, value),
            _instruction(LOAD, 0, 0, at + 4),
            _instruction(JUMP_EQUAL, 0, 1, 0),
            _returns(ALLOW),
            _returns(REFUSE),
        )
    )


def filter_program(machine: str) -> bytes:
    """The filter for that machine (``uname -m``), ``struct sock_filter`` after ``struct sock_filter``.

    Raises KeyError for a machine whose numbers are not known here.
    """
    arch, column = MACHINES[machine]
    parts = [
        _instruction(LOAD, 0, 0, ARCH),
        _instruction(JUMP_EQUAL, 1, 0, arch),
        _returns(KILL_PROCESS),
        _instruction(LOAD, 0, 0, NR),
        _instruction(JUMP_AT_LEAST, 0, 1, X32_BIT),
        _returns(KILL_PROCESS),
    ]
    for numbers in CALLS.values():
        number = numbers[column]
        if number is not None:
            parts += [_instruction(JUMP_EQUAL, 0, 1, number), _returns(ALLOW)]
    parts.append(_allowed_if(EXECVEAT[column], 0, EXEC_FD))
    parts.append(_returns(REFUSE))
    return b"".join(parts)
