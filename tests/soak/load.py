# SPDX-License-Identifier: GPL-3.0-or-later
"""The changing load of a soak: a process whose calls are counted, and one that starts programs and connections."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

# Orders, one a line: `rate N` calls a second from now on; `calls N` so many and no more, then "done";
# `names N` one call under each of N names, then "done". Calls are made in batches of 10 ms.
CALLER = """
import ctypes, os, select, sys, time
prctl, call = ctypes.CDLL(None).prctl, os.getppid
rate, due, data = 0, time.monotonic(), b""
print("ready", flush=True)
while True:
    wait = max(0, due - time.monotonic()) if rate else None
    if select.select([0], [], [], wait)[0]:
        data += os.read(0, 4096)
    *lines, data = data.split(b"\\n")
    for line in lines:
        order, number = line.split()[0], int(line.split()[1])
        if order == b"rate":
            rate, due = number, time.monotonic()
        for turn in range(number if order != b"rate" else 0):
            if order == b"names":
                prctl(15, b"name%d" % turn, 0, 0, 0)
            call()
        if order == b"names":
            prctl(15, b"soak", 0, 0, 0)
        if order != b"rate":
            print("done", flush=True)
    if rate and time.monotonic() >= due:
        for _ in range(max(1, rate // 100)):
            call()
        due = max(due + 0.01, time.monotonic() - 0.1)
"""

# Each turn: N programs started, N files made and removed, N connections on the loopback. `turn N` sets N and the pause.
CHURN = """
import os, select, socket, subprocess, sys, time
folder, number, pause, data = sys.argv[1], 1, 0.1, b""
server = socket.create_server(("127.0.0.1", 0), backlog=64)
while True:
    if select.select([0], [], [], pause)[0]:
        data += os.read(0, 4096)
    *lines, data = data.split(b"\\n")
    for line in lines:
        number, pause = int(line.split()[0]), int(line.split()[1]) / 1000
    for turn in range(number):
        subprocess.run(["/bin/true"])
        path = os.path.join(folder, "churn%d" % turn)
        open(path, "w").close()
        os.unlink(path)
        with socket.create_connection(server.getsockname()):
            server.accept()[0].close()
"""


def _python(text: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, **options)


class Caller:
    """A process that calls getppid at a rate, or exactly so many times."""

    def __init__(self) -> None:
        self.process = _python(CALLER, stdout=subprocess.PIPE)
        self._expect(b"ready")

    @property
    def pid(self) -> int:
        return self.process.pid

    def _order(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def _expect(self, word: bytes) -> None:
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        assert said == word, f"the calling process said {said!r}, expected {word!r}"

    def rate(self, per_second: int) -> None:
        self._order(f"rate {per_second}")

    def calls(self, number: int) -> None:
        """Call exactly so many times at once, and no sooner return; what the rate makes comes on top."""
        self._order(f"calls {number}")
        self._expect(b"done")

    def names(self, number: int) -> None:
        """One call under each of so many names: each is another key of a table that counts by name."""
        self._order(f"names {number}")
        self._expect(b"done")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Churn:
    """A process that starts programs, makes files and connections."""

    def __init__(self, folder: str) -> None:
        self.process = _python(CHURN, folder)

    def turn(self, number: int, pause_ms: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number} {pause_ms}\n".encode())
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass(frozen=True)
class Phase:
    """How much is going on: calls a second, and what the churn does each turn."""

    calls_per_second: int
    churn: int
    pause_ms: int


PHASES = (Phase(200, 1, 200), Phase(2000, 4, 100), Phase(8000, 2, 50), Phase(50, 0, 500), Phase(4000, 12, 200))
QUIET = Phase(0, 0, 1000)


@dataclass
class Load:
    """Both processes, in one phase after another."""

    folder: str
    caller: Caller = field(default_factory=Caller)
    turn: int = 0

    def __post_init__(self) -> None:
        self.churn = Churn(self.folder)

    def next_phase(self) -> Phase:
        phase = PHASES[self.turn % len(PHASES)]
        self.turn += 1
        self.enter(phase)
        return phase

    def enter(self, phase: Phase) -> None:
        self.caller.rate(phase.calls_per_second)
        self.churn.turn(phase.churn, phase.pause_ms)

    def end(self) -> None:
        self.caller.end()
        self.churn.end()
