# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process and no other that later has its number: its start, its ancestors, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text

_PARENT, _STATE, _START = 1, 0, 19  # fields 4, 3 and 22 of proc(5), counted from the state, which follows the name
SECONDS_BETWEEN = 0.05


def _fields(pid: int, proc: Path) -> list[str] | None:
    text = read_text(proc / str(pid) / "stat")
    return text.rpartition(")")[2].split() if text is not None else None


def start_ticks(pid: int, proc: Path = Path("/proc")) -> int | None:
    """When a process began, in clock ticks since the boot; None of one that is not there, or has ended."""
    fields = _fields(pid, proc)
    if fields is None or len(fields) <= _START or fields[_STATE] in ("Z", "X"):
        return None
    return int(fields[_START])


def ancestors(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """A process, what began it, and so on."""
    found: list[int] = []
    while pid > 0 and pid not in found:
        found.append(pid)
        fields = _fields(pid, proc)
        pid = int(fields[_PARENT]) if fields is not None and len(fields) > _PARENT else 0
    return found


def end(pid: int, started: int, grace_seconds: float, kill_seconds: float) -> bool:
    """SIGTERM, and SIGKILL after the grace, for the process that began then; whether it is gone.

    Another process that has its number by now is left alone: by a pidfd where Python has it (3.9), else the start is
    compared just before the signal.
    """
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, kill_seconds)):
        if start_ticks(pid) != started:
            return True
        _signal(pid, started, number)
        until = time.monotonic() + seconds
        while start_ticks(pid) == started and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN)
    return start_ticks(pid) != started


def _signal(pid: int, started: int, number: signal.Signals) -> None:
    opener, sender = getattr(os, "pidfd_open", None), getattr(signal, "pidfd_send_signal", None)
    with contextlib.suppress(ProcessLookupError):
        fd = None
        if opener is not None and sender is not None:
            with contextlib.suppress(OSError):  # a kernel before 5.3
                fd = opener(pid)
        try:
            if start_ticks(pid) != started:
                return
            if fd is not None and sender is not None:
                sender(fd, number)
            else:
                os.kill(pid, number)
        finally:
            if fd is not None:
                os.close(fd)
