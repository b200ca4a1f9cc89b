# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespace hosts for this suite. Where this machine cannot have one, every test skips and says why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sysfleet import Release, SysFleet
from tests.support.syshost import SysHost, why_not


@pytest.fixture(scope="session")
def can_boot() -> None:
    reason = why_not()
    if reason:
        # Of the machine, such as a container that forbids namespaces: tests/holes.yml has each with its why.
        pytest.skip(reason)


@pytest.fixture(scope="module")
def syshost(can_boot: None) -> Iterator[SysHost]:
    """A host that has booted; each module has its own."""
    with SysHost.boot() as host:
        yield host


@pytest.fixture(scope="module")
def sysfleet(syshost: SysHost, tmp_path_factory: pytest.TempPathFactory) -> SysFleet:
    return SysFleet(tmp_path_factory.mktemp("fleet"), [syshost])


@pytest.fixture(scope="module")
def first(sysfleet: SysFleet) -> Release:
    return sysfleet.release("1.0.0", 1)


@pytest.fixture(scope="module")
def deployed(syshost: SysHost, sysfleet: SysFleet, first: Release) -> SysHost:
    """The host with our loader attached in its real unit, put there by the collection's roles."""
    sysfleet.deploy(first)
    return syshost


@pytest.fixture(scope="session")
def evil(can_boot: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile program, compiled static: it runs in the unit's sandbox without a library."""
    binary = tmp_path_factory.mktemp("evil") / "ebpf-loader"
    source = Path(__file__).with_name("evil.c")
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", str(binary)]
    subprocess.run([*command, str(source)], check=True)
    return binary
