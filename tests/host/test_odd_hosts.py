# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollout, way back, kill and release over hosts with odd names, login shells and profiles: each is accounted for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.play import RELEASE, Played
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

pytestmark = pytest.mark.slow
# A legal name, root's login shell, where that reads a profile for a command over SSH, and what the profile prints.
HOSTS: dict[str, tuple[str, str, str]] = {
    "fe80::1%eth0": ("tcsh", ".tcshrc", 'printf "Welcome"'),
    "db: primary": ("fish", ".config/fish/config.fish", "echo -n Welcome"),
    "i-0abc:eu-west-1 (old)": ("bash", ".bashrc", "printf 'Welcome to the machine'"),
    "web, blue": ("zsh", ".zshenv", "printf 'Welcome: '"),
    "db:5432": ("csh", ".cshrc", "echo Welcome"),
    "[::1]:22": ("mksh", "", ""),
    "~tilde": ("ksh", "", ""),
    "!bang": ("dash", "", ""),
    "web[1]": ("busybox", "", ""),
}
VARIABLES = {
    "ebpf_fleet_cell": "c1", "ebpf_fleet_region": "r1", "ebpf_fleet_bake": 0, "ebpf_fleet_window_before": 1,
    "ebpf_fleet_window_after": 4, "ebpf_fleet_stages": [{"stage": "fleet", "max_batch": len(HOSTS)}],
    # All in one batch.
    "ebpf_fleet_fleet_percent": 100, "ebpf_fleet_cell_percent": 100, "ebpf_fleet_growth": 9,
    # This machine is shared with other tests: what it does beside the rollout is not judged here.
    "ebpf_fleet_gate_limits": {"host_cpu_delta_ppm": 1_000_000, "host_memory_delta_bytes": 9_000_000_000},
}  # fmt: skip


def dress(host: SysHost, shell: str, profile: str, greeting: str) -> None:
    """Give root that login shell, and a profile that prints."""
    path = shutil.which(shell)
    assert path is not None, f"{shell} is not installed on this machine (tools/packages.txt)"
    if shell == "busybox":  # it is the shell that its name says
        host.must(f"ln -s {path} /root/ash")
        path = "/root/ash"
    host.must(f"sed -i 's|^root:.*|root:x:0:0:root:/root:{path}|' /etc/passwd")
    if profile:
        host.must(f"mkdir -p $(dirname /root/{profile})")
        host.path(f"/root/{profile}").write_text(greeting + "\n")


@pytest.fixture(scope="module")
def hosts(can_boot: None) -> Iterator[dict[str, SysHost]]:
    booted: dict[str, SysHost] = {}
    try:
        for name, manner in HOSTS.items():
            booted[name] = SysHost.boot()
            booted[name].name = name
            dress(booted[name], *manner)
        yield booted
    finally:
        for host in booted.values():
            host.stop()


@pytest.fixture(scope="module")
def fleet(hosts: dict[str, SysHost], tmp_path_factory: pytest.TempPathFactory) -> SysFleet:
    return SysFleet(tmp_path_factory.mktemp("fleet"), list(hosts.values()))


@pytest.fixture(scope="module")
def releases(fleet: SysFleet) -> list[Release]:
    return [fleet.release("1.0.0", 1), fleet.release("1.1.0", 2)]


def roll_out(fleet: SysFleet, release: Release) -> Played:
    return fleet.play(
        "rollout", {**VARIABLES, "ebpf_fleet_bundle": str(release.bundle), "ebpf_fleet_allowed_signers": fleet.trust}
    )


@pytest.fixture(scope="module")
def rolled_out(fleet: SysFleet, releases: list[Release], hosts: dict[str, SysHost]) -> list[Release]:
    for release in releases:
        played = roll_out(fleet, release)
        assert played.rc == 0, played.text
        assert digests(hosts) == dict.fromkeys(HOSTS, release.digest)
    return releases


def digests(hosts: dict[str, SysHost]) -> dict[str, str]:
    return {name: status(host)["bundle"]["digest"] for name, host in hosts.items()}


def roll_back(fleet: SysFleet, folder: Path, scope: str, *words: str) -> dict[str, Any]:
    """Run the kill playbook; the record names every host, whatever became of it."""
    report = folder / "record.json"
    report.unlink(missing_ok=True)
    played = fleet.play("rollback", {"scope": scope, "ebpf_fleet_report": str(report)}, *words)
    assert played.rc == 0, played.text
    record: dict[str, Any] = json.loads(report.read_text())
    assert (sorted(record["confirmed"]), record["missing"]) == (sorted(HOSTS), [])
    return record


def test_each_has_the_release_and_goes_back_and_is_killed_and_released(
    rolled_out: list[Release], fleet: SysFleet, hosts: dict[str, SysHost], tmp_path: Path
) -> None:
    first, _second = rolled_out
    roll_back(fleet, tmp_path, "previous")
    assert digests(hosts) == dict.fromkeys(HOSTS, first.digest)
    roll_back(fleet, tmp_path, "feature=runqlat")
    assert {status(host)["features"]["runqlat"]["state"] for host in hosts.values()} == {"killed"}
    assert our_programs(), "exec_events is not killed"
    roll_back(fleet, tmp_path, "global")
    assert our_programs() == []
    for scope in ("global", "feature=runqlat"):
        roll_back(fleet, tmp_path, scope, *RELEASE)
    for host in hosts.values():
        assert host.must("find /run/ebpf-fleet/kill.d /etc/ebpf-fleet/kill.d -mindepth 1") == ""


def test_one_is_addressed_by_its_exact_name_alone(
    rolled_out: list[Release], fleet: SysFleet, hosts: dict[str, SysHost], tmp_path: Path
) -> None:
    """By an order that concerns no host: these share one kernel, which a kill of one of them would find full."""
    for name, host in hosts.items():
        report = tmp_path / "one.json"
        order = {
            "scope": "kernel_family=2.6", "allow_unconcerned": True,
            "ebpf_fleet_report": str(report), "ebpf_fleet_hosts": name,
        }  # fmt: skip
        played = fleet.play("rollback", order)
        assert played.rc == 0, played.text
        assert json.loads(report.read_text())["confirmed"] == [name]
        assert [one for one, other in hosts.items() if has_order(other)] == [name]
        played = fleet.play("rollback", {**order, "state": "released", "confirm": "release", "reason": "tested"})
        assert played.rc == 0, played.text
        assert not has_order(host)


def has_order(host: SysHost) -> bool:
    return host.run("test -e /run/ebpf-fleet/kill.d/family.2.6").rc == 0
