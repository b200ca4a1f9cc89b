# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole rollout over SSH with every value given as text, its check mode, and a kill order that stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.sysfleet import Release, SysFleet, status
from tests.support.syshost import SysHost

# As a person types them: `-e key=value` makes text of each.
TEXTS = {
    "ebpf_fleet_cell": "12",
    "ebpf_fleet_region": "no",
    "ebpf_fleet_max_batch": "2",
    "ebpf_fleet_growth": "1.5",
    "ebpf_fleet_fleet_percent": "50",
    "ebpf_fleet_cell_percent": "50",
    "ebpf_fleet_leave_out": "disabled,unsupported",
    "ebpf_fleet_unreachable_limit": "10%",
    "ebpf_fleet_holdback": "0",
    "ebpf_fleet_blocked_hours": "[]",
    "ebpf_fleet_maintenance": "no",
    "ebpf_fleet_window_before": "1",
    "ebpf_fleet_window_after": "8.5",
    "ebpf_fleet_bake": "1",
    "ebpf_fleet_rollout_lease_seconds": "300",
    "ebpf_fleet_activation_timeout": "60",
    "ebpf_fleet_keep_releases": "3",
    "ebpf_fleet_allow_downgrade": "no",
    "ebpf_fleet_bcc_fallback": "off",
    "ebpf_fleet_loader_interval": "1",
    "ebpf_fleet_perf_event_paranoid": "",
    "ebpf_fleet_return_timeout": "120",
    "ebpf_fleet_logins": "2",
    "ebpf_fleet_stages": '[{"stage":"cell","cell":"12"},{"stage":"fleet","max_batch":"1"}]',
    "ebpf_fleet_expected_stratum": "*/*/*",
    "ebpf_fleet_features": '{"runqlat":{"enabled":"yes","sample_every":"2"}}',
    "ebpf_fleet_policy": '{"host":{"cpu_millicores":500}}',
    # This machine is shared with other tests: what it does beside the rollout is not judged here.
    "ebpf_fleet_gate_limits": '{"host_cpu_delta_ppm":"1000000","host_memory_delta_bytes":"9000000000"}',
    "ebpf_fleet_gate_checks": '[{"name":"window","expression":"rates.window_ns","min":"1"}]',
    "ebpf_fleet_on_inconclusive": '{"loader_cpu":"pass"}',
}


def rollout(fleet: SysFleet, release: Release, *arguments: str) -> Any:
    words = [word for name, value in TEXTS.items() for word in ("-e", f"{name}={value}")]
    given = {"ebpf_fleet_bundle": str(release.bundle), "ebpf_fleet_allowed_signers": fleet.trust}
    return fleet.play("rollout", given, *words, *arguments, timeout=500)


@pytest.fixture(scope="module")
def rolled_out(syshost: SysHost, sysfleet: SysFleet, first: Release) -> SysHost:
    played = rollout(sysfleet, first)
    assert played.rc == 0, played.text
    assert "cell: 1 hosts in batches of 1" in played.text
    return syshost


@pytest.mark.slow
def test_values_as_text_reach_the_host_as_what_they_mean(rolled_out: SysHost, first: Release) -> None:
    found = status(rolled_out)
    assert found["bundle"]["digest"] == first.digest and found["state"] == "running"
    runqlat = found["features"]["runqlat"]
    assert (runqlat["wanted"], runqlat["state"], runqlat["sample_every"]) == (True, "attached", 2)
    assert found["features"]["exec_events"]["wanted"] is False
    policy = json.loads(rolled_out.must("cat /etc/ebpf-fleet/policy.json"))
    assert policy["host"] == {"cpu_millicores": 500}
    assert "--interval 1" in rolled_out.must("cat /etc/systemd/system/ebpf-fleet-loader.service")
    assert rolled_out.run("test -e /etc/systemd/system/ebpf-fleet-bcc.service").rc != 0


@pytest.mark.slow
def test_check_mode_shows_what_would_change_without_measuring_or_waiting(
    rolled_out: SysHost, sysfleet: SysFleet, first: Release
) -> None:
    hour = ["-e", "ebpf_fleet_window_before=3600", "-e", "ebpf_fleet_window_after=3600", "-e", "ebpf_fleet_bake=3600"]
    hour += ["-e", "ebpf_fleet_rollout_lease_seconds=90000"]
    second = sysfleet.release("1.0.1", 2)
    played = rollout(sysfleet, second, *hour, "--check", "--diff")
    # Any of the three hours would have ended the play by its bound; the host is as it was.
    assert played.rc == 0, played.text
    assert "1.0.1" in played.text and status(rolled_out)["bundle"]["digest"] == first.digest


@pytest.mark.parametrize(
    ("order", "refused"),
    [("global", True), ("feature.runqlat", True), ("feature.exec_events", False), ("family.1.0", False)],
)
@pytest.mark.sample(1)
@pytest.mark.slow
def test_a_standing_order_is_told_before_the_host_is_changed(
    rolled_out: SysHost, sysfleet: SysFleet, first: Release, order: str, refused: bool
) -> None:
    rolled_out.must(f": >/etc/ebpf-fleet/kill.d/{order}")
    try:
        played = rollout(sysfleet, first, "--check")
    finally:
        rolled_out.must(f"rm /etc/ebpf-fleet/kill.d/{order}")
    assert (f"a kill order stands on {rolled_out.name} ({order})" in " ".join(played.text.split())) is refused
    assert (played.rc != 0) is refused, played.text
    assert ("Prepare user, directories" in played.text) is not refused
