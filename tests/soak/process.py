# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process holds, by /proc: memory, descriptors by kind, threads."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Sequence

LOOKS = 5
LOOK_SECONDS = 0.03


def held(pid: int) -> dict[str, int]:
    """Resident and anonymous memory in KiB, and threads, by /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = {key: int(value) for key, value in re.findall(r"^(VmRSS|RssAnon|Threads):\s+(\d+)", text, re.M)}
    return {"rss_kib": found["VmRSS"], "anonymous_kib": found["RssAnon"], "threads": found["Threads"]}


def descriptors(pid: int) -> dict[str, int]:
    """How many descriptors of each kind are held: those that are there at each of several looks.

    A status that is just being written has two of its own, for some 100 microseconds.
    """
    looks = [_descriptors_now(pid)]
    for _ in range(LOOKS - 1):
        time.sleep(LOOK_SECONDS)
        looks.append(_descriptors_now(pid))
    held_on = {kind: min(each.get(kind, 0) for each in looks) for kind in looks[0]}
    return {kind: number for kind, number in sorted(held_on.items()) if number}


def _descriptors_now(pid: int) -> dict[str, int]:
    """Anonymous inodes by name, sockets and pipes as such, files by path."""
    kinds: Counter[str] = Counter()
    for each in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{each}")
        except FileNotFoundError:
            continue  # closed meanwhile
        kinds[re.sub(r":\[\d+\]$", "", target).replace(" (deleted)", "")] += 1
    return dict(kinds)


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The straight line's slope through (x, y) by least squares; None with fewer than three points."""
    if len(points) < 3:
        return None
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    if not spread:
        return None
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
