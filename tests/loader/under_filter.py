# SPDX-License-Identifier: GPL-3.0-or-later
"""under_filter.py CALL,CALL… COMMAND…: run a command that has these system calls and no others, as a unit has it.

!CALL,CALL…: all but these.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM


def main(calls: str, *command: str) -> None:
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    others, these = (ALLOW, REFUSE) if calls.startswith("!") else (REFUSE, ALLOW)
    context = lib.seccomp_init(others)
    for name in calls.removeprefix("!").split(","):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and lib.seccomp_rule_add_array(context, these, number, 0, None):
            sys.exit(f"under_filter: no rule can be made of {name}")
    if lib.seccomp_load(context):
        sys.exit("under_filter: the filter cannot be loaded")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
