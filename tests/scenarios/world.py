# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts over namespace hosts with systemd: begun, killed and waited for, with their ledger, and the invariant."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger

from tests.scenarios import releases
from tests.scenarios.invariant import RUNS, host_faults, ledger_faults
from tests.support.play import ROOT, VENV, Played, environment
from tests.support.sysfleet import Release, SysFleet
from tests.support.syshost import Ran, SysHost

STATE_SCRIPT = (Path(__file__).with_name("host_state.py")).read_text()
# Short, but long enough for two accounts of the loader. What other tests do on this machine is not judged, nor what a
# loader that takes an account every second costs on a processor that others have.
QUICK: dict[str, Any] = {
    "ebpf_fleet_cell": "c1",
    "ebpf_fleet_region": "r1",
    "ebpf_fleet_window_before": 1,
    "ebpf_fleet_bake": 0,
    "ebpf_fleet_window_after": 4,
    "ebpf_fleet_control_hosts": 0,
    "ebpf_fleet_bake_extensions": 0,
    "ebpf_fleet_fleet_percent": 100,
    "ebpf_fleet_cell_percent": 100,
    "ebpf_fleet_stages": [{"stage": "fleet"}],
    "ebpf_fleet_max_batch": 1,
    "ebpf_fleet_policy": {"host": {"cpu_millicores": 1000}},
    # Notice a host that is gone within seconds.
    "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=15s -o ConnectTimeout=5 "
                        "-o ServerAliveInterval=2 -o ServerAliveCountMax=2",
    "ebpf_fleet_connect_timeout": 4,
}  # fmt: skip
ROOMY: dict[str, Any] = {
    "loader_cpu_millicores": 900, "bpf_cpu_millicores": 900, "total_cpu_millicores": 1800,
    "host_cpu_delta_ppm": 1_000_000, "host_memory_delta_bytes": 9_000_000_000,
}  # fmt: skip


