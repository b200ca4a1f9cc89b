# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles give their modules, rendered by Ansible: units, directories, trust, and each default by its value.

The units are the second wall around the loader and the collector, so each of their lines stands here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scripted import Ended, inventory, played

pytestmark = pytest.mark.apart

PREPARE, DEPLOY = "Prepare user, directories, trust and unit", "Deploy the release"
SIGNERS = {"ebpf_fleet_allowed_signers": "release@example.org ssh-ed25519 AAAA"}

LOADER_UNIT = """
[Unit]
Description=ebpf.fleet loader
Documentation=file:/var/lib/ebpf-fleet/current/bundle/manifest.json
ConditionPathExists=/var/lib/ebpf-fleet/current/ebpf-loader
StartLimitIntervalSec=120
StartLimitBurst=6
[Service]
Type=notify
User=ebpf-fleet
Group=ebpf-fleet
ExecStart=/var/lib/ebpf-fleet/current/ebpf-loader run --bundle /var/lib/ebpf-fleet/current/bundle --interval 5
ExecReload=/var/lib/ebpf-fleet/current/ebpf-loader run --bundle /var/lib/ebpf-fleet/current/bundle --interval 5 --handover
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2 3
TimeoutStartSec=60
TimeoutStopSec=10
WatchdogSec=60
RuntimeDirectory=ebpf-fleet-loader
RuntimeDirectoryMode=0755
LogsDirectory=ebpf-fleet
LogsDirectoryMode=0750
UMask=0027
AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_ADMIN
CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_SYS_ADMIN
NoNewPrivileges=yes
CPUQuota=20%
CPUQuotaPeriodSec=5ms
MemoryMax=128M
TasksMax=8
LimitMEMLOCK=64M
LimitNOFILE=1024
OOMScoreAdjust=500
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateMounts=yes
PrivateNetwork=yes
PrivateTmp=yes
IPAddressDeny=any
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service bpf perf_event_open
SystemCallFilter=~@privileged @resources @keyring @aio @ipc
SystemCallFilter=bpf capset memfd_create seccomp
SystemCallErrorNumber=EPERM
[Install]
WantedBy=multi-user.target
"""  # noqa: E501  # a line of the unit, as it is
BCC = "/var/lib/ebpf-fleet/current/bundle"
BCC_UNIT = f"""
[Unit]
Description=ebpf.fleet BCC collector (what the loader cannot run on this host)
Documentation=file:{BCC}/manifest.json
ConditionPathExists={BCC}/collector/bcc.py
PartOf=ebpf-fleet-loader.service
After=ebpf-fleet-loader.service
StartLimitIntervalSec=120
StartLimitBurst=6
[Service]
Type=notify
User=ebpf-fleet
Group=ebpf-fleet
ExecStart=/usr/bin/python3 -I -B {BCC}/collector/bcc.py run --bundle {BCC} --loader /var/lib/ebpf-fleet/current/ebpf-loader --interval 5
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2 3
TimeoutStartSec=120
TimeoutStopSec=10
WatchdogSec=60
RuntimeDirectory=ebpf-fleet-bcc
RuntimeDirectoryMode=0755
LogsDirectory=ebpf-fleet
LogsDirectoryMode=0750
UMask=0022
AmbientCapabilities=CAP_BPF CAP_PERFMON
CapabilityBoundingSet=CAP_BPF CAP_PERFMON
NoNewPrivileges=yes
CPUQuota=50%
MemoryMax=512M
OOMPolicy=continue
TasksMax=16
LimitMEMLOCK=64M
LimitNOFILE=1024
OOMScoreAdjust=500
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateTmp=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service bpf perf_event_open
SystemCallErrorNumber=EPERM
[Install]
WantedBy=ebpf-fleet-loader.service
"""  # noqa: E501
PULL_UNIT = """
[Unit]
Description=ebpf.fleet: visit the kill list
Documentation=file:/etc/ebpf-fleet/pull.json
ConditionPathExists=/etc/ebpf-fleet/pull.json
Before=ebpf-fleet-loader.service ebpf-fleet-bcc.service
After=network.target nss-lookup.target
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I /var/lib/ebpf-fleet/pull/ebpf-fleet-pull
TimeoutStartSec=120
RuntimeDirectory=ebpf-fleet-pull
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UMask=0022
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL
NoNewPrivileges=yes
MemoryMax=256M
TasksMax=16
ProtectSystem=strict
ReadWritePaths=-/etc/ebpf-fleet/kill.d -/run/ebpf-fleet/kill.d /var/lib/ebpf-fleet/pull
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateTmp=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
[Install]
WantedBy=multi-user.target
"""
PULL_TIMER = """
[Unit]
Description=ebpf.fleet: visit the kill list every 60 s
[Timer]
OnActiveSec=0
OnUnitInactiveSec=60
AccuracySec=1
RandomizedDelaySec=6
[Install]
WantedBy=timers.target
"""
PULL_UNITS = ["ebpf-fleet-pull.service", "ebpf-fleet-pull.timer"]
FOLDERS = """
d /run/ebpf-fleet 0755 root root -
d /run/ebpf-fleet/kill.d 0755 root root -
d /etc/ebpf-fleet 0755 root root -
d /etc/ebpf-fleet/kill.d 0755 root root -
d /etc/ebpf-fleet/trust 0755 root root -
d /var/lib/ebpf-fleet 0755 root root -
d /var/lib/ebpf-fleet/releases 0755 root root -
"""
USERS = 'u ebpf-fleet - "ebpf.fleet loader" /nonexistent /usr/sbin/nologin'
BOTH = (("64M", "44M"), ("--interval 5", "--interval 9"))
UNITS = "/etc/systemd/system"
TMPFILES = "/etc/tmpfiles.d/ebpf-fleet.conf"
ROOT = Path(__file__).resolve().parents[2]


