# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts with systemd in namespaces for each file, and their ledger. Where there can be none, tests skip."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.scenarios.world import World
from tests.support.syshost import SysHost, why_not


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two hosts that nothing was ever deployed to."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(SysHost.boot()) for _ in range(2)]
        yield World(tmp_path_factory.mktemp("world"), hosts)


@pytest.fixture(scope="module")
def running(world: World) -> World:
    """The same hosts with the first release of exec_events on each, put there by the roles."""
    world.fleet.deploy(world.release(), **world.deployed)
    world.check(run=world.first)
    return world


@pytest.fixture(autouse=True)
def again(request: pytest.FixtureRequest) -> Iterator[None]:
    """A scenario of a file begins where the one before it began: each host runs the first release."""
    yield
    if "running" in request.fixturenames:
        world: World = request.getfixturevalue("running")
        world.back()
