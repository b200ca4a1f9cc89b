# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compilation as the service sees it: a child, its limits of time, and what it hands over."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.records import Field

COMPILE_SECONDS = 300
CHILD_SAYS_BYTES = 32 * 1024


class Compiled(NamedTuple):
    """What the child handed over; the descriptors are the receiver's."""

    programs: dict[str, int]
    maps: dict[str, int]
    fields: list[Field]

    def close(self) -> None:
        for fd in list(self.programs.values()) + list(self.maps.values()):
            os.close(fd)


class Job:
    """One compilation in a process of its own: `entry`, the collector's bcc.py, as its child."""

    def __init__(self, entry: Path, source: Source, events_map: str | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-I", "-B", str(entry), "compile", "--socket", str(theirs.fileno())]
        self.output = os.memfd_create("output") if hasattr(os, "memfd_create") else os.open("/dev/null", os.O_RDWR)
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self.output, stderr=self.output, pass_fds=[theirs.fileno()],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        self.socket = ours
        self.until = time.monotonic() + COMPILE_SECONDS
        kinds = {name: hook.kind for name, hook in source.programs.items()}
        request = {"text": source.text.decode("utf-8", "replace"), "programs": kinds, "events_map": events_map}
        assert self.process.stdin is not None
        with contextlib.suppress(OSError), self.process.stdin as pipe:
            pipe.write(json.dumps(request).encode("ascii"))

    def poll(self) -> Compiled | None:
        """None while it works; raises CannotRunError when it failed."""
        if not select.select([self.socket], [], [], 0)[0]:
            if time.monotonic() > self.until:
                raise CannotRunError("EF_BCC_COMPILE", f"the compiler was not ready within {COMPILE_SECONDS} s")
            return None
        data, fds = self._receive()
        if not data:
            self.process.wait()
            raise CannotRunError(
                "EF_BCC_COMPILE", f"the compiler ended with {self.process.returncode}: {self._last_words()}"
            )
        answer = json.loads(data)
        if "code" in answer:
            said = self._last_words() if answer["code"] in ("EF_BCC_COMPILE", "EF_LOAD_REJECTED") else ""
            raise CannotRunError(answer["code"], f"{answer['reason']}{'; it said: ' if said else ''}{said}")
        names = answer["programs"]
        maps = dict(zip(answer["maps"], fds[len(names) :]))
        return Compiled(dict(zip(names, fds)), maps, [Field(*field) for field in answer["fields"]])

    def _receive(self) -> tuple[bytes, list[int]]:
        fds = array.array("i")
        data, ancillary, _flags, _address = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(64 * fds.itemsize))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        return data, list(fds)

    def _last_words(self) -> str:
        """What the compiler complained of: its first errors."""
        text = os.pread(self.output, CHILD_SAYS_BYTES, 0).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line]
        return " | ".join((errors or lines[-5:])[:5])[:800]

    def kill(self) -> None:
        """End it; what it holds in the kernel goes with it."""
        with contextlib.suppress(OSError):
            self.process.kill()

    def close(self) -> None:
        self.kill()
        self.process.wait()
        self.socket.close()
        os.close(self.output)