def bare(text: str) -> str:
    """Without comments and empty lines."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))


def with_changes(unit: str, *changes: tuple[str, str]) -> str:
    """The unit with each text in the place of another, wherever that stands; it does."""
    unit = unit.strip()
    for old, new in changes:
        assert old in unit
        unit = unit.replace(old, new)
    return unit


def prepared(folder: Path, *options: str, **variables: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """({path: content}, the other arguments) that the role gives its module on one host."""
    ended = played(folder, "prepare", inventory(["w1"]), {}, *options, **variables)
    assert ended.status == 0, ended.said
    (call,) = ended.calls
    files = call.arguments.pop("files")
    assert all(set(file) == {"path", "content"} for file in files)
    return {file["path"]: file["content"] for file in files}, call.arguments


def test_what_a_host_gets_by_default(tmp_path: Path) -> None:
    files, arguments = prepared(tmp_path, **SIGNERS)
    assert arguments == {"sysusers": "ebpf-fleet.conf", "tmpfiles": "ebpf-fleet.conf",
                         "enable": ["ebpf-fleet-loader.service"], "trust_overrule": False,
                         "remove_units": ["ebpf-fleet-bcc.service", *PULL_UNITS[::-1]]}  # fmt: skip
    assert {path: bare(content) for path, content in files.items()} == {
        "/etc/sysusers.d/ebpf-fleet.conf": USERS, "/etc/tmpfiles.d/ebpf-fleet.conf": FOLDERS.strip(),
        f"{UNITS}/ebpf-fleet-loader.service": LOADER_UNIT.strip(),
        "/etc/ebpf-fleet/policy.json": files["/etc/ebpf-fleet/policy.json"].strip(),
        "/etc/ebpf-fleet/trust/allowed_signers": "release@example.org ssh-ed25519 AAAA",
        "/etc/ebpf-fleet/trust/revoked_keys": "",
    }  # fmt: skip
    assert set(json.loads(files["/etc/ebpf-fleet/policy.json"])) == {"schema"}


@pytest.mark.parametrize("as_text", [False, True])
def test_what_a_host_gets_with_everything_given(tmp_path: Path, as_text: bool) -> None:
    values = {
        "ebpf_fleet_revoked_keys": ["ssh-ed25519 BBBB"], "ebpf_fleet_trust_overrule": True,
        "ebpf_fleet_policy": {"host": {"cpu_millicores": 7}}, "ebpf_fleet_loader_cpu_quota": "33%",
        "ebpf_fleet_loader_memory_max": "99M", "ebpf_fleet_loader_memlock": "44M", "ebpf_fleet_loader_interval": 9,
        "ebpf_fleet_textfile_directory": "/textfiles", "ebpf_fleet_perf_event_paranoid": 0,
        "ebpf_fleet_bcc_fallback": True, "ebpf_fleet_bcc_cpu_quota": "66%", "ebpf_fleet_bcc_memory_max": "77M",
    }  # fmt: skip
    if as_text:
        values = {name: one if isinstance(one, str) else json.dumps(one) for name, one in values.items()}
        values["ebpf_fleet_revoked_keys"] = "ssh-ed25519 BBBB"
    files, arguments = prepared(tmp_path, **SIGNERS, **values)
    assert arguments == {"sysusers": "ebpf-fleet.conf", "tmpfiles": "ebpf-fleet.conf", "trust_overrule": True,
                         "enable": ["ebpf-fleet-loader.service", "ebpf-fleet-bcc.service"],
                         "remove_units": PULL_UNITS[::-1]}  # fmt: skip
    loader = with_changes(LOADER_UNIT, ("CPUQuota=20%", "CPUQuota=33%"), ("128M", "99M"), *BOTH)
    assert bare(files[f"{UNITS}/ebpf-fleet-loader.service"]) == loader
    bcc = with_changes(BCC_UNIT, ("CPUQuota=50%", "CPUQuota=66%"), ("512M", "77M"), *BOTH)
    assert bare(files[f"{UNITS}/ebpf-fleet-bcc.service"]) == bcc
    assert bare(files["/etc/tmpfiles.d/ebpf-fleet.conf"]).splitlines() == [
        *FOLDERS.strip().splitlines(), "w /proc/sys/kernel/perf_event_paranoid - - - - 0",
        "L+ /textfiles/ebpf_fleet.prom - - - - /run/ebpf-fleet-loader/metrics.prom",
        "L+ /textfiles/ebpf_fleet_bcc.prom - - - - /run/ebpf-fleet-bcc/metrics.prom",
    ]  # fmt: skip
    assert json.loads(files["/etc/ebpf-fleet/policy.json"])["host"] == {"cpu_millicores": 7}
    assert files["/etc/ebpf-fleet/trust/revoked_keys"] == "ssh-ed25519 BBBB\n"


def test_the_collectors_unit_and_links_by_default(tmp_path: Path) -> None:
    files, _arguments = prepared(tmp_path, **SIGNERS, ebpf_fleet_bcc_fallback=True)
    assert bare(files[f"{UNITS}/ebpf-fleet-bcc.service"]) == BCC_UNIT.strip()
    assert bare(files["/etc/tmpfiles.d/ebpf-fleet.conf"]) == FOLDERS.strip()
    files, _arguments = prepared(
        tmp_path, **SIGNERS, ebpf_fleet_textfile_directory="/t", ebpf_fleet_perf_event_paranoid="2"
    )
    assert bare(files["/etc/tmpfiles.d/ebpf-fleet.conf"]).splitlines()[-2:] == [
        "w /proc/sys/kernel/perf_event_paranoid - - - - 2",
        "L+ /t/ebpf_fleet.prom - - - - /run/ebpf-fleet-loader/metrics.prom"]  # fmt: skip


def test_the_pull_channels_program_settings_and_units(tmp_path: Path) -> None:
    location = {
        "ebpf_fleet_pull_location": "https://static.example.org/kill-list",
        "ebpf_fleet_textfile_directory": "/t",
    }
    files, arguments = prepared(tmp_path, **SIGNERS, **location)
    assert arguments["enable"] == ["ebpf-fleet-loader.service", *PULL_UNITS]
    assert arguments["remove_units"] == ["ebpf-fleet-bcc.service"]
    assert bare(files[f"{UNITS}/ebpf-fleet-pull.service"]) == PULL_UNIT.strip()
    assert bare(files[f"{UNITS}/ebpf-fleet-pull.timer"]) == PULL_TIMER.strip()
    assert "L+ /t/ebpf_fleet_pull.prom - - - - /run/ebpf-fleet-pull/metrics.prom" in files[TMPFILES]
    assert json.loads(files["/etc/ebpf-fleet/pull.json"]) == {
        "schema": "ebpf.fleet/pull/v1", "location": location["ebpf_fleet_pull_location"], "host": "w1", "cell": "c",
        "policy": "keep", "interval_s": 60, "lease_s": 3600, "timeout_s": 10, "wait_s": 30,
    }  # fmt: skip
    program = {path: text for path, text in files.items() if path.startswith("/var/lib/ebpf-fleet/pull/")}
    entry = program.pop("/var/lib/ebpf-fleet/pull/ebpf-fleet-pull")
    assert entry == (ROOT / "roles/prepare/files/ebpf-fleet-pull").read_text()
    below = "/var/lib/ebpf-fleet/pull/ansible_collections/ebpf/fleet/"
    assert program == {path: (ROOT / path[len(below) :]).read_text() for path in program} and len(program) > 15
    order = list(files)
    assert max(map(order.index, program)) < order.index(f"{UNITS}/ebpf-fleet-pull.service")


def test_the_pull_channel_with_everything_given(tmp_path: Path) -> None:
    values = {
        "ebpf_fleet_pull_location": "file:///srv/kill-list", "ebpf_fleet_pull_interval": "500",
        "ebpf_fleet_pull_policy": "detach", "ebpf_fleet_pull_lease": "1000", "ebpf_fleet_pull_timeout": "5",
        "ebpf_fleet_pull_wait": "7", "ebpf_fleet_pull_python": "/opt/python/bin/python3.9",
    }  # fmt: skip
    files, _arguments = prepared(tmp_path, **SIGNERS, **values)
    unit = with_changes(PULL_UNIT, ("/usr/bin/python3", "/opt/python/bin/python3.9"), ("StartSec=120", "StartSec=82"))
    assert bare(files[f"{UNITS}/ebpf-fleet-pull.service"]) == unit
    timer = with_changes(PULL_TIMER, ("every 60 s", "every 500 s"), ("Sec=60", "Sec=500"), ("Sec=6", "Sec=30"))
    assert bare(files[f"{UNITS}/ebpf-fleet-pull.timer"]) == timer
    told = json.loads(files["/etc/ebpf-fleet/pull.json"])
    assert (told["policy"], told["lease_s"], told["timeout_s"], told["wait_s"]) == ("detach", 1000, 5, 7)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ebpf_fleet_pull_location": "ftp://h/x"}, "ebpf_fleet_pull_location: is 'ftp://h/x' (text)"),
        ({"ebpf_fleet_pull_interval": 40, "ebpf_fleet_pull_lease": 79}, "lease_s is less than two intervals"),
        ({"ebpf_fleet_pull_policy": "detatch"}, "ebpf_fleet_pull_policy: is 'detatch'"),
    ],
)
def test_a_pull_channel_that_cannot_be_meant_gives_a_host_nothing(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    given = {"ebpf_fleet_pull_location": "https://h/x", **wrong}
    ended = played(tmp_path, "prepare", inventory(["w1"]), {}, **SIGNERS, **given)
    assert ended.status != 0 and not ended.calls and words in ended.said, ended.said


KERNEL, PACKAGES = (
    "ebpf.fleet.prepare : Ask for the running kernel",
    "ebpf.fleet.prepare : Install BCC and the kernel's headers",
)


def state(ended: Ended, task: str) -> str:
    (line,) = [line for line in ended.screen if line.startswith(f"{task}: ")]
    return line.rpartition(": ")[2]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("fallback", "packages", "installs"), [(True, True, True), (True, False, False), (False, True, False)]
)
@pytest.mark.slow
def test_packages_are_installed_only_where_both_are_asked_for(
    tmp_path: Path, fallback: bool, packages: bool, installs: bool
) -> None:
    """In check mode, which asks for the kernel all the same. What apt answers is this machine's."""
    ended = played(tmp_path, "prepare", inventory(["w1"]), {}, "--check", **SIGNERS,
                   ebpf_fleet_bcc_fallback=fallback, ebpf_fleet_bcc_install_packages=packages)  # fmt: skip
    assert state(ended, KERNEL) == ("ok w1" if installs else "skipping w1")
    assert (state(ended, PACKAGES) != "skipping w1") is installs
    assert installs or [call.check for call in ended.calls] == [True]