class Running:
    """A rollout that has begun: its process, and what it prints, in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log, self.began = process, log, time.monotonic()

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = 900) -> Played:
        """How it ended; one that takes longer is killed, and fails."""
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Played(rc, self.text, time.monotonic() - self.began)

    def wait_for(self, seconds: float) -> Played:
        """How it ended, if it does within that time; raises TimeoutError, and lets it go on, if not."""
        try:
            rc = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        return Played(rc, self.text, time.monotonic() - self.began)

    def kill(self) -> bool:
        """kill -9 of it and of every worker, as when the controller dies; False where it had ended before."""
        alive = self.process.poll() is None
        # Workers have sessions of their own: a group does not hold them.
        for pid in [self.process.pid, *below(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        return alive


def below(pid: int) -> list[int]:
    """Every process that this one began, and those that they began."""
    with contextlib.suppress(OSError):
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return children + [one for child in children for one in below(child)]
    return []


class World:
    """Hosts, releases, and one ledger. `fleet.hosts` may be exchanged between scenarios."""

    def __init__(self, folder: Path, hosts: Sequence[Any], patience: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.fleet = SysFleet(folder, hosts)
        # Of hosts that are slower than namespaces.
        self.variables = {**QUICK, **(patience or {})}
        self.fleet.patience = 300.0 if patience is None else 900.0
        self.patience = 60.0 if patience is None else 120.0
        self.deployed = {
            "ebpf_fleet_policy": QUICK["ebpf_fleet_policy"],
            "ansible_ssh_args": self.variables["ansible_ssh_args"],
        }
        self.ledger = folder / "ledger"
        self.reports = folder
        self.number = 0
        self.releases: list[Release] = []
        self.base: Release | None = None

    @property
    def hosts(self) -> list[Any]:
        return self.fleet.hosts

    def release(self, *features: str, **more: Any) -> Release:
        """Build the next release of some features, exec_events when none is named."""
        self.number += 1
        return self._keep(self.fleet.release(f"{self.number}.0.0", self.number, features or ("exec_events",), **more))

    def another(self, loader: Path | None = None) -> Release:
        """The first release again, under the next version, and with another loader if one is given."""
        self.number += 1
        base, version = self.releases[0], f"{self.number}.0.0"
        return self._keep(releases.varied(base, self.folder, self.fleet.key, version, self.number, loader))

    def _keep(self, release: Release) -> Release:
        self.releases.append(release)
        return release

    def bad_feature(self, name: str, **budget: int) -> Release:
        """The next release: exec_events and a feature of this suite, with that budget in its contract."""
        folder = releases.feature(name, self.folder / f"feature-{self.number}", **budget)
        return self.release(
            "exec_events", name, ebpf_fleet_release_features_dirs=[str(ROOT / "bpf/features"), str(folder)]
        )

    @property
    def first(self) -> Release:
        """The release that every host runs when a scenario begins."""
        return self.base or self.releases[0]

    # -- rollouts -----------------------------------------------------------------------------------

    def begin(self, release: Release, *arguments: str, **variables: Any) -> Running:
        """Start a rollout of the release, as a person does."""
        limits = {**ROOMY, **variables.pop("limits", {})}
        given = {**self.variables, "ebpf_fleet_gate_limits": limits, "ebpf_fleet_bundle": str(release.bundle),
                 "ebpf_fleet_allowed_signers": self.fleet.trust, "ebpf_fleet_ledger": str(self.ledger),
                 **variables}  # fmt: skip
        per_host = {name: given.pop(name) for name in ("ebpf_fleet_cell", "ebpf_fleet_region")}
        self.reports = self.folder / f"reports-{time.monotonic_ns()}"
        self.reports.mkdir()
        given["ebpf_fleet_report_dir"] = str(self.reports)
        log = self.folder / f"rollout-{time.monotonic_ns()}.log"
        command = [str(VENV / "ansible-playbook"), str(ROOT / "playbooks/rollout.yml"),
                   "-i", str(self.fleet.inventory(**per_host)), "-e", json.dumps(given), *arguments]  # fmt: skip
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        return Running(process, log)

    def roll_out(self, release: Release, *arguments: str, **variables: Any) -> Played:
        return self.begin(release, *arguments, **variables).wait()

    def back(self) -> None:
        """Let every host run one release, the next scenario's first, and forget what is quarantined."""
        (self.ledger / "quarantine.json").unlink(missing_ok=True)
        everywhere = [one for one in self.releases if all(runs(host, one) for host in self.hosts)]
        if everywhere:
            self.base = everywhere[0]
        else:
            self.base = self.releases[0]
            self.fleet.deploy(self.base, ebpf_fleet_allow_downgrade=True, **self.deployed)

    # -- what came of it ----------------------------------------------------------------------------

    def entries(self) -> list[ledger.Entry]:
        """The whole ledger, verified; empty where no rollout has begun."""
        path, head_path = self.ledger / "ledger.jsonl", self.ledger / "head.json"
        # First the head: the rollout may write meanwhile.
        head = ledger.parse_head(head_path.read_bytes()) if head_path.exists() else None
        if not path.exists():
            return []
        # A controller that was killed in the middle of a write leaves an end that the next one repairs.
        found = ledger.verify(path.read_bytes(), head)
        assert found.broken_line is None, found.fault
        return list(found.entries)

    def rollout_id(self) -> str:
        """The id of the rollout that began last."""
        return str([one.rollout for one in self.entries() if one.kind == ledger.STARTED][-1])

    def begun(self, rollout: str | None = None) -> list[str]:
        """Hosts of all batches that the rollout began, in their order."""
        wanted = rollout or self.rollout_id()
        batches = [one.data["hosts"] for one in self.entries()
                   if one.kind == ledger.BATCH_BEGUN and one.rollout == wanted]  # fmt: skip
        return [host for batch in batches for host in batch]

    def verdicts(self) -> list[str]:
        """Verdicts of the rollout that began last."""
        last = self.rollout_id()
        return [one.data["verdict"] for one in self.entries() if one.kind == ledger.VERDICT and one.rollout == last]

    def failed_checks(self) -> set[str]:
        """Names of the checks that stood in the way of the batch that the last rollout recorded last."""
        (*_, path) = sorted(self.reports.glob("batch-*.json"), key=lambda one: one.stat().st_mtime_ns)
        return {
            one["check"] for one in json.loads(path.read_text())["checks"] if one["verdict"] in ("fail", "inconclusive")
        }

    def faults(self, allowed: dict[str, list[str]], ends: dict[str, tuple[str, ...]], probation: bool) -> list[str]:
        everything = [one.digest for one in self.releases]
        return [
            fault
            for host in self.hosts
            for fault in host_faults(host.name, seen(host), allowed.get(host.name, everything),
                                     ends.get(host.name, (RUNS,)), probation)
        ] + ledger_faults(self.entries())  # fmt: skip

    def check(
        self,
        *,
        run: dict[Any, Release] | Release | None = None,
        ends: dict[Any, tuple[str, ...]] | None = None,
        probation: bool = False,
    ) -> None:
        """The invariant, once hosts have settled; with `run` also which release each host has to have."""
        wanted = dict.fromkeys(self.hosts, run) if isinstance(run, Release) else (run or {})
        allowed = {host.name: [one.digest] for host, one in wanted.items() if one is not None}
        by_name = {host.name: one for host, one in (ends or {}).items()}
        found = settle(lambda: self.faults(allowed, by_name, probation), self.patience)
        assert found == [], "\n".join(found)


