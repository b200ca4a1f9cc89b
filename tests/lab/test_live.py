# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab promises of a running guest, asked of the guests that run; changes nothing in them."""

from __future__ import annotations

import functools
import json
import os

import pytest

from tests.lab import guest, paths, settings, ssh, system

HOSTS = settings.load(paths.SETTINGS).hosts
WHOLE_FLEET = [host.name for host in settings.load(paths.SETTINGS).group(settings.FLEET)]
FLEET = os.environ.get("EBPF_FLEET_LAB_HOSTS", "").split() or WHOLE_FLEET
# Hosts that are not of the fleet are looked at where they run; nobody promised that they do.
ASKED = FLEET + sorted(name for name in HOSTS if name not in FLEET and guest.record(name))

# One connection per host: a guest's processor is emulated.
_QUESTIONS = """
field() { printf '%s=%s\\n' "$1" "$2"; }
field release "$(uname -r)"
field python "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
field host "$(hostname)"
field system "$(systemctl is-system-running)"
field bpftool "$(bpftool -j prog list | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')"
field btf "$(head -c 2 /sys/kernel/btf/vmlinux 2>/dev/null | od -An -tx1 | tr -d ' ')"
field controllers "$(cat /sys/fs/cgroup/cgroup.controllers)"
field limits "$(systemd-run -q --wait --pipe -p CPUQuota=20% -p MemoryMax=40M sh -c \\
    'cd /sys/fs/cgroup/$(cut -d: -f3 /proc/self/cgroup) && cat cpu.max memory.max' | tr '\\n' ' ')"
field lsm "$(cat /sys/kernel/security/lsm)"
field build "$(test -e /lib/modules/$(uname -r)/build/Makefile && echo there || echo none)"
field module "$(modprobe -n -v dummy 2>&1 | cut -d' ' -f1)"
field bpffs "$(stat -f -c %T /sys/fs/bpf)"
field outside "$(timeout 3 bash -c 'echo >/dev/tcp/10.0.2.2/22' 2>/dev/null && echo reached || echo cut)"
"""


@functools.lru_cache(maxsize=None)
def answers(name: str) -> dict[str, str]:
    found = guest.record(name)
    if found is None or guest.state(name) != "running":
        if name in FLEET:
            pytest.skip(f"{name} does not run: python3 -m tests.lab up {name}")
        pytest.skip(f"{name} is not of the fleet that was asked for, and does not run")
    lines = ssh.run(found.port, _QUESTIONS, 120).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(params=ASKED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_kernel_is_of_its_series(name: str) -> None:
    release = answers(name)["release"]
    assert release == guest.require(name).kernel
    series, _, flavour = HOSTS[name].kernel.name.partition("-")
    assert release.startswith(series.replace("x", ""))
    assert f"-{flavour or 'cloud'}-" in release


def test_the_userland_has_its_python(name: str) -> None:
    expected = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
    assert answers(name)["python"] == expected[HOSTS[name].userland.suite]


def test_the_system_is_whole(name: str) -> None:
    assert answers(name)["host"] == name
    assert answers(name)["system"] == "running"


def test_the_kernels_programs_can_be_listed(name: str) -> None:
    assert int(answers(name)["bpftool"]) >= 0
    assert answers(name)["btf"] == ("" if HOSTS[name].hide_btf else "9feb")
    assert answers(name)["bpffs"] == "bpf_fs"


@pytest.mark.parametrize("chosen", sorted(name for name in HOSTS if "lsm=" in HOSTS[name].arguments))
def test_the_security_modules_are_those_asked_for(chosen: str) -> None:
    words = dict(word.split("=", 1) for word in HOSTS[chosen].arguments.split())
    found = set(answers(chosen)["lsm"].split(","))
    assert ("bpf" in found) == ("bpf" in words["lsm"].split(","))


def test_headers_are_seen_beside_the_modules(name: str) -> None:
    assert answers(name)["build"] == ("there" if HOSTS[name].userland.headers else "none")
    assert answers(name)["module"] == "insmod"


def test_limits_of_a_unit_reach_its_cgroup(name: str) -> None:
    assert {"cpu", "memory"} <= set(answers(name)["controllers"].split())
    assert answers(name)["limits"].split() == ["20000", "100000", str(40 << 20)]


def test_a_guest_reaches_nothing_outside(name: str) -> None:
    assert answers(name)["outside"] == "cut"


def test_the_clock_is_right(name: str) -> None:
    answers(name)
    assert abs(ssh.clock_error(guest.require(name).port)) < guest.CLOCK_TOLERANCE_SECONDS


def test_the_inventory_lists_what_runs() -> None:
    # Those of `make demo` may run still, whichever are asked here.
    running = {name: found.port for name in WHOLE_FLEET if (found := guest.record(name))}
    if not running:
        pytest.skip("no guest runs: python3 -m tests.lab up")
    listed = json.loads(
        system.run(["python3", "-m", "tests.lab", "inventory", "--json"], "inventory", cwd=paths.REPOSITORY)
    )["all"]["hosts"]
    assert {name: variables["ansible_port"] for name, variables in listed.items()} == running
