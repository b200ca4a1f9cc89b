# SPDX-License-Identifier: GPL-3.0-or-later
"""Executions as a load: floods and marked ones, by users that exist only as numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.loader.foreign import ROOT

SOURCE = Path(__file__).with_name("execs.c")


def build() -> Path:
    """Compile the load where it is not newer than its source, static so that it runs on any host; the binary."""
    binary = ROOT / "build" / "load" / "execs"
    if binary.exists() and binary.stat().st_mtime >= SOURCE.stat().st_mtime:
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    part = binary.with_suffix(f".{os.getpid()}")
    command = ["gcc", "-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(part)]
    subprocess.run(command, check=True)
    part.rename(binary)
    return binary


def copy_as(folder: Path, name: str) -> Path:
    """The load under a name of its own, which is the comm of what it executes (at most 15 characters)."""
    path = folder / name
    shutil.copy(build(), path)
    path.chmod(0o755)
    return path


class Execs:
    """Executions that go on; wait() tells how many succeeded."""

    def __init__(
        self,
        binary: Path,
        uids: list[int],
        seconds: float = 0,
        processes: int = 1,
        interval: float = 0,
        count: int = 0,
        cgroup: Path | None = None,
        owner: int | None = None,
        subuids: int = 0,
    ) -> None:
        """Begin: seconds and count of 0 are no end, an interval (seconds) of 0 is no pause.

        With an owner the users are those of a user namespace of his, in which 0 is
        himself and each other has the number subuids + uid outside.
        """
        numbers = [int(seconds * 1000), processes, int(interval * 1e6), count, *uids]
        command = [str(binary), *map(str, numbers)]
        if owner is not None:
            command = [str(binary), "--owner", str(owner), str(subuids), *command[1:]]
        if cgroup is not None:  # the shell enters the group and becomes the load
            command = ["/bin/sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh", *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait(self) -> int:
        """Wait for its end; executions that succeeded."""
        out, _err = self.process.communicate(timeout=120)
        words = out.split()
        assert len(words) == 2 and words[0] == "executed", f"the load said {out!r}"
        return int(words[1])
