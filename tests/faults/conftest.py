# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet, a key, and releases for the fault tests. They run for real or fail; none is skipped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.play import Played, lab, lab_hosts, new_key, on_host, play

# Short, but long enough for a rate: these tests are about what happens, not about noise.
QUICK = {
    "ebpf_fleet_window_before": 1,
    "ebpf_fleet_bake": 1,
    "ebpf_fleet_window_after": 4,
    # Notice a host that is gone within seconds; an option that comes first wins over the inventory's.
    "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s -o ConnectTimeout=5 "
                        "-o ServerAliveInterval=3 -o ServerAliveCountMax=2",
    # Two accounts of the loader must fall into the window, or nothing was measured.
    "ebpf_fleet_loader_interval": 1,
    # Nor may a budget act on what an emulated CPU and a neighbour make of a loader that looks each second.
    "ebpf_fleet_policy": {"host": {"cpu_millicores": 1000}},
    # A one-second window on an emulated CPU says nothing of a host's load.
    "ebpf_fleet_gate_limits": {
        "loader_cpu_millicores": 500, "bpf_cpu_millicores": 500, "total_cpu_millicores": 1000,
        "host_cpu_delta_ppm": 1_000_000,
        # Nor does that a budget acted within it: an emulated CPU makes a loader that looks each second expensive.
        "degradation_steps": 9,
    },
}  # fmt: skip

# Hosts of the fleet to do it with; all of them when none is named.
CHOSEN = sorted(os.environ.get("EBPF_FLEET_LAB_HOSTS", "").split())


class Release(NamedTuple):
    """A built release: where it is and what the hosts will call it."""

    bundle: Path
    version: str
    digest: str


class Fleet:
    """The five hosts, the trust they share, and the commands that a person would give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.trust = new_key(folder / "keys")
        self.hosts = lab_hosts()

    def release(self, version: str, sequence: int, *, key: Path | None = None) -> Release:
        """Build and sign a release of one feature on the metrics path and one with events: enough for faults."""
        bundle = self.folder / f"{version}.tar"
        built = play(
            "release",
            {
                "ebpf_fleet_release_version": version, "ebpf_fleet_release_sequence": sequence,
                "ebpf_fleet_release_signing_key": str(key or self.key), "ebpf_fleet_release_output": str(bundle),
                "ebpf_fleet_release_features": ["exec_events", "runqlat"],
            },
        )  # fmt: skip
        assert built.rc == 0, built.text
        digest = next(line.split()[-1] for line in built.text.splitlines() if "digest:" in line)
        return Release(bundle, version, digest.strip("'\""))

    def roll_out(self, release: Release, *arguments: str, inventory: Path | None = None, **more: Any) -> Played:
        variables = {
            "ebpf_fleet_bundle": str(release.bundle), "ebpf_fleet_allowed_signers": self.trust, **QUICK, **more,
        }  # fmt: skip
        where = {} if inventory is None else {"inventory": inventory}
        return play("rollout", variables, arguments=arguments, **where)

    def kill(self, scope: str, *arguments: str, **more: Any) -> Played:
        ssh = {"ansible_ssh_args": QUICK["ansible_ssh_args"]}
        return play("rollback", {"scope": scope, **ssh, **more}, arguments=arguments)

    def reset(self, *hosts: str) -> None:
        """Take hosts back to their first boot: nothing of ours has ever been there."""
        assert lab("reset", *(hosts or self.hosts)).returncode == 0


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    others = set(lab_hosts()) - set(CHOSEN) if CHOSEN else set()
    assert not others or lab("down", *others).returncode == 0
    assert lab("up", *CHOSEN).returncode == 0, "the test fleet did not come up; see above"
    return Fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def first(fleet: Fleet) -> Release:
    return fleet.release("1.0.0", 1)


@pytest.fixture(scope="session")
def second(fleet: Fleet) -> Release:
    return fleet.release("2.0.0", 2)


def shell(host: str, command: str) -> str:
    """What a command on a host prints; it must succeed."""
    done = on_host(host, command)
    assert done.returncode == 0, f"{host}: {command}: {done.returncode}: {done.stdout}"
    return done.stdout


def programs(host: str) -> list[str]:
    """Names of our programs in a host's kernel, by bpftool."""
    shown = json.loads(shell(host, "bpftool prog show -j"))
    return sorted(one["name"] for one in shown if one.get("name", "").startswith("ef_"))


def running(host: str) -> str | None:
    """Version that a host's loader says it runs; None when there is no loader's word."""
    done = on_host(host, "cat /run/ebpf-fleet-loader/status.json")
    return json.loads(done.stdout)["bundle"]["version"] if done.returncode == 0 else None


def installed(host: str) -> str:
    """What lies on a host below the releases' folder; empty when nothing was ever installed."""
    return on_host(host, "ls /var/lib/ebpf-fleet/releases 2>/dev/null; exit 0").stdout


def everywhere(ask: Callable[[str], Any], hosts: list[str]) -> dict[str, Any]:
    """The answer of each host, all asked at once."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return dict(zip(hosts, pool.map(ask, hosts)))


def until(what: Callable[[], Any], wanted: Any, seconds: float = 30) -> Any:
    """Ask again until the answer is the wanted one or time is up; return the last answer."""
    deadline = time.monotonic() + seconds
    while (answer := what()) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer


def recap(played: Played) -> dict[str, dict[str, int]]:
    """The play recap: for each host how many tasks ended how."""
    lines = played.text.split("PLAY RECAP", 1)[1].splitlines()[1:]
    rows = (line.split(":", 1) for line in lines if " : ok=" in line)
    return {name.strip(): {k: int(v) for k, v in (one.split("=") for one in rest.split())} for name, rest in rows}
