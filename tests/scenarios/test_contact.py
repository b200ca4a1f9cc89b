# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that cannot be reached: before the start, while it is changed, and when it has the new release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.invariant import LEASE_OVER
from tests.scenarios.world import World, at_once, has_release, plug, runs, seen, unplug, until

ACTIVATION, WINDOW = 20, 4
LEASE = 45
# Both in one batch: the neighbour of the one that is lost goes back.
TOGETHER = {"ebpf_fleet_max_batch": 2, "ebpf_fleet_activation_timeout": ACTIVATION, "ebpf_fleet_return_timeout": 15,
            "ebpf_fleet_rollout_lease_seconds": LEASE}  # fmt: skip


@pytest.fixture
def plugged(running: World) -> Iterator[World]:
    yield running
    for host in running.hosts:
        plug(host)


def test_unreachable_before(plugged: World) -> None:
    good = plugged.another()
    one, other = plugged.hosts
    unplug(other)
    held = plugged.roll_out(good)
    assert held.rc == 2 and f"do not answer: {other.name}" in held.text, held.text
    assert not has_release(one, good), "without a word about it, one host that is silent holds the rollout"
    played = plugged.roll_out(good, ebpf_fleet_unreachable_limit=1)
    assert played.rc == 0, played.text
    assert plugged.begun() == [one.name]
    assert f"{other.name}" in played.text and "unreachable" in played.text
    plug(other)
    plugged.check(run={one: good, other: plugged.first})


def test_unreachable_during(plugged: World) -> None:
    good = plugged.another()
    one, other = plugged.hosts
    with at_once(lambda: has_release(one, good) and not runs(one, good), lambda: unplug(one)) as lost:
        played = plugged.roll_out(good, **TOGETHER)
    assert lost, "the host was not lost while it was changed; nothing was tested"
    assert played.rc == 2 and "no later batch was started" in played.text, played.text
    assert plugged.verdicts() != ["pass"]
    # It is alone: the release that it got is off when its lease is over, or it came to none and keeps its own.
    until(lambda: not runs(one, good) or seen(one)["status"]["reason_code"] == "EF_LEASE_EXPIRED", LEASE + 30,
          f"{one.name} runs a release that was not confirmed")  # fmt: skip
    ends: dict[Any, tuple[str, ...]] = {one: (LEASE_OVER,)} if runs(one, good) else {}
    plugged.check(run={other: plugged.first}, ends=ends)
    plug(one)
    played = plugged.roll_out(good)
    assert played.rc == 0, played.text
    plugged.check(run=good)


def test_unreachable_after(plugged: World) -> None:
    good = plugged.another()
    one, other = plugged.hosts
    with at_once(lambda: runs(one, good), lambda: unplug(one)) as lost:
        played = plugged.roll_out(good, **TOGETHER)
    assert lost, "the host was not lost; nothing was tested"
    assert played.rc == 2 and "no later batch was started" in played.text, played.text
    until(lambda: seen(one)["status"]["reason_code"] == "EF_LEASE_EXPIRED", LEASE + 30, f"{one.name} does not detach")
    plugged.check(run={one: good, other: plugged.first}, ends={one: (LEASE_OVER,)})
    plug(one)
    # The same rollout brings it back: the release is attached again, judged and confirmed.
    played = plugged.roll_out(good)
    assert played.rc == 0, played.text
    plugged.check(run=good)
