# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a flock(2) that another process may hold, and give up after a time."""

from __future__ import annotations

import fcntl
import time

_SECONDS_BETWEEN = 0.05


def took(fd: int, seconds: float) -> bool:
    """Take the exclusive lock of an open file; False where another process held it for all of these seconds.

    The lock ends with the last descriptor of that opening. OSError where the file system has no locks.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        time.sleep(_SECONDS_BETWEEN)