@pytest.mark.parametrize(("variables", "task", "sentence"), [
    ({"ebpf_fleet_allowed_signers": ""}, "ebpf.fleet.prepare : Refuse a host without trust",
     "EF_ARGUMENT: ebpf_fleet_allowed_signers is empty: no one could sign a release for w1."),
    ({"ebpf_fleet_allowed_signers": ["# nobody"]}, None, None),
])  # fmt: skip
def test_a_host_without_trust_is_refused(
    tmp_path: Path, variables: dict[str, Any], task: str | None, sentence: str | None
) -> None:
    ended = played(tmp_path, "prepare", inventory(["w1"]), {}, **variables)
    assert (ended.status != 0, len(ended.calls)) == ((True, 0) if task else (False, 1)), ended.said
    assert task is None or (ended.screen[-1] == f"{task}: FAILED w1" and sentence in ended.said)


def test_a_policy_that_cannot_be_is_refused_by_the_role_itself(tmp_path: Path) -> None:
    """Where the role is used without our playbook, which refuses it before."""
    roles = [{"hosts": "all", "gather_facts": False, "roles": ["ebpf.fleet.prepare"]}]
    (tmp_path / "own.yml").write_text(json.dumps(roles))
    wrong = {"host": {"cpu_millicors": 1}}
    ended = played(tmp_path, "own.yml", inventory(["w1"]), {}, **SIGNERS, ebpf_fleet_policy=wrong)
    assert ended.status == 2 and ended.calls == []
    assert ended.screen[-1] == "ebpf.fleet.prepare : Refuse host limits that cannot be used: FAILED w1"
    assert "did you mean 'cpu_millicores'?" in ended.said


