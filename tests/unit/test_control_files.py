# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules read control files as the loader does (tests/loader/test_control_files.py has the same table)."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.desired import parse_desired, render_desired
from ansible_collections.ebpf.fleet.plugins.module_utils.lease import UNUSABLE, Lease, parse_lease, render_lease

from tests.support.odd_documents import DESIRED, LEASE, Odd

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
