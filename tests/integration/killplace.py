# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that hold a program, in a real cgroup of the loader's unit or outside of it, below a root of their own.

The program has a name of its own and the contract of a feature names it, so that loaders of other
suites on this kernel do not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}
FEATURE = "probe"
USER_ID = 45678

# NAME COMM UID GROUP…: loads the program, enters the cgroups, becomes the user, says id and tag, and stays.
HOLDER = r"""
import ctypes, os, struct, sys, time
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
name, comm, uid, groups = sys.argv[1].encode(), sys.argv[2].encode(), int(sys.argv[3]), sys.argv[4:]
ctypes.CDLL(None).prctl(15, comm, 0, 0, 0)
code = ctypes.create_string_buffer(bpfsys.RETURN_ZERO, len(bpfsys.RETURN_ZERO))
licence = ctypes.create_string_buffer(b"GPL")
at = ctypes.addressof
fd = bpfsys.bpf(5, struct.pack("=IIQQIIQII16s", 17, len(code) // 8, at(code), at(licence), 0, 0, 0, 0, 0, name))
lines = open(f"/proc/self/fdinfo/{fd}").read().splitlines()
info = dict(line.split(":\t") for line in lines if line.startswith("prog_"))
for group in groups:
    open(f"{group}/cgroup.procs", "w").write("0")
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
print(info["prog_id"], info["prog_tag"], flush=True)
time.sleep(120)
"""


def cgroup2() -> Path | None:
    """Where cgroup v2 is mounted, or None."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)


def remove_group(group: Path) -> None:
    """Remove a cgroup as soon as the kernel is through with the processes that ended in it."""
    for _attempt in range(200):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
    group.rmdir()


class Holder:
    """One process that holds the program."""

    def __init__(self, process: subprocess.Popen[str], said: str) -> None:
        self.process = process
        self.program, self.tag = int(said.split()[0]), said.split()[1]

    @property
    def is_dead(self) -> bool:
        return self.process.poll() is not None

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)


class KillPlace:
    """A host that is only folders, one real cgroup and the processes that a test starts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = "ef_t_" + secrets.token_hex(4)
        base = cgroup2()
        assert base is not None
        self.group = base / f"ef-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.group.mkdir()
        slice_ = root / "sys/fs/cgroup/unified/system.slice"
        slice_.mkdir(parents=True)
        (slice_ / "ebpf-fleet-loader.service").symlink_to(self.group)
        self.state = root / "run/ebpf-fleet-loader"
        self.state.mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text(f"root:x:0:0::/:/bin/sh\nebpf-fleet:x:{USER_ID}:{USER_ID}::/:/bin/false\n")
        self.contract = root / f"var/lib/ebpf-fleet/current/bundle/features/{FEATURE}/contract.json"
        self.contract.parent.mkdir(parents=True)
        self.contract.write_text(json.dumps({"variants": [{"programs": [self.name]}]}))
        self.holders: list[Holder] = []

    def hold(self, comm: str, *, uid: int = 0, in_unit: bool = False, isolate: Sequence[str] = ()) -> Holder:
        """Start a process that holds the program."""
        groups = [str(self.group)] if in_unit else []
        process = subprocess.Popen(
            [*isolate, sys.executable, "-c", HOLDER, self.name, comm, str(uid), *groups],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        holder = Holder(process, process.stdout.readline())
        self.holders.append(holder)
        return holder

    def list_program(self, holder: Holder, feature: str = FEATURE) -> None:
        """Write the loader's list of programs."""
        (self.state / "programs").write_text(f"{holder.program} {holder.tag} {feature} {self.name}\n")

    def switch(self, *scopes: str, shell: str = "dash", before: str = "", **more: Any) -> dict[str, Any]:
        """Run the script, in a mount namespace in which `before` was run if any; the answer, with `seconds` beside."""
        given = {"grace_seconds": 1, "deadline_seconds": 10, **more}
        script = killscript.render(list(scopes) or [f"feature={FEATURE}"], root=str(self.root), **given)
        isolate = ["unshare", "--mount", "sh", "-c", f'{before}\nexec "$@"', "sh"] if before else []
        start = time.monotonic()
        done = subprocess.run(
            [*isolate, *SHELLS[shell], "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=given["deadline_seconds"] + 60,
        )
        seconds = time.monotonic() - start
        assert done.stderr == ""
        assert done.stdout.startswith(f"\n{killscript.MARK}") and done.stdout.count("\n") == 2, done.stdout
        answer = json.loads(done.stdout[1 + len(killscript.MARK) :])
        assert (done.returncode == 0) is answer["ok"]
        return {**answer, "seconds": seconds}

    def has_order(self, order: str = f"feature.{FEATURE}") -> bool:
        return (self.root / "run/ebpf-fleet/kill.d" / order).exists()

    def clear(self) -> None:
        """End every process and remove the cgroup."""
        for holder in self.holders:
            holder.process.kill()
            holder.process.wait()
        self._end_children()
        self._let_go()
        remove_group(self.group)

    def _let_go(self) -> None:
        """What the script left waiting for a disk that hangs, which here is a FIFO, reads its end and goes."""
        for path in [path for path in self.root.rglob("*") if path.is_fifo()]:
            with contextlib.suppress(OSError):  # nobody waits for it
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    def _end_children(self) -> None:
        """A holder in a namespace of its own outlives the unshare(1) that started it."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.name.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def million_lines(path: Path) -> None:
    path.write_text("".join(f"{number} aabb probe ef_{number}\n" for number in range(1_000_000)))


def bad_words(path: Path) -> None:
    path.write_text('1 a" probe x\n2 $(reboot) probe `id`\n3 aa probe "},{"ok":true\n4 aa * *\n')


# What a loader's user can put in the place of a file that root reads.
HOSTILE_FILES = [fifo, endless, folder, sparse, million_lines, bad_words]
