# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with real systemd and no VM: namespaces on this machine's kernel, reached by ordinary SSH.

    with SysHost.boot() as host:
        host.run("systemctl is-system-running")

What such a host is, and is not: CONTRIBUTING.md, "Hosts with systemd and no VM".
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

BOOT_SCRIPT = Path(__file__).resolve().with_name("syshost_boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--propagation", "private",
           "--kill-child=SIGKILL"]  # fmt: skip
NETWORK = "127.64.0"
PORT = 2222
BOOT_SECONDS = 60.0
STOP_SECONDS = 20.0
PR_SET_PDEATHSIG = 1


class SysHostError(Exception):
    """A host that did not boot or does not end; the message has what it printed."""


class Ran(NamedTuple):
    """How a command on the host ended: exit status (negative: the signal), standard output and error, seconds."""

    rc: int
    stdout: str
    stderr: str
    seconds: float


def why_not() -> str | None:
    """Why this machine cannot have such hosts, or None if it can."""
    if os.geteuid() != 0:
        return "hosts in namespaces need root"
    for program in ("unshare", "nsenter", "sshd", "ssh-keygen", "pivot_root"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"hosts in namespaces need {program}"
    if not SYSTEMD.exists():
        return f"hosts in namespaces need systemd: no {SYSTEMD}"
    if cgroup2() is None:
        return "hosts in namespaces need cgroup2: it is mounted nowhere here"
    return _why_no_overlay()


def _why_no_overlay() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        script = (
            'mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" "$1/r" && '
            'mount -t overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" overlay "$1/r" && '
            'mount -t proc proc "$1/r/proc"'
        )
        done = _call([*UNSHARE, "sh", "-c", script, "sh", folder])
    return None if done.returncode == 0 else f"no namespaces with an overlay over / here: {done.stderr.strip()}"


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)


