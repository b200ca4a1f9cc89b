# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller dies by kill -9 at ten random points of a rollout, and each time the rollout is resumed.

EBPF_FLEET_SEED repeats a run: the seed is printed. EBPF_FLEET_KILLS is how many points there are.
"""

from __future__ import annotations

import os
import random
import time

from tests.scenarios.invariant import LEASE_OVER, RUNS
from tests.scenarios.world import World

KILLS = int(os.environ.get("EBPF_FLEET_KILLS", "10"))
SEED = int(os.environ.get("EBPF_FLEET_SEED", str(random.SystemRandom().randrange(1 << 32))))
# A point is so many entries of the ledger on (a batch writes six, before and after which all of it happens), and so
# many seconds after that: then a slow machine is no more often killed while it plans than a fast one.
MOST_ENTRIES = 12
MOST_SECONDS = 15.0


def open_rollout(world: World) -> str | None:
    """Id of the rollout that has not come to its end, as the ledger has it."""
    last = world.entries()[-1:]
    return None if not last or last[0].kind == "ended" else last[0].rollout


def test_controller_killed_at_ten_random_points(running: World) -> None:
    points = random.Random(SEED)
    print(f"EBPF_FLEET_SEED={SEED}")
    killed = 0
    good = running.another()
    while killed < KILLS:
        before = len(running.entries())
        resumed = open_rollout(running)
        entries, after = points.randint(0, MOST_ENTRIES), points.uniform(0.5, MOST_SECONDS)
        rollout = running.begin(good, **({"ebpf_fleet_resume": resumed} if resumed else {}))
        while rollout.process.poll() is None and len(running.entries()) - before < entries:
            time.sleep(0.1)
        try:
            played = rollout.wait_for(after)
        except TimeoutError:
            assert rollout.kill()
            killed += 1
            now = [one.kind for one in running.entries()]
            print(f"kill {killed}: {after:.1f} s after entry {entries}, {len(now) - before} on; the last: {now[-1:]}")
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
