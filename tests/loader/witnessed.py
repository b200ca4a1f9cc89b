# SPDX-License-Identifier: GPL-3.0-or-later
"""A real loader in a cgroup of its own, observed by the real module code, judged by the real gate."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments as gate_arguments
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import judge as gate
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Inputs
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.observation import Places, observe

from tests.loader.service import Service, contract_of

Json = dict[str, Any]
# Where systemd did not start the loader, systemd says nothing of it.
NO_SYSTEMD = {"loader_active": "pass", "loader_restarts": "pass"}
# The machine that runs tests is busy: what the host itself does is not judged here.
NOISY = {
    "host_cpu_delta_ppm": 1_000_000,
    "host_memory_delta_bytes": 10**12,
    "loader_cpu_millicores": 1_000,
    "bpf_cpu_millicores": 2_000,
    "total_cpu_millicores": 3_000,
    "drop_ratio_ppm": 1_000_000,
    "event_rate_per_second": 10**9,
}


def own_cgroup(name: str) -> Path | None:
    """A new cgroup 2 of that name; None where this machine lets none be made."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, place, kind = line.split()[:3]
        if kind == "cgroup2":
            folder = Path(place) / name
            folder.mkdir()
            return folder
    return None


class Witnessed:
    """One host: its root folder with the kernel's own /proc and /sys in it, and the loader's cgroup."""

    def __init__(self, service: Service, root: Path, cgroup: Path) -> None:
        self.service, self.cgroup = service, cgroup
        current = root / "var/lib/ebpf-fleet/current"
        current.mkdir(parents=True)
        (current / "bundle").symlink_to(service.bundle.root)
        (current / "ebpf-loader").symlink_to(service.binary)
        for name in ("proc", "sys"):
            (root / name).symlink_to(f"/{name}")
        (cgroup / "cgroup.procs").write_text(str(service.pid))
        self.places = Places(
            root=root, state_dir=service.state, collector_dir=root / "none", unit="none", loader_cgroup=cgroup
        )

    @property
    def status_path(self) -> Path:
        return self.service.state / "status.json"

    def observe(self, seconds: float = 5) -> Json:
        return observe(self.places, "here", seconds, time.sleep)

    def judge(self, after: Any, digest: str | None = None) -> Json:
        """The verdict over this one host; the observation passes through JSON as a module's answer does."""
        status = self.service.now()
        names = [name for name, one in status["features"].items() if one["wanted"]]
        return gate.judge(
            Inputs(
                changed={"here": {"before": None, "after": json.loads(json.dumps(after))}},
                controls={},
                limits=gate_arguments.check_limits(NOISY),
                contracts=gate_arguments.check_contracts([contract_of(name) for name in names]),
                expected=gate_arguments.check_expected({"*": dict.fromkeys(names, "reduced")}),
                digest=digest or self.service.bundle.digest,
                on_inconclusive=NO_SYSTEMD | dict.fromkeys(("host_cpu_delta", "host_memory_delta"), "pass"),
                expressions=[],
                search=None,
            )
        )


class Forger:
    """Writes a status again and again as a hostile loader's user would, with the times of now."""

    def __init__(self, host: Witnessed, change: Callable[[Json, float], None]) -> None:
        self.host, self.change = host, change
        self.first = json.loads(host.status_path.read_bytes())
        self.begin = time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Forger:
        self.write()
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.ended.wait(0.05):
            self.write()

    def write(self) -> None:
        status = json.loads(json.dumps(self.first))
        status["time_unix_ns"], status["boottime_ns"] = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.change(status, time.monotonic() - self.begin)
        part = self.host.service.state / ".forged"
        part.write_text(json.dumps(status))
        os.chmod(part, 0o644)
        part.rename(self.host.status_path)


def failures(verdict: Json) -> dict[str, str]:
    """{name of a failed check: its sentences}."""
    return _sentences(verdict, "fail")


def held(verdict: Json) -> dict[str, str]:
    """{name of a check that could not be judged: its sentences}."""
    return _sentences(verdict, "inconclusive")


def _sentences(verdict: Json, kind: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for one in verdict["checks"]:
        if one["verdict"] == kind:
            found.setdefault(one["check"], []).append(one["sentence"])
    return {name: "; ".join(said) for name, said in found.items()}
