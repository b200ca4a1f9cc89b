# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages for the journal, and for systemd."""

from __future__ import annotations

import contextlib
import os
import select
import socket

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import NAME


def say(level: int, text: str, before: str = f"{NAME}: ") -> None:
    """One line for the journal, dropped when no reader takes it: a full pipe must not hold up a kill."""
    prefix = f"<{level}>" if os.environ.get("JOURNAL_STREAM") else ""
    shown = "".join(char if " " <= char <= "~" else "?" for char in text)
    line = prefix + before + shown[:3900] + "\n"
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("ascii"))


def notify(state: str) -> None:
    """Tell systemd, where it listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode("utf-8", "replace"), address)
