# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest sees of this machine's processor.

An emulated guest reads this machine's own time stamp counter. Left to measure its rate, a guest
kernel that is disturbed at the wrong moment is wrong by a factor of four and its clock with it, so
it is told the rate.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import time
from pathlib import Path
from typing import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_COUNTER = bytes.fromhex("0f3148c1e2204809d0c3")
_MEASURE_SECONDS = 0.25
_DISTURBED_NANOSECONDS = 50_000


def _undisturbed(read: Callable[[], int]) -> tuple[int, int]:
    """The counter and the nanosecond it was read at, tried until nothing came between the two."""
    while True:
        before = time.monotonic_ns()
        ticks = read()
        after = time.monotonic_ns()
        if after - before < _DISTURBED_NANOSECONDS:
            return ticks, (before + after) // 2


@functools.lru_cache(maxsize=None)
def counter_khz() -> int:
    """The rate of the time stamp counter in kHz, measured against the monotonic clock."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_READ_COUNTER)
        entry = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(entry))
        first_ticks, first = _undisturbed(read)
        time.sleep(_MEASURE_SECONDS)
        last_ticks, last = _undisturbed(read)
        del read, entry
    return (last_ticks - first_ticks) * 1_000_000 // (last - first)


def description(accelerator: str) -> str:
    """What must be equal for a snapshot to go on running: the counter's rate, under KVM also the model."""
    rate = f"{round(counter_khz(), -4)} kHz"
    if accelerator != "kvm":
        return rate
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join([rate, *sorted({line for line in lines if line.startswith(("model name", "flags"))})])