def cgroup2() -> Path | None:
    """Where this machine has the cgroup2 hierarchy, also beside version 1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, place, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(place)
    return None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class SysHost:
    """One host. Leave the context, or call `stop`, and nothing of it is left on the machine."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="syshost-"))
        self.address, self.port = _free_address()
        self.name = "sys" + self.address.rpartition(".")[2]
        root = cgroup2()
        assert root is not None
        self.cgroup = root / f"syshost-{os.getpid()}-{self.name}"
        self._unshare: subprocess.Popen[bytes] | None = None
        self.pid_of_init = 0

    @classmethod
    def boot(cls) -> SysHost:
        """Boot a host and wait until its sshd answers. Raises SysHostError with its log when it does not."""
        host = cls()
        try:
            host._start()
            host._await_ssh()
        except BaseException:
            host.stop()
            raise
        return host

    def __enter__(self) -> SysHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- boot -------------------------------------------------------------------------------------

    def _start(self) -> None:
        (self.folder / "disk").mkdir()
        for name in ("key", "host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)], check=True
            )
        known = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text(f"[{self.address}]:{self.port} {known}\n")
        self.cgroup.mkdir()
        enter = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'
        boot = ["sh", str(BOOT_SCRIPT), str(self.folder), self.address, str(self.port), self.name]
        with self.log.open("wb") as log:
            self._unshare = subprocess.Popen(
                ["sh", "-c", enter, "sh", str(self.cgroup), *UNSHARE, *boot],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        """What building the host's file system and systemd itself printed."""
        return self.folder / "boot.log"

    def _await_ssh(self) -> None:
        assert self._unshare is not None
        deadline = time.monotonic() + BOOT_SECONDS
        while not _greets(self.address, self.port):
            if self._unshare.poll() is not None:
                raise SysHostError(f"{self.name} ended while it booted: {self._words()}")
            if time.monotonic() > deadline:
                raise SysHostError(f"{self.name} did not boot within {BOOT_SECONDS:.0f} s: {self._words()}")
            time.sleep(0.1)
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self.pid_of_init = int(children[0])

    def _words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    # -- use --------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """The machine's path of a file of the host's root file system (not below a unit's own mounts)."""
        return Path(f"/proc/{self.pid_of_init}/root") / inside.lstrip("/")

    def enter(self, *command: str) -> list[str]:
        """The command that runs `command` as root in the host's namespaces and in a cgroup of the host."""
        place = 'mkdir -p "$1/entered" && echo 0 >"$1/entered/cgroup.procs" && shift && exec "$@"'
        inside = ["nsenter", "--target", str(self.pid_of_init), "--mount", "--pid", "--uts", "--ipc", "--cgroup",
                  "--root", "--wd"]  # fmt: skip
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        return ["sh", "-c", place, "sh", str(self.cgroup), *inside, *clean, *command]

    def run(self, command: str, timeout: float = 60.0, stdin: str = "") -> Ran:
        """Run a shell command as root on the host. Raises subprocess.TimeoutExpired when it takes longer."""
        return _timed(self.enter("/bin/sh", "-c", command), timeout, stdin)

    def must(self, command: str, timeout: float = 60.0) -> str:
        """The standard output of a command that has to succeed."""
        ran = self.run(command, timeout)
        if ran.rc:
            raise SysHostError(f"{self.name}: {command}: status {ran.rc}: {ran.stderr.strip() or ran.stdout.strip()}")
        return ran.stdout

    def over_ssh(self, command: str, timeout: float = 60.0) -> Ran:
        """Run a shell command on the host by the real ssh, as `raw` does."""
        return _timed(["ssh", "-F", "none", *self._ssh_options(), "-p", str(self.port), "-i", str(self.folder / "key"),
                       f"root@{self.address}", command], timeout)  # fmt: skip

    def _ssh_options(self) -> list[str]:
        return [
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", "ConnectTimeout=10", "-o", "KexAlgorithms=^curve25519-sha256",
        ]  # fmt: skip

    @property
    def ssh(self) -> dict[str, Any]:
        """The host's variables for an Ansible inventory."""
        return {
            "ansible_host": self.address, "ansible_port": self.port, "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": " ".join(self._ssh_options()),
            "ansible_python_interpreter": "/usr/bin/python3",
        }  # fmt: skip

    # -- end --------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every process of the host; its mounts and memory go with the last one. May be called twice."""
        if self._unshare is not None:
            self._end_processes(self._unshare)
        _remove_cgroups(self.cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_processes(self, unshare: subprocess.Popen[bytes]) -> None:
        # The end of a pid namespace's first process ends all of it, whatever they do with signals.
        if self.pid_of_init and unshare.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid_of_init, signal.SIGKILL)
        _write(self.cgroup / "cgroup.kill", "1")
        unshare.kill()
        try:
            unshare.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SysHostError(f"{self.name}: process {unshare.pid} does not end") from error


def _timed(command: list[str], timeout: float, stdin: str = "") -> Ran:
    started = time.monotonic()
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def _greets(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(8).startswith(b"SSH-")
    except OSError:
        return False


def _free_address() -> tuple[str, int]:
    """A loopback address of the host's own on which the port is free."""
    for last in range(1, 255):
        with socket.socket() as attempt, contextlib.suppress(OSError):
            attempt.bind((f"{NETWORK}.{last}", PORT))
            return f"{NETWORK}.{last}", PORT
    raise SysHostError(f"no free address in {NETWORK}.0/24 for port {PORT}")


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)


def _remove_cgroups(top: Path) -> None:
    """Remove a cgroup and all below it, once the kernel has buried its processes."""
    deadline = time.monotonic() + STOP_SECONDS
    while top.exists():
        for folder, _folders, _files in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if time.monotonic() > deadline:
            raise SysHostError(f"{top} does not empty: {_members(top)}")
        time.sleep(0.05)


def _members(top: Path) -> list[str]:
    return [pid for procs in top.rglob("cgroup.procs") for pid in procs.read_text().split()]
