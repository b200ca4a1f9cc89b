# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that cost more than they may, or whose loader dies: each stops at its first host, which goes back."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.scenarios.releases import bad_loader
from tests.scenarios.world import World, has_release
from tests.support.play import Played
from tests.support.sysfleet import Release
from tests.support.syshost import SysHost

# A release dies of it, or grows, after the time that its deployment takes.
LATER = {"ebpf_fleet_bake": 6}


@contextlib.contextmanager
def calls(host: SysHost, name: str, seconds: int = 900) -> Iterator[None]:
    """A program of that name that calls the kernel in bursts, at the lowest priority: some 30,000 calls a second."""
    host.must(f"cp /bin/dd /run/{name}; rm -f /run/{name}.over")
    burst = f"/run/{name} if=/dev/zero of=/dev/null bs=1 count=1000; sleep 0.05"
    loop = f"while [ ! -e /run/{name}.over ]; do {burst}; done"
    command = ["timeout", str(seconds), "nice", "-n", "19", "sh", "-c", loop]
    process = subprocess.Popen(host.enter(*command), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        host.run(f": >/run/{name}.over")
        process.wait(30)


def stopped_at_the_first_host(world: World, bad: Release, played: Played, *checks: str) -> None:
    """The bad release reached one host, failed by one of these checks, and that host runs the first release again."""
    one, other = world.hosts
    assert played.rc == 2 and "EF_GATE_FAILED" in played.text, played.text
    assert "no later batch was started" in played.text
    assert world.begun() == [one.name] and world.verdicts()[-1] == "fail"
    assert world.failed_checks() & set(checks), world.failed_checks()
    assert has_release(one, bad) and not has_release(other, bad)
    world.check(run=world.first)


def test_drops_over_budget(running: World) -> None:
    bad = running.bad_feature("small_ring")
    with calls(running.hosts[0], "ef-load"):
        played = running.roll_out(bad)
    # How fast the host is decides how far the loader's own budget has come before it is measured.
    stopped_at_the_first_host(running, bad, played, "drop_ratio", "degradation", "features_attached")
    # A ring that is too small is full, too.
    ours = {"drop_ratio", "degradation", "features_attached", "consumer_lag"}
    assert running.failed_checks() <= ours, "nothing else is too much"
    assert "EF_BUDGET_DROPS" in played.text


def test_cpu_over_budget(running: World) -> None:
    bad = running.bad_feature("small_ring", cpu_millicores=1, drop_ratio_ppm=1_000_000)
    with calls(running.hosts[0], "ef-load"):
        played = running.roll_out(bad)
    stopped_at_the_first_host(running, bad, played, "feature_cpu", "features_attached")
    assert running.failed_checks() <= {"feature_cpu", "degradation", "features_attached", "consumer_lag"}
    assert "EF_BUDGET_CPU" in played.text


def test_memory_growth(running: World, tmp_path: Path) -> None:
    bad = running.another(bad_loader(tmp_path, f"-DEF_GROW_BYTES={24 << 20}", "-DEF_GROW_TIMES=5"))
    played = running.roll_out(bad, **LATER)
    stopped_at_the_first_host(running, bad, played, "degradation", "features_attached")
    assert "EF_BUDGET_HOST_MEMORY" in played.text


def test_loader_crash_loop(running: World, tmp_path: Path) -> None:
    bad = running.another(bad_loader(tmp_path, "-DEF_CRASH_AFTER=2"))
    played = running.roll_out(bad, **LATER)
    stopped_at_the_first_host(running, bad, played, "loader_restarts", "loader_active")


def test_loader_that_never_starts(running: World, tmp_path: Path) -> None:
    """It dies before it says that it is there: the host goes back by itself, and is judged by no gate."""
    bad = running.another(bad_loader(tmp_path, "-DEF_CRASH_AT_START"))
    played = running.roll_out(bad, ebpf_fleet_activation_timeout=20)
    one, other = running.hosts
    assert played.rc == 2 and "no later batch was started" in played.text, played.text
    assert running.begun() == [one.name] and running.verdicts() == []
    assert not has_release(other, bad)
    running.check(run=running.first)