def settle(faults: Callable[[], list[str]], seconds: float) -> list[str]:
    """The faults that stay: systemd may be about to start a loader again."""
    deadline = time.monotonic() + seconds
    while (found := faults()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def seen(host: Any) -> dict[str, Any]:
    """What a host runs and has, by host_state.py on it."""
    ran = host.run("python3 -", stdin=STATE_SCRIPT)
    assert ran.rc == 0, f"{host.name}: {ran.stderr}"
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def has_release(host: Any, release: Release) -> bool:
    """Does the release lie on the host's disk?"""
    place = f"/var/lib/ebpf-fleet/releases/{release.version}-{release.digest[:12]}"
    if isinstance(host, SysHost):
        return host.path(place).is_dir()
    return asked(host, f"test -d {place}") is not None


def runs(host: Any, release: Release) -> bool:
    """Does the host's loader say that it runs the release?"""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return bool(
            json.loads(content(host, "/run/ebpf-fleet-loader/status.json"))["bundle"]["digest"] == release.digest
        )
    return False


def content(host: Any, path: str) -> str:
    """A file of the host; empty where it is not there. Asked often, so by the cheapest way there is."""
    if isinstance(host, SysHost):
        with contextlib.suppress(OSError):
            return host.path(path).read_text()
        return ""
    return asked(host, f"cat {path}") or ""


def asked(host: Any, command: str) -> str | None:
    """What a command on the host prints; None where it fails, or the host does not answer."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        ran: Ran = host.run(command)
        return ran.stdout if ran.rc == 0 else None
    return None


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until it holds, or fail with what that means."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@contextlib.contextmanager
def at_once(
    condition: Callable[[], bool], action: Callable[[], object], seconds: float = 900, every: float = 0.05
) -> Iterator[list[bool]]:
    """Act the moment that a condition holds, beside what runs in the context; [True] is yielded once that was done."""
    done: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + seconds
        while not over.is_set() and time.monotonic() < deadline:
            if condition():
                action()
                done.append(True)
                return
            over.wait(every)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield done
    finally:
        over.set()
        watcher.join(30)


def unplug(host: SysHost) -> None:
    """No one reaches the host any more, as with a cable that is out: what is sent to it is not answered."""
    host.must("pkill -STOP -x sshd")


def plug(host: SysHost) -> None:
    """It is reached again."""
    host.must("pkill -CONT -x sshd")
    until(lambda: host.over_ssh("true").rc == 0, 20, f"{host.name} is not reached again")
