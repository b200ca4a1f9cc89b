# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller dies by kill -9 at ten random points of a rollout, and each time the rollout is resumed.

EBPF_FLEET_SEED repeats a run: the seed is printed. EBPF_FLEET_KILLS is how many points there are.
"""

from __future__ import annotations

import os
import random

from tests.scenarios.invariant import LEASE_OVER, RUNS
from tests.scenarios.world import World

KILLS = int(os.environ.get("EBPF_FLEET_KILLS", "10"))
SEED = int(os.environ.get("EBPF_FLEET_SEED", str(random.SystemRandom().randrange(1 << 32))))
# Of a rollout that no one kills; measured below, and this at most.
LONGEST = 300.0


def open_rollout(world: World) -> str | None:
    """Id of the rollout that has not come to its end, as the ledger has it."""
    last = world.entries()[-1:]
    return None if not last or last[0].kind == "ended" else last[0].rollout


def test_controller_killed_at_ten_random_points(running: World) -> None:
    points = random.Random(SEED)
    print(f"EBPF_FLEET_SEED={SEED}")
    good = running.another()
    rollout = running.begin(good)
    played = rollout.wait()
    assert played.rc == 0, played.text
    whole, killed = min(played.seconds, LONGEST), 0
    good = running.another()
    while killed < KILLS:
        # A rollout that is resumed has less to do: a point is anywhere in what it would take from its start.
        before = len(running.entries())
        resumed = open_rollout(running)
        rollout = running.begin(good, **({"ebpf_fleet_resume": resumed} if resumed else {}))
        after = points.uniform(1, whole)
        try:
            played = rollout.wait_for(after)
        except TimeoutError:
            assert rollout.kill()
            killed += 1
            now = [one.kind for one in running.entries()]
            print(f"kill {killed}: {after:.1f} s of {whole:.1f} s, {len(now) - before} entries on, the last: {now[-1]}")
            # Each host runs the old release or the new one, whole, and perhaps on probation, which may be over.
            running.check(ends=dict.fromkeys(running.hosts, (RUNS, LEASE_OVER)), probation=True)
            continue
        assert played.rc == 0, played.text
        running.check(run=good)
        good = running.another()
    resumed = open_rollout(running)
    played = running.roll_out(good, **({"ebpf_fleet_resume": resumed} if resumed else {}))
    assert played.rc == 0, played.text
    running.check(run=good)
    assert running.entries()[-1].kind == "ended"
