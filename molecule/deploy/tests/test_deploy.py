# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host runs after a deployment: asked of its kernel, its systemd and its loader."""

from __future__ import annotations

import json
import time

import pytest

testinfra_hosts = ["ansible://k61a", "ansible://k73"]

UNIT = "ebpf-fleet-loader.service"
STATE = "/run/ebpf-fleet-loader"
KILL = "/run/ebpf-fleet/kill.d/global"


def programs(host) -> list[str]:
    """Names of our programs in the kernel, by bpftool."""
    shown = json.loads(host.check_output("bpftool prog show -j"))
    return sorted(one["name"] for one in shown if one.get("name", "").startswith("ef_"))


def maps(host) -> list[str]:
    """Names of our maps in the kernel, by bpftool."""
    shown = json.loads(host.check_output("bpftool map show -j"))
    return sorted(one["name"] for one in shown if one.get("name", "").startswith("ef_"))


def until(what, wanted, seconds: float = 120):
    """Ask again until the answer is the wanted one or time is up (long: hosts are emulated); return the last answer."""
    deadline = time.monotonic() + seconds
    while (answer := what()) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer


def status(host) -> dict:
    return json.loads(host.check_output(f"cat {STATE}/status.json"))


def main_pid(host) -> str:
    return host.check_output(f"systemctl show -p MainPID --value {UNIT}")


def test_every_feature_is_attached_and_the_kernel_agrees(host):
    features = status(host)["features"]
    # A policy feature runs only where it is named; every other one runs on both kernels.
    assert {name for name, one in features.items() if not one["wanted"]} == {"exec_policy"}
    assert {"exec_events", "runqlat"} < features.keys()
    assert {one["state"] for one in features.values() if one["wanted"]} == {"attached"}
    said = sorted(program["name"] for one in features.values() for program in one["programs"])
    assert programs(host) == said and said


def test_the_loader_keeps_two_capabilities_and_is_not_root(host):
    proc = host.check_output(f"cat /proc/{main_pid(host)}/status")
    fields = dict(line.split(":\t", 1) for line in proc.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 1 << 39 | 1 << 38, "CAP_BPF and CAP_PERFMON, nothing else"
    assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16)
    assert int(fields["CapAmb"], 16) & ~(1 << 39 | 1 << 38) == 0
    assert fields["Uid"].split()[0] == str(host.user("ebpf-fleet").uid) != "0"


def test_run_time_is_accounted_although_the_loader_is_not_root(host):
    found = status(host)
    assert found["stats_enabled"] is True
    assert any(program["run_cnt"] for one in found["features"].values() for program in one["programs"])


def test_nothing_is_pinned(host):
    assert host.run("find /sys/fs/bpf -mindepth 1 -name 'ef_*'").stdout == ""


def test_an_execution_becomes_an_event(host):
    host.check_output("/usr/bin/env true")
    lines = until(lambda: "true" in host.check_output("tail -n 50 /var/log/ebpf-fleet/events.jsonl"), True)
    assert lines, "no event of the execution of 'true' within 30 s"


def test_metrics_are_prometheus_text(host):
    text = host.check_output(f"cat {STATE}/metrics.prom")
    assert "# TYPE ebpf_fleet_run_queue_latency_seconds histogram" in text
    assert 'ebpf_fleet_feature_profile{feature="runqlat",profile="full"} 1' in text


def test_every_event_is_accounted_for(host):
    for name, feature in status(host)["features"].items():
        count = feature["counters"]
        rest = count["delivered"] + count["dropped"] + count["sampled_out"] + count["in_flight"]
        assert count["produced"] == rest, name


def test_the_files_of_a_release_belong_to_root_alone(host):
    loose = host.check_output("find /var/lib/ebpf-fleet ! -type l \\( ! -user root -o -perm /022 \\) -print")
    assert loose == ""


def test_kill_minus_nine_leaves_nothing_and_systemd_brings_it_back(host):
    before = programs(host)
    # RestartSec is 2 s: what bpftool sees one second after the kill, no one attached again.
    seen = host.check_output(f"kill -9 {main_pid(host)}; sleep 1; bpftool prog show -j; echo; bpftool map show -j")
    assert '"name":"ef_' not in seen
    assert until(lambda: programs(host), before) == before


@pytest.mark.parametrize("order", [KILL, "/etc/ebpf-fleet/kill.d/global"])
def test_a_kill_file_turns_everything_off_and_holds_across_a_restart(host, order):
    before = programs(host)
    assert before
    host.check_output(f"touch {order}")
    try:
        assert until(lambda: programs(host), [], 5) == []
        assert until(lambda: maps(host), [], 5) == []
        host.check_output(f"systemctl restart {UNIT}")
        assert host.service(UNIT).is_running
        assert programs(host) == []
        assert status(host)["state"] == "killed"
    finally:
        host.check_output(f"rm -f {order}")
    assert until(lambda: programs(host), before) == before
