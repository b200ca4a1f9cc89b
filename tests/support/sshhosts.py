# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts over real OpenSSH on one machine, good ones and ones that hang in every way.

Each is an sshd on a loopback address of its own, in its own process and mount namespace with its
own /etc, /run and /var/lib, so that a script that acts as root acts on that host alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

PORT = 2265
SSHD = "/usr/sbin/sshd"
ORIGINAL = '/bin/sh -c "$SSH_ORIGINAL_COMMAND"'
# What a host of each kind does; None: there is no sshd at all.
KINDS: dict[str, list[str] | None] = {
    "good": [],
    "silent": None,
    "refused": None,
    "in_login": [
        "AuthorizedKeysFile none",
        "AuthorizedKeysCommand /usr/bin/sleep 1000",
        "AuthorizedKeysCommandUser root",
    ],
    "asleep": ["ForceCommand sleep 1000"],
    "lost": ['ForceCommand kill -STOP "$PPID"; sleep 1000'],
    "nologin": ["ForceCommand /usr/sbin/nologin"],
    "noisy": [f"ForceCommand printf 'Welcome to noise'; {ORIGINAL}; end=$?; printf 'Bye\\n'; exit $end"],
    "flood": ["ForceCommand yes flooding"],
    "slow": [f"ForceCommand sleep 2; {ORIGINAL}"],
}
NAMESPACE = """set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir -p /run/sshd
# A login shell with a heavy profile would cost more than the login.
sed -i 's|^\\(root:.*:\\)[^:]*$|\\1/bin/sh|' /etc/passwd
cp "$1" /run/keys-of-users
chmod 644 /run/keys-of-users
shift
exec "$@"
"""


def why_not() -> str:
    """Why such hosts cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "not root: sshd and namespaces need it"
    if not Path(SSHD).exists():
        return f"{SSHD} is not installed"
    probe = ["unshare", "-m", "-p", "-f", "--mount-proc", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "no process and mount namespaces here"
    return ""


class Hosts:
    """A fleet of such hosts; `names` maps each inventory name to its kind."""

    def __init__(self, folder: Path, first: int = 1) -> None:
        self.folder = folder
        self.names: dict[str, str] = {}
        self.variables: dict[str, dict[str, Any]] = {}
        self._number = first
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sockets: list[socket.socket] = []
        for key in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / f"{key}_key")]
            subprocess.run(command, check=True)

    def add(self, kind: str, name: str = "", *, config: tuple[str, ...] = (), **variables: Any) -> str:
        """Start one host of a kind; returns its name."""
        assert kind in KINDS, f"no such kind of host: {kind}"
        number = self._number
        self._number += 1
        name = name or f"{kind}-{number}"
        address = f"127.65.{number // 250}.{number % 250 + 1}"
        self.names[name] = kind
        self.variables[name] = {
            "ansible_host": address, "ansible_port": PORT, "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "user_key"), **variables,
        }  # fmt: skip
        settings = KINDS[kind]
        if kind == "silent":
            listener = socket.create_server((address, PORT), backlog=64)
            self._sockets.append(listener)
        elif settings is not None:
            self._processes[name] = self._start(number, address, [*config, *settings])
        return name

    def _start(self, number: int, address: str, settings: list[str]) -> subprocess.Popen[bytes]:
        lines = [
            # What is said first holds: a kind may have other keys.
            *settings,
            f"ListenAddress {address}:{PORT}", f"HostKey {self.folder}/host_key", "PidFile none", "UsePAM no",
            "AuthorizedKeysFile /run/keys-of-users", "StrictModes no", "PermitRootLogin yes",
            "PrintMotd no", "PrintLastLog no", "LogLevel ERROR", "MaxStartups 1000", "Subsystem sftp internal-sftp",
        ]  # fmt: skip
        config = self.folder / f"sshd-{number}.conf"
        config.write_text("\n".join(lines) + "\n")
        isolate = ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", NAMESPACE, "sh"]
        with (self.folder / f"sshd-{number}.log").open("wb") as log:
            isolate.append(str(self.folder / "user_key.pub"))
            return subprocess.Popen([*isolate, SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """End a host at once, with everything that runs on it, as when its power is cut."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(30)

    def wait(self, seconds: float = 60) -> None:
        """Wait until every sshd answers."""
        end = time.monotonic() + seconds
        for name in self._processes:
            while not self._answers(self.variables[name]["ansible_host"]):
                assert time.monotonic() < end, f"{name}: no sshd within {seconds} s"
                time.sleep(0.02)

    @staticmethod
    def _answers(address: str) -> bool:
        try:
            with socket.create_connection((address, PORT), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of the hosts of these kinds, sorted."""
        return sorted(name for name, kind in self.names.items() if kind in kinds)

    def init(self, name: str) -> int:
        """The first process of a host, as this machine counts."""
        pid = self._processes[name].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def inside(self, name: str, *command: str) -> str:
        """What a command on a host prints; it must succeed."""
        enter = ["nsenter", "--target", str(self.init(name)), "--pid", "--mount"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=True, timeout=60).stdout

    def inventory(self, **more: Any) -> Path:
        """The path of an inventory of all of them; `more` are variables of all."""
        known = self.folder / "known_hosts"
        key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        known.write_text(f"* {key}\n")
        common = {"ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -F none", **more}
        document = {"all": {"hosts": self.variables, "vars": common}}
        path = self.folder / "hosts.json"
        path.write_text(json.dumps(document))
        return path

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for listener in self._sockets:
            listener.close()


@contextlib.contextmanager
def hosts(folder: Path, *kinds: str, first: int = 1) -> Iterator[Hosts]:
    """One host of each kind that is named, as often as it is named."""
    fleet = Hosts(folder, first)
    try:
        for kind in kinds:
            fleet.add(kind)
        fleet.wait()
        yield fleet
    finally:
        fleet.stop()
