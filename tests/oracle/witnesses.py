# SPDX-License-Identifier: GPL-3.0-or-later
"""The witnesses of the oracle: our facts, libbpf's probes, bpftool, and real attempts, on one host.

A host is this machine or a VM of the lab; all that a witness needs is carried there.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from tests.lab import ssh

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections/ebpf/fleet"
SECONDS = 300

FACTS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities
print(json.dumps(capabilities.gather([], all_helpers=True)))
"""


@dataclass
class Host:
    """Where the witnesses speak; `port` of a lab VM, None for this machine."""

    name: str
    folder: str
    port: int | None = None

    def run(self, command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a shell command there."""
        shell = ["sh", "-c", command] if self.port is None else ssh.command(self.port, [command])
        return subprocess.run(shell, input=stdin, capture_output=True, check=False, timeout=SECONDS)

    def answer(self, command: str, stdin: bytes = b"") -> str:
        """What a command that must succeed printed."""
        done = self.run(command, stdin)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stderr.decode(errors='replace')[-2000:]}"
        return done.stdout.decode(errors="replace")


def carry(host: Host, attempt: Path, loader: Path) -> None:
    """Put the collection's code and the two binaries into the host's folder."""
    pack = io.BytesIO()
    with tarfile.open(fileobj=pack, mode="w:gz") as tar:
        for source in sorted((ROOT / "plugins/module_utils").rglob("*.py")):
            tar.add(source, f"{COLLECTION}/{source.relative_to(ROOT)}")
        tar.add(attempt, "attempt")
        tar.add(loader, "ebpf-loader")
    host.answer(f"mkdir -p {host.folder} && tar -xzf - -C {host.folder}", pack.getvalue())


def our_facts(host: Host) -> dict[str, Any]:
    """capability facts with all helpers."""
    python = sys.executable if host.port is None else "python3"
    facts: dict[str, Any] = json.loads(host.answer(f"{python} - {host.folder}", FACTS.encode()))
    return facts


def libbpf_probes(host: Host) -> dict[str, Any]:
    """`ebpf-loader probe`: libbpf's own probes in C."""
    probes: dict[str, Any] = json.loads(host.answer(f"{host.folder}/ebpf-loader probe"))
    return probes


def bpftool_probes(host: Host) -> dict[str, Any] | None:
    """`bpftool feature probe`, or None where there is no bpftool."""
    done = host.run("PATH=$PATH:/usr/sbin bpftool feature probe -j")
    if done.returncode == 127:
        return None
    probes: dict[str, Any] = json.loads(done.stdout)
    return probes


def real_attaches(host: Host) -> dict[str, int]:
    """errno by kind of hook, and by `link:KIND`; 0 where a program was really attached."""
    lines = host.answer(f"{host.folder}/attempt attach").splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines)}


def real_loads(host: Host, questions: Sequence[str]) -> list[tuple[int, str]]:
    """(errno, the verifier's words) of each load."""
    if not questions:
        return []
    lines = host.answer(f"{host.folder}/attempt load", ("\n".join(questions) + "\n").encode()).splitlines()
    assert len(lines) == len(questions), f"{len(lines)} answers to {len(questions)} questions"
    split = (line.partition(" ") for line in lines)
    return [(int(number), words.strip()) for number, _space, words in split]


def build_attempt(folder: Path) -> Path:
    """Compile the real attempts, statically, so that any host can run them."""
    target = folder / "attempt"
    command = ["gcc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-static"]
    libraries = ["-lbpf", "-lelf", "-lz"]
    source = ROOT / "tests/oracle/attempt.c"
    subprocess.run([*command, str(source), "-o", str(target), *libraries], check=True)
    return target


def lab_ports() -> dict[str, int]:
    """Port by name of each VM of the lab that is up."""
    command = [sys.executable, "-m", "tests.lab", "status", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        return {}
    hosts = json.loads(done.stdout)["hosts"]
    return {one["name"]: one["port"] for one in hosts if one["state"] == "running" and one["port"]}
