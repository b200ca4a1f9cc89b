# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way of a rollout before or while it runs, and is not the release's own fault."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.loader.prometheus import free_address
from tests.scenarios.world import World, at_once, has_release, until


def test_two_rollouts_at_once(running: World) -> None:
    good, other = running.another(), running.another()
    first = running.begin(good)
    until((running.ledger / "rollout.lock").exists, 60, first.text)
    second = running.roll_out(other)
    assert first.process.poll() is None, "the first was over before the second was refused: nothing was tested"
    assert second.rc == 2 and "EF_ROLLOUT_RUNNING" in second.text, second.text
    assert "Ask the hosts" not in second.text
    played = first.wait()
    assert played.rc == 0, played.text
    assert not any(has_release(host, other) for host in running.hosts)
    running.check(run=good)


def test_prometheus_down(running: World) -> None:
    good = running.another()
    queries = {"p95": "shop_p95", "p99": "shop_p99"}
    source = {"source": "prometheus", "url": f"http://{free_address()}", "unit": "s", "queries": queries, "timeout": 2}
    played = running.roll_out(good, ebpf_fleet_application_latency=source)
    assert played.rc == 2 and "EF_GATE_INCONCLUSIVE" in played.text, played.text
    assert running.verdicts() == ["inconclusive"] and running.begun() == [running.hosts[0].name]
    assert running.failed_checks() <= {"application_p95", "application_p99"}
    assert not (running.ledger / "quarantine.json").exists(), "what was not measured is no fault of the release"
    running.check(run=running.first)


def test_disk_full(running: World) -> None:
    good = running.another()
    one, other = running.hosts
    place = "/var/lib/ebpf-fleet"
    # A small disk with what the host has, and then no room on it.
    one.must(f"cp -a {place} /run/kept && systemctl stop ebpf-fleet-loader && mount -t tmpfs -o size=64m tmpfs {place}"
             f" && chmod --reference=/run/kept {place}"
        f" && chown --reference=/run/kept {place} && cp -a /run/kept/. {place}"
             f" && systemctl start ebpf-fleet-loader && mount -o remount,size=$(( $(du -sk {place} | cut -f1) + 512 ))k"
             f" {place}")  # fmt: skip
    try:
        running.check(run=running.first)
        played = running.roll_out(good)
        assert played.rc == 2 and "no later batch was started" in played.text, played.text
        assert "EF_DISK_FULL" in played.text and "make room" in played.text
        assert running.begun() == [one.name] and not has_release(one, good) and not has_release(other, good)
        running.check(run=running.first)
    finally:
        one.must(f"mount -o remount,size=64m {place}")


def test_quarantined_earlier(running: World) -> None:
    bad = running.another()
    # No release holds this: the verdict is a real one, and the release is quarantined by it.
    played = running.roll_out(bad, limits={"map_memory_bytes": 0})
    assert played.rc == 2 and running.failed_checks() == {"map_memory"}, played.text
    (entry,) = json.loads((running.ledger / "quarantine.json").read_text())["entries"]
    assert entry["digest"] == bad.digest
    earlier = running.rollout_id()
    again = running.roll_out(bad)
    assert again.rc == 2 and "quarantined" in again.text, again.text
    assert running.rollout_id() == earlier or running.begun() == [], "a batch of the quarantined release began"
    running.check(run=running.first)


def test_freeze_window(running: World, tmp_path: Path) -> None:
    """It begins while the first batch is in hand: that one comes to its end, and no other begins."""
    good = running.another()
    one, other = running.hosts
    windows = tmp_path / "windows.json"
    windows.write_text("[]")
    now = datetime.now(timezone.utc)
    window = {"from": rfc3339(now), "to": rfc3339(now + timedelta(hours=2)), "why": "a holiday"}
    # Read again whenever it is asked for, so that no test has to guess how fast this machine is.
    freezes = f"{{{{ lookup('ansible.builtin.file', '{windows}') | from_json }}}}"
    with at_once(lambda: one.name in batches(running), lambda: windows.write_text(json.dumps([window]))) as frozen:
        played = running.roll_out(good, ebpf_fleet_freezes=freezes)
    assert frozen, "no window began; nothing was tested"
    assert played.rc == 2 and "EF_FROZEN" in played.text and "a holiday" in played.text, played.text
    assert running.begun() == [one.name] and running.verdicts() == ["pass"]
    running.check(run={one: good, other: running.first})
    # Nor does one begin within it, and the same rollout finishes when it is over.
    begun = len(running.entries())
    played = running.roll_out(good, ebpf_fleet_freezes=freezes)
    assert played.rc == 2 and "EF_FROZEN" in played.text, played.text
    assert not [entry for entry in running.entries()[begun:] if entry.kind == "batch_begun"]
    windows.write_text("[]")
    played = running.roll_out(good, ebpf_fleet_freezes=freezes)
    assert played.rc == 0, played.text
    running.check(run=good)


def rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def batches(world: World) -> list[str]:
    """Hosts of batches of the last rollout that began, if it has not ended."""
    entries = world.entries()
    return world.begun() if entries and entries[-1].kind != "ended" else []
