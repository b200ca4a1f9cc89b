# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run, as root, a program that is not trusted, so that it can do nothing but read its files and answer.

The program is the first process of a process namespace, in a root of its own that holds it, one folder
and a few small files, all read-only. It has an id that no one else has, no capability and no way to one,
no descriptor but /dev/null and two pipes, no environment, few system calls (``syscall_filter``) and limits
on everything. Before it starts, the kernel's own account of the process is compared with what was meant.

Mandatory, or nothing is run (``EF_NO_CONFINEMENT``): namespaces of mounts and processes, the own root, the
id, no capabilities, the filter, the limits. Namespaces of network, IPC and host name are taken where the
kernel has them: no system call that could use the host's is allowed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import select
import signal
import struct
import time
from typing import NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.confinement import (
    PR_SET_PDEATHSIG,
    Bounds,
    Ends,
    Place,
    become,
    enter_namespaces,
    prctl,
    report_failure,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.syscall_filter import MACHINES

# An id for each run, of a range that neither distributions nor systemd nor container tools hand out
# (systemd's UIDS-GIDS). Not `nobody`: whatever else runs as that would share limits and signals with it.
# Not ebpf-fleet: that user owns the running loader's files.
FIRST_ID = 1879048192

MAX_REPORT = 4096
SECONDS_TO_DIE = 20


class Ended(NamedTuple):
    """How it ended, in words, with its exit status where it has one, and what it wrote."""

    ended: str
    status: int | None
    stdout: bytes
    stderr: bytes


REMEDIES = {
    errno.ENOSPC: "raise user.max_mnt_namespaces and user.max_pid_namespaces (sysctl)",
    errno.EPERM: "run it on the host itself, not within a container that lacks CAP_SYS_ADMIN",
    errno.EACCES: "run it on the host itself, not within a container that lacks CAP_SYS_ADMIN",
    errno.ENOSYS: "use a kernel with namespaces and seccomp",
    errno.EAGAIN: "this host is short of processes (TasksMax, ulimit -u, kernel.pid_max); run it again when it is not",
    errno.ENOMEM: "this host is short of memory; run it again when it is not",
    errno.ENFILE: "raise fs.file-max (sysctl)",
}
# Why a good program is not executed: this host is short of something.
SHORTAGES = frozenset((errno.EAGAIN, errno.ENOMEM, errno.ENFILE))
OTHER_REMEDY = (
    "use a kernel with namespaces and seccomp, a root that is not the initramfs, and no user namespace that lacks ids"
)


def run_confined(place: Place, arguments: list[str], bounds: Bounds) -> Ended:
    """Run ``place.program`` with these arguments (the first is its name) and wait for its end.

    Raises FleetError: ``EF_NO_CONFINEMENT`` where this host cannot confine it or is short of what it takes
    to run a program, ``EF_LOADER_ARCH`` where the kernel does not execute it. In both cases no instruction
    of it was run.
    """
    if platform.machine() not in MACHINES or struct.calcsize("P") != 8:
        refuse(f"the system calls of {platform.machine()} are not known", "use a 64-bit Python on x86_64 or aarch64")
    pipes = _Pipes()
    try:
        parent = os.getpid()
        keeper = os.fork()
        if keeper == 0:
            _keep(parent, place, arguments, bounds, pipes)
        pipes.close_far_ends()
        try:
            found = _collect(pipes, bounds)
        finally:
            # The program is the keeper's child: it dies with it, and it is the first of its namespace.
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # a module may have been started with SIGCHLD ignored
                os.waitpid(keeper, 0)
            _await_end(pipes)
    finally:
        pipes.close()
    return found


def refuse(problem: str, remedy: str) -> NoReturn:
    """Nothing is run on a host that cannot confine it."""
    raise FleetError(
        "EF_NO_CONFINEMENT", f"this host cannot confine the bundle's loader, so it was not run: {problem}; {remedy}"
    )


class _Pipes:
    """The program's two pipes, the report of what confines it, and a lifeline that the keeper holds."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.null = self._own(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        self.stdout, self.stdout_far = self._pair()
        self.stderr, self.stderr_far = self._pair()
        self.report, self.report_far = self._pair()
        self.lifeline, self.lifeline_far = self._pair()

    def _own(self, fd: int) -> int:
        """Take it over; never as one of the standard three, which a module may have been started without."""
        if fd <= 2:
            low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(low)
        self.open.add(fd)
        return fd

    def _pair(self) -> tuple[int, int]:
        near, far = os.pipe()
        return self._own(near), self._own(far)

    def ends(self) -> Ends:
        return Ends(self.null, self.stdout_far, self.stderr_far, self.report_far, self.lifeline)

    def close_far_ends(self) -> None:
        self._close(self.null, self.stdout_far, self.stderr_far, self.report_far, self.lifeline, self.lifeline_far)

    def close(self) -> None:
        self._close(*self.open)

    def _close(self, *fds: int) -> None:
        for fd in set(fds) & self.open:
            os.close(fd)
            self.open.discard(fd)


# The module's own side


def _collect(pipes: _Pipes, bounds: Bounds) -> Ended:
    """Read all three pipes, each to its bound, until they end or the time is over."""
    room = {pipes.stdout: bounds.stdout_bytes, pipes.stderr: bounds.stderr_bytes, pipes.report: MAX_REPORT}
    heard = {fd: b"" for fd in room}
    until = time.monotonic() + bounds.seconds
    listening = set(room)
    while listening:
        left = until - time.monotonic()
        poll = select.poll()
        for fd in listening:
            poll.register(fd, select.POLLIN)
        ready = poll.poll(max(0, left) * 1000) if left > 0 else []
        if not ready:
            return _ended(f"killed, not done within {bounds.seconds:g} s", heard, pipes)
        for fd, _event in ready:
            data = os.read(fd, 65536)
            if not data:
                listening.discard(fd)
            heard[fd] += data
            if len(heard[fd]) > room[fd]:
                return _ended(f"killed, wrote more than {room[fd]} bytes", heard, pipes)
    return _understand(heard[pipes.report].decode("ascii", "replace"), heard, pipes)


def _ended(how: str, heard: dict[int, bytes], pipes: _Pipes, status: int | None = None) -> Ended:
    return Ended(how, status, heard[pipes.stdout], heard[pipes.stderr])


def _understand(report: str, heard: dict[int, bytes], pipes: _Pipes) -> Ended:
    """The report's first line is from before the program ran, or else from its keeper."""
    kind, _space, detail = (report.splitlines() or ["nothing"])[0].partition(" ")
    number, _space, step = detail.partition(" ")
    if kind == "exit":
        return _ended(f"exit status {number}", heard, pipes, int(number))
    if kind == "signal":
        return _ended(f"killed by signal {number}", heard, pipes)
    if kind == "exec" and int(number) not in SHORTAGES:
        raise FleetError(
            "EF_LOADER_ARCH",
            f"the bundle's loader does not run here ({os.strerror(int(number))}); check that it is a static program "
            "of this architecture and that /var/lib is not mounted noexec",
        )
    if kind in ("step", "exec"):
        refuse(f"{step}: {os.strerror(int(number))}", REMEDIES.get(int(number), OTHER_REMEDY))
    refuse("what confines it was killed", "look for the out-of-memory killer in the kernel's log and run again")


def _await_end(pipes: _Pipes) -> None:
    """Wait until the last of its processes is gone: its ends of the pipes are closed then."""
    until = time.monotonic() + SECONDS_TO_DIE
    waiting = {pipes.stdout, pipes.stderr}
    while waiting and time.monotonic() < until:
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        for fd, _event in poll.poll(1000):
            if not os.read(fd, 65536):
                waiting.discard(fd)


# The keeper: a process between, whose children are in the new process namespace


def _keep(parent: int, place: Place, arguments: list[str], bounds: Bounds, pipes: _Pipes) -> NoReturn:
    """Start the confined process, wait for it and report how it ended; never returns."""
    report = pipes.report_far
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        prctl("tie to the module", PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        enter_namespaces()
        user = FIRST_ID + os.getpid()
        child = os.fork()
        if child == 0:
            become(place, arguments, bounds, pipes.ends(), user)
        for fd in (pipes.stdout_far, pipes.stderr_far):
            os.close(fd)
        _pid, status = os.waitpid(child, 0)
        words = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        os.write(report, words.encode("ascii"))
    except BaseException as error:
        report_failure(report, error)
    finally:
        os._exit(0)
