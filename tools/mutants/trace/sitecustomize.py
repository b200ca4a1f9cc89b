# SPDX-License-Identifier: GPL-3.0-or-later
"""Records what of the tree a process uses, for whom: every Python that a test starts loads this first.

EBPF_FLEET_SEEN is a folder; each process appends to a file of its own there, where EBPF_FLEET_SEEN_CALLS is not empty
a line for each function when it is first seen under a test: test, file below the tree, dotted name of the function.
A playbook, or a file of a role, has a line without a name when it is opened. Lines are written at once: who forks or is
killed says nothing at its end.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from types import FrameType

FOLDER = os.environ.get("EBPF_FLEET_SEEN", "")
# Installed on a host, in the zip of a module or in the tree itself, the path ends like this.
MARKS = ("/plugins/", "/collectors/", "/tools/")
# What Ansible reads.
READ = re.compile(r"(?:.*/)?((?:playbooks|roles)/.+\.(?:yml|j2))", re.S)


class Recorder:
    """What `sys.setprofile` calls; `test` is set by the plugin in pytest's own process."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        # Code that was met under this test, by its id: functions of two files may be equal code. It is held, so that
        # the id stays its own.
        self.met: dict[int, object] = {}
        self.test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" (", 1)[0]
        self.paths: dict[str, str] = {}
        self.file: tuple[int, int] | None = None

    @property
    def test(self) -> str:
        return self._test

    @test.setter
    def test(self, name: str) -> None:
        self._test = name
        self.met = {}

    def below(self, filename: str) -> str:
        """The path below the tree, "" for what is not of it."""
        known = self.paths.get(filename)
        if known is None:
            known = ""
            for mark in MARKS:
                at = filename.rfind(mark)
                if at >= 0 and "/site-packages/" not in filename:
                    known = filename[at + 1 :]
                    break
            self.paths[filename] = known
        return known

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if id(code) in self.met:
            return
        self.met[id(code)] = code
        path = self.below(code.co_filename)
        if not path:
            return
        name = getattr(code, "co_qualname", code.co_name).replace(".<locals>", "")
        self.write(f"{self.test}\t{path}\t{name}\n")

    def opened(self, event: str, arguments: tuple[object, ...]) -> None:
        """What `sys.addaudithook` calls."""
        if event != "open" or not isinstance(arguments[0], str):
            return
        found = READ.fullmatch(arguments[0])
        if found and (self.test, found[1]) not in self.seen:
            self.seen.add((self.test, found[1]))
            self.write(f"{self.test}\t{found[1]}\t\n")

    def write(self, line: str) -> None:
        if self.file is None or self.file[0] != os.getpid():
            path = os.path.join(FOLDER, f"{os.getpid()}.tsv")
            try:
                self.file = (os.getpid(), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666))
            except OSError:  # a process that was confined away from it
                sys.setprofile(None)
                return
        try:
            os.write(self.file[1], line.encode())
        except OSError:  # the descriptor was closed by who tidies up after a fork
            self.file = None


if FOLDER:
    recorder = Recorder()
    if os.environ.get("EBPF_FLEET_SEEN_CALLS"):
        sys.setprofile(recorder)
        threading.setprofile(recorder)
    sys.addaudithook(recorder.opened)
