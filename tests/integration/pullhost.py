# SPDX-License-Identifier: GPL-3.0-or-later
"""A host below a root with the pull channel's program as prepare brings it, a kill key, and a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import program, publish, sealed

from tests.support.httpserver import respond

ENTRY = Path(__file__).resolve().parents[2] / "roles/prepare/files/ebpf-fleet-pull"
DAY = 86400


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


def public(key: Path) -> str:
    return Path(f"{key}.pub").read_text().strip()


def listed(sequence: int, *orders: dict[str, Any], issued: int | None = None, seconds: int = DAY) -> killlist.KillList:
    """A list of these orders that was made now, or at that second, and holds for so long."""
    begin = int(time.time()) if issued is None else issued
    return killlist.KillList(sequence, begin, begin + seconds, killlist.parse_orders(list(orders)))


class Visited(NamedTuple):
    """How a visit ended."""

    rc: int
    journal: str
    status: dict[str, Any]


class PullHost:
    """One host; ``served`` is the folder that its server gives out, ``location`` what its settings name."""

    def __init__(self, root: Path, folder: Path, key: Path) -> None:
        self.root, self.key = root, key
        self.served = folder / "served"
        self.program = folder / "program"
        self.etc, self.run = root / "etc/ebpf-fleet", root / "run/ebpf-fleet"
        self.mark = root / "var/lib/ebpf-fleet/pull/mark.json"
        self.state = root / "run/ebpf-fleet-pull"
        for path, text in program.files(str(self.program)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text)
        (self.program / ENTRY.name).write_bytes(ENTRY.read_bytes())
        for place in (self.served, self.etc / "trust", self.etc / "kill.d", self.run / "kill.d"):
            place.mkdir(parents=True, exist_ok=True)
        self.trust(f'ops@x namespaces="ebpf-fleet-kill" {public(key)}')

    def trust(self, *lines: str, revoked: str = "") -> None:
        (self.etc / "trust/allowed_signers").write_text("\n".join(lines) + "\n")
        (self.etc / "trust/revoked_keys").write_text(revoked)

    def settle(self, location: str, **fields: Any) -> None:
        """Write its settings."""
        given = {"host": "web1", "cell": "eu-1", "policy": "keep", "interval_s": 10, "lease_s": 20, "timeout_s": 20,
                 "wait_s": 0, **fields}  # fmt: skip
        (self.etc / "pull.json").write_text(program.settings({"location": location, **given}))

    def publish(self, found: killlist.KillList, key: Path | None = None) -> bytes:
        """Put a list where the server gives it out; returns its bytes."""
        data = publish.seal(found, key or self.key)
        (self.served / "kill-list").write_bytes(data)
        return data

    def visit(self, before: str = "", python: str = sys.executable) -> Visited:
        """Run the program as the unit does, in a mount namespace in which `before` was run if any."""
        isolate = ["unshare", "--mount", "sh", "-c", f'{before}\nexec "$@"', "sh"] if before else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [*isolate, python, "-I", str(self.program / ENTRY.name), "--root", str(self.root)],
            env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.stdout == "" and "Traceback" not in done.stderr, done.stderr
        status = self.state / "status.json"
        return Visited(done.returncode, done.stderr, json.loads(status.read_bytes()) if status.exists() else {})

    def orders(self) -> dict[str, list[str]]:
        """{folder: names of its orders}."""
        folders = {"run": self.run / "kill.d", "etc": self.etc / "kill.d"}
        return {name: sorted(path.name for path in folder.iterdir()) for name, folder in folders.items()}

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """{path: content and time} of all that a list could change."""
        places: Sequence[Path] = (self.etc, self.run, self.mark.parent)
        files = [path for place in places if place.exists() for path in place.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def expire_lease(self) -> None:
        """Let the time of a lease have passed since the last contact."""
        path = self.state / "status.json"
        status = json.loads(path.read_bytes())
        status["contact_boottime_ns"] -= 20 * 10**9
        path.write_text(json.dumps(status))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Give out a file of the folder."""
        path = self.served / request.path.strip("/")
        respond(request, 200, path.read_bytes()) if path.is_file() else respond(request, 404)


def reseal(data: bytes, key: Path, namespace: str = sealed.NAMESPACE) -> bytes:
    """A list's line signed for another purpose."""
    line = data.partition(b"\n")[0] + b"\n"
    command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(key)]
    return line + subprocess.run(command, input=line, check=True, capture_output=True).stdout
