# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a fan-out: a program of its own for a host, or a forked copy of this one.

Each leads a session of its own, so that all that it started ends with it and no terminal is asked
for a password.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any, Callable, Mapping, Sequence


class Session:
    """A process that leads its own session; `stdin` is None where nothing can be sent."""

    def __init__(self, pid: int, stdin: int | None, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._status: int | None = None
        self._reaped = False

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs. Its number stays taken until `reap`."""
        if self._status is None and hasattr(os, "waitid"):
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                self._status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        elif self._status is None:
            self._wait()
        return self._status

    def kill(self) -> None:
        """End all that is in its session's group, unless its number is no longer its own."""
        if self._reaped:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def reap(self) -> bool:
        """Has it ended? If so, its number is given back."""
        if not self._reaped:
            self._wait()
        return self._reaped

    def _wait(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0
        if pid:
            self._reaped = True
            self._status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class ForkedSession(Session):
    """A forked copy of this process, whose plugin may have put its own children into sessions of theirs."""

    def kill(self) -> None:
        if self._reaped:
            return
        # Stopped first, so that it starts no more while we look for what it started.
        _signal(self.pid, signal.SIGSTOP)
        for pid in descendants(self.pid, parents()):
            _signal(pid, signal.SIGKILL)
        super().kill()


def spawn(argv: Sequence[bytes], environment: Mapping[str, str] | None = None) -> Session:
    """Start a program with pipes for all three streams; OSError where that is not possible."""
    process = subprocess.Popen(
        list(argv), bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env=environment,
    )  # fmt: skip
    streams = [stream for stream in (process.stdin, process.stdout, process.stderr) if stream is not None]
    # The descriptors are duplicated, so that they do not end with the objects.
    stdin, stdout, stderr = (os.dup(stream.fileno()) for stream in streams)
    for stream in streams:
        stream.close()
    # Its end is ours to take, not this object's.
    process.returncode = 0
    return Session(process.pid, stdin, stdout, stderr)


def fork(work: Callable[[], Mapping[str, Any]]) -> ForkedSession:
    """A copy of this process that does `work` and prints what it returned as one JSON document."""
    out_end, out = os.pipe()
    err_end, err = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(work, out, err)
    os.close(out)
    os.close(err)
    return ForkedSession(pid, None, out_end, err_end)


def _work(work: Callable[[], Mapping[str, Any]], out: int, err: int) -> None:
    """The life of the forked copy; it never returns."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        text = json.dumps(work()).encode()
        while text:
            text = text[os.write(out, text) :]
        status = 0
    except BaseException as error:
        os.write(err, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace")[:4096])
    finally:
        os._exit(status)


def parents() -> dict[int, int]:
    """{process: its parent} of all processes, as ps tells; empty where ps cannot be asked."""
    try:
        done = subprocess.run(
            ["ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, text=True, check=False, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = [line.split() for line in done.stdout.splitlines()]
    return {int(pair[0]): int(pair[1]) for pair in pairs if len(pair) == 2}


def descendants(pid: int, parent_of: Mapping[int, int]) -> list[int]:
    """All processes below `pid`, nearest first. Pure."""
    found: list[int] = []
    edge = {pid}
    while edge:
        edge = {child for child, parent in parent_of.items() if parent in edge and child not in found}
        found += sorted(edge)
    return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
