# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs this repository's playbooks as a person would, and keeps what they said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".cache" / "venv" / "bin"
# What takes a kill order back, beside its scope.
RELEASE = ("-e", "state=released", "-e", "confirm=release", "-e", "reason=tested")
LAB_INVENTORY = ROOT / "inventories" / "lab"


class Played(NamedTuple):
    """How a playbook ended: exit code, everything it printed, and how long it took."""

    rc: int
    text: str
    seconds: float


def environment() -> dict[str, str]:
    """The environment of every ansible command here: the checkout's collection, strict templating."""
    return {
        **os.environ,
        "PATH": f"{VENV}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_INJECT_FACT_VARS": "false",
        "_ANSIBLE_TEMPLAR_UNTRUSTED_TEMPLATE_BEHAVIOR": "error",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }


def play(
    playbook: str,
    variables: dict[str, Any] | None = None,
    inventory: Path | None = LAB_INVENTORY,
    arguments: tuple[str, ...] = (),
    log: Path | None = None,
    timeout: float = 1200,
    echo: Callable[[str], None] | None = None,
) -> Played:
    """Run a playbook of the collection; its output goes to ``log`` line by line and is returned.

    With ``echo`` it is shown by the callback of rollouts, and each line is given to that as it comes.
    """
    command = [str(VENV / "ansible-playbook"), str(ROOT / "playbooks" / f"{playbook}.yml")]
    if inventory is not None:
        command += ["-i", str(inventory)]
    command += ["-e", json.dumps(variables or {}), *arguments]
    started = time.monotonic()
    shown = {} if echo is None else {"ANSIBLE_STDOUT_CALLBACK": "ebpf.fleet.stages"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment() | shown, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = []
    deadline = started + timeout
    with log.open("w") if log else Path(os.devnull).open("w") as file:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            file.write(f"{time.monotonic() - started:6.1f} {line}")
            file.flush()
            if echo is not None:
                echo(line.rstrip("\n"))
            if time.monotonic() > deadline:
                process.kill()
    return Played(process.wait(), "".join(lines), time.monotonic() - started)


def lab(*arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    """Run a command of the test fleet; its progress goes to our standard error."""
    return subprocess.run(
        [sys.executable, "-m", "tests.lab", *arguments],
        cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=timeout, check=False,
    )  # fmt: skip


def lab_hosts() -> list[str]:
    """Names of the fleet's hosts that run now, in order."""
    rows = json.loads(lab("status", "--json").stdout)["hosts"]
    return sorted(row["name"] for row in rows if row["state"] == "running")


def on_host(host: str, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a host of the fleet over SSH."""
    return lab("ssh", host, "--", command, timeout=timeout)


def new_key(folder: Path, name: str = "release", principal: str = "release@example.org") -> tuple[Path, str]:
    """Make an ed25519 key; return its path and the allowed_signers line that trusts it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = folder / name
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", principal, "-f", str(key)], check=True)
    kind, blob = key.with_suffix(".pub").read_text().split()[:2]
    return key, f'{principal} namespaces="ebpf-fleet-release" {kind} {blob}\n'
