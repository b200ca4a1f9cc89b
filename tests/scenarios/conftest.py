# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts with systemd in namespaces for each file, and a ledger of their own. Where there can be none, tests skip."""

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
