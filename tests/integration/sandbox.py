# SPDX-License-Identifier: GPL-3.0-or-later
"""The real loader in a process namespace of its own, over the folders of a host below a root.

Scripts that look at /proc then see this loader and no other of the machine.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.integration.killplace import cgroup2, remove_group
from tests.loader.bundles import Trust
from tests.loader.service import Service, make_service


def can_sandbox() -> bool:
    """Is a process namespace to be had?"""
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


class Sandbox:
    """One host that is only its folders and its loader."""

    def __init__(self, binary: Path, root: Path, trust: Trust, features: Mapping[str, Any]) -> None:
        self.root = root
        self.service: Service = make_service(binary, root / "service", trust, features)
        self.service.etc = root / "etc/ebpf-fleet"
        self.service.run = root / "run/ebpf-fleet"
        self.service.state = root / "run/ebpf-fleet-loader"
        for folder in (self.service.etc, self.service.run, self.service.state):
            folder.mkdir(parents=True)
        current = root / "var/lib/ebpf-fleet/current"
        current.mkdir(parents=True)
        (current / "bundle").symlink_to(self.service.bundle.root)
        self.group = self.make_group()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = root / "loader.log"

    def make_group(self) -> Path | None:
        """A real cgroup where the scripts find the one of the loader's unit; None without cgroup v2."""
        base = cgroup2()
        if base is None:
            return None
        group = base / f"ef-test-{os.getpid()}-{secrets.token_hex(4)}"
        group.mkdir()
        place = self.root / "sys/fs/cgroup/unified/system.slice/ebpf-fleet-loader.service"
        place.parent.mkdir(parents=True)
        place.symlink_to(group)
        return group

    def start(self, *features: str) -> None:
        """Start the loader and wait until these features are attached."""
        self.service.want(*features)
        enter = "true" if self.group is None else f"echo 0 >{self.group}/cgroup.procs"
        inner = f'({enter}; exec "$@") & wait; sleep 1000'
        isolate = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", inner, "sh"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*isolate, *self.service.command()], stdout=log, stderr=log)
        try:
            self.wait(lambda: set(self.attached()) == set(features), f"{features} attached")
        except AssertionError:
            self.stop()
            raise

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds} s\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def status(self) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads((self.service.state / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return document

    def attached(self) -> list[str]:
        features = self.status().get("features") or {}
        return [name for name, one in features.items() if one["state"] == "attached"]

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where this host's loader is to be seen."""
        assert self.process is not None
        pid = self.process.pid
        init = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        return subprocess.run(
            ["nsenter", "--target", init, "--pid", "--mount", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def switch(self, *scopes: str, shell: str = "sh", **more: Any) -> dict[str, Any]:
        """Run the kill script on this host; returns its answer."""
        script = killscript.render(list(scopes), root=str(self.root), **more)
        done = self.inside(shell, "-c", script)
        assert done.stderr == ""
        return kill_answer.parse_answer({"rc": done.returncode, "stdout": done.stdout})

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.group is not None and self.group.exists():
            remove_group(self.group)
