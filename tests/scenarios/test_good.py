# SPDX-License-Identifier: GPL-3.0-or-later
"""A good release reaches every host."""

from __future__ import annotations

from tests.scenarios.world import World


def test_good_release_everywhere(world: World) -> None:
    first = world.release()
    played = world.roll_out(first)
    assert played.rc == 0, played.text
    world.check(run=first)
    second = world.release()
    played = world.roll_out(second)
    assert played.rc == 0, played.text
    assert world.begun() == [host.name for host in world.hosts] and world.verdicts() == ["pass", "pass"]
    world.check(run=second)
