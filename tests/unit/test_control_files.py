# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules read control files as the loader does (tests/loader/test_control_files.py has the same table)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import orders as bcc_orders
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import orders, scope
from ansible_collections.ebpf.fleet.plugins.module_utils.release import mark as mk
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import parse_desired, render_desired
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import UNUSABLE, Lease, parse_lease, render_lease
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import standing

from tests.support.odd_documents import DESIRED, LEASE, MARK, Odd
from tests.support.odd_orders import FAMILIES, ORDERS, named

FEATURES = {"runqlat": {"enabled": True, "sample_every": 7}}
GRANTED = Lease("d" * 64, "boot", 10**15, "me")


@pytest.mark.parametrize("odd", DESIRED, ids=lambda odd: odd.name)
def test_desired(odd: Odd) -> None:
    good = render_desired("d" * 64, FEATURES).replace(f'"{"d" * 64}"', "null").encode()
    found = parse_desired(odd.make(good))
    assert found == (FEATURES if odd.readable else None)


@pytest.mark.parametrize("odd", LEASE, ids=lambda odd: odd.name)
def test_lease(odd: Odd) -> None:
    found = parse_lease(odd.make(render_lease(GRANTED).encode()))
    assert found is not None and (found == UNUSABLE) is not odd.readable


@pytest.mark.parametrize("name", ORDERS)
def test_order(name: str, tmp_path: Path) -> None:
    """As the plan of a rollout reads the folder."""
    (tmp_path / named(name, "6.1", "debian-6.1")).touch()
    found = orders.orders_in(tmp_path)
    off = any(standing._concerns(order, ("6.1", "debian-6.1"), ["runqlat"]) for order in found)
    assert off is ORDERS[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_may_be_called(name: str) -> None:
    """As a person writes a scope, and as the BCC collector reads the folder."""
    assert (scope.refusal(f"kernel_family={name}", "engaged") == "") is FAMILIES[name]
    assert (bcc_orders.judge_order(f"family.{name}", ["4.4"], []) is False) is FAMILIES[name]


@pytest.mark.parametrize("odd", MARK, ids=lambda odd: odd.name)
def test_mark(odd: Odd) -> None:
    good = mk.render_mark(mk.Mark(7, "a" * 64, (), 5)).encode()
    found = mk.parse_mark(odd.make(good))
    assert found is not None and (found == mk.UNREADABLE) is not odd.readable