def deployed(folder: Path, **variables: Any) -> Ended:
    roles = [{"hosts": "all", "gather_facts": False, "roles": ["ebpf.fleet.deploy"]}]
    (folder / "own.yml").write_text(json.dumps(roles))
    return played(folder, "own.yml", inventory(["w1"]), {}, **variables)


@pytest.mark.slow
def test_what_is_deployed_by_default_and_that_a_bundle_is_needed(tmp_path: Path) -> None:
    (call,) = deployed(tmp_path, ebpf_fleet_bundle="/b.tar").calls
    assert call.arguments == {"bundle": "/b.tar", "fallbacks": [], "keep": 3, "allow_downgrade": False, "wait": 60}
    ended = deployed(tmp_path)
    assert ended.status == 2 and ended.calls == [] and "EF_ARGUMENT: ebpf_fleet_bundle is empty." in ended.said
    assert ended.screen[-1] == "ebpf.fleet.deploy : Refuse a deployment without a bundle: FAILED w1"


@pytest.mark.parametrize("as_text", [False, True])
def test_what_is_deployed_with_everything_given(tmp_path: Path, as_text: bool) -> None:
    values = {
        "ebpf_fleet_bundle": "/b.tar", "ebpf_fleet_deploy_digest": "3f" * 32, "ebpf_fleet_keep_releases": 7,
        "ebpf_fleet_features": {"runqlat": {"enabled": False}}, "ebpf_fleet_bcc_fallback": True,
        "ebpf_fleet_allow_downgrade": True, "ebpf_fleet_activation_timeout": 9,
        "ebpf_fleet_deploy_lease": {"seconds": 70, "holder": "x"},
    }  # fmt: skip
    if as_text:
        values = {name: one if isinstance(one, str) else json.dumps(one) for name, one in values.items()}
    (call,) = deployed(tmp_path, **values).calls
    assert call.arguments == {
        "bundle": "/b.tar", "digest": "3f" * 32, "features": {"runqlat": {"enabled": False}}, "fallbacks": ["bcc"],
        "keep": 7, "allow_downgrade": True, "lease": {"seconds": 70, "holder": "x"}, "wait": 9,
    }  # fmt: skip
