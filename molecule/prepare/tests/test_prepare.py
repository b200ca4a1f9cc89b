# SPDX-License-Identifier: GPL-3.0-or-later
"""What a prepared host has, looked at from outside."""

from __future__ import annotations

import pytest

testinfra_hosts = ["ansible://k510", "ansible://k612"]

UNIT = "ebpf-fleet-loader.service"


def show(host, name: str) -> str:
    return host.check_output(f"systemctl show -p {name} --value {UNIT}")


def test_the_loader_has_a_user_of_its_own_that_cannot_log_in(host):
    user = host.user("ebpf-fleet")
    assert user.exists and user.shell == "/usr/sbin/nologin" and user.uid != 0


@pytest.mark.parametrize(
    "path",
    [
        "/etc/ebpf-fleet", "/etc/ebpf-fleet/trust", "/etc/ebpf-fleet/kill.d", "/run/ebpf-fleet/kill.d",
        "/var/lib/ebpf-fleet/releases",
    ],
)  # fmt: skip
def test_control_directories_belong_to_root_alone(host, path):
    directory = host.file(path)
    assert directory.is_directory and directory.user == "root" and directory.mode == 0o755


def test_kill_orders_would_survive_the_unit(host):
    assert show(host, "RuntimeDirectory") == "ebpf-fleet-loader"


def test_trust_is_in_place_and_only_root_writes_it(host):
    trust = host.file("/etc/ebpf-fleet/trust/allowed_signers")
    assert trust.contains("ebpf-fleet-release") and trust.mode == 0o644 and trust.user == "root"


def test_the_unit_is_known_enabled_and_not_started(host):
    assert host.service("ebpf-fleet-loader").is_enabled
    assert show(host, "ActiveState") == "inactive"


def test_this_systemd_understands_every_line_of_the_unit(host):
    said = host.run(f"systemd-analyze verify /etc/systemd/system/{UNIT}").stderr.splitlines()
    # The loader comes with the first release: that its file is missing is right here.
    assert [line for line in said if UNIT in line and "ebpf-loader is not executable" not in line] == []


def test_limits_and_capabilities_are_what_the_role_says(host):
    assert show(host, "MemoryMax") == str(96 * 1024 * 1024)
    assert show(host, "CPUQuotaPerSecUSec") == "200ms"
    assert show(host, "NoNewPrivileges") == "yes"
    assert set(show(host, "CapabilityBoundingSet").split()) == {"cap_bpf", "cap_perfmon", "cap_sys_admin"}
