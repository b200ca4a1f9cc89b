# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH to the guests: the options that everyone uses, the first contact, the clock."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from typing import Sequence

from . import paths
from .errors import LabError

_EXCHANGE_SECONDS = 60.0

IDENTITY = paths.KEYS / "id_ed25519"


def options() -> list[str]:
    """Options that pin the guests' host key. The key exchange is one that is cheap to emulate."""
    return [
        "-o", f"UserKnownHostsFile={paths.KNOWN_HOSTS}", "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=20",
        "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
        "-o", "KexAlgorithms=^curve25519-sha256",
    ]  # fmt: skip


def command(port: int, words: Sequence[str] = ()) -> list[str]:
    """The ssh command that runs `words` as root in the guest behind `port`."""
    return ["ssh", "-F", "none", "-i", str(IDENTITY), *options(), "-p", str(port), "root@127.0.0.1", *words]


def run(port: int, script: str, seconds: float = 60.0) -> str:
    """Run a shell script in a guest and return its output. Raises LabError when it fails."""
    argv = command(port, [script])
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"ssh to port {port}: no answer within {seconds:.0f} s") from error
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"ssh to port {port}: status {done.returncode}: {words}")
    return done.stdout


def greets(port: int) -> bool:
    """Whether an SSH server answers; before that a forwarded connection is taken and reset."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(8).startswith(b"SSH-")
    except OSError:
        return False


def _exchange(port: int, script: str) -> tuple[float, str]:
    """Start a script in a guest, send it this machine's time when it waits for it, and take its answer.

    How long a connection takes to come up on an emulated processor thus makes no time wrong.
    Returns the time that was sent, in seconds, and the answer.
    """
    process = subprocess.Popen(
        command(port, [f"echo ready; read -r now && {script}"]),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    limit = threading.Timer(_EXCHANGE_SECONDS, process.kill)
    limit.start()
    try:
        ready = process.stdout.readline() if process.stdout else ""
        sent = time.time()
        answer, errors = process.communicate(f"{sent:.6f}\n" if ready else None)
    finally:
        limit.cancel()
    if process.returncode:
        raise LabError(f"the clock of the guest on port {port}: {errors.strip() or 'no answer'}")
    return sent, answer


def set_clock(port: int) -> None:
    """Give a guest, whose clock stood still while it was a file, the time of this machine."""
    _exchange(port, 'date -u -s "@$now" >/dev/null')


def clock_error(port: int) -> float:
    """How many seconds a guest's clock is ahead of this machine's; below zero it is behind."""
    sent, answer = _exchange(port, "date +%s.%N")
    return float(answer) - sent


def known_hosts(ports: Sequence[int]) -> str:
    """The known_hosts text for guests behind these ports."""
    key = " ".join((paths.KEYS / "host_ed25519.pub").read_text().split()[:2])
    return "".join(f"[127.0.0.1]:{port} {key}\n" for port in ports)
