# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab as this suite's: for what needs a kernel or a clock of its own."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from tests.lab import ssh
from tests.support.play import lab
from tests.support.syshost import Ran

# Emulated, beside others: a login takes seconds.
PATIENT: dict[str, Any] = {
    "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s -o ConnectTimeout=20 "
                        "-o ServerAliveInterval=4 -o ServerAliveCountMax=3",
    "ebpf_fleet_connect_timeout": 40,
    "ebpf_fleet_activation_timeout": 60,
}  # fmt: skip


class Guest:
    """A guest that runs, with the face of a SysHost as far as this suite needs it."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port

    @property
    def ssh(self) -> dict[str, Any]:
        """The host's variables for an Ansible inventory, without cell and region, which are the suite's."""
        document = json.loads(lab("inventory", "--json", self.name).stdout)["all"]
        found = {**document["vars"], **document["hosts"][self.name]}
        return {name: value for name, value in found.items() if name.startswith("ansible_")}

    def run(self, command: str, timeout: float = 60.0, stdin: str = "") -> Ran:
        """Run a shell command as root in the guest. Raises subprocess.TimeoutExpired when it takes longer."""
        started = time.monotonic()
        done = subprocess.run(
            ssh.command(self.port, [command]), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def must(self, command: str, timeout: float = 60.0) -> str:
        """The standard output of a command that has to succeed."""
        ran = self.run(command, timeout)
        assert ran.rc == 0, f"{self.name}: {command}: {ran.stderr}{ran.stdout}"
        return ran.stdout


def up(*names: str) -> list[Guest]:
    """The guests with a disk that survives a reboot, as nothing was ever deployed to them."""
    assert lab("reset", *names).returncode == 0
    assert lab("up", "--persistent", *names).returncode == 0, "the guests did not come up; see above"
    rows = {row["name"]: row for row in json.loads(lab("status", "--json", *names).stdout)["hosts"]}
    return [Guest(name, rows[name]["port"]) for name in names]


def down(*names: str) -> None:
    """End them, and forget their disks."""
    lab("reset", *names)
    lab("down", *names)
