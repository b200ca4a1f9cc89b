# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command and all that it starts takes: a cgroup of its own counts the CPU and the most memory at once."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Sequence

CGROUP = Path("/sys/fs/cgroup")


class Group:
    """A cgroup of its own for a controller: an ssh that outlives its command is counted, too."""

    def __init__(self, name: str = "controller") -> None:
        mine = f"ebpf-fleet-bench-{name}-{os.getpid()}"
        v1 = [CGROUP / kind for kind in ("cpuacct", "memory") if (CGROUP / kind).is_dir()]
        self.paths = [folder / mine for folder in v1 or [CGROUP]]
        for path in self.paths:
            path.mkdir(exist_ok=True)

    def seconds(self) -> float:
        """CPU of all that was in it."""
        for path in self.paths:
            if (path / "cpuacct.usage").exists():
                return int((path / "cpuacct.usage").read_text()) / 1e9
        stat = dict(line.split() for line in (self.paths[0] / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6

    def peak_bytes(self) -> int | None:
        """The most memory that all in it had at once, with the files that they read; None where it is not counted."""
        for path in self.paths:
            for name in ("memory.max_usage_in_bytes", "memory.peak"):
                if (path / name).exists():
                    return int((path / name).read_text())
        return None

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command, begun in it."""
        into = "".join(f"echo $$ > {path}/cgroup.procs && " for path in self.paths)
        return ["sh", "-c", f'{into}exec "$@"', "sh", *command]

    def end(self) -> None:
        """End what is left of it, as connections that are kept."""
        for path in self.paths:
            for _try in range(50):
                pids = (path / "cgroup.procs").read_text().split()
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), 9)
                if not pids:
                    break
                time.sleep(0.1)
            with contextlib.suppress(OSError):
                path.rmdir()
