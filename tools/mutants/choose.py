# SPDX-License-Identifier: GPL-3.0-or-later
"""Which faults of an area are tried: a draw with a seed, every kind of fault in turn."""

from __future__ import annotations

import random
from typing import Mapping, Sequence

from tools.mutants.fault import Fault

# So few that an area's share means nothing would be no sample.
LEAST = 12


def shares(candidates: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of `count` faults each area gets: LEAST, and of the rest in proportion to what it has.

    No area gets more than it has. Rounding goes up, so that together they are `count` at least, where there are
    so many.
    """
    base = {area: min(LEAST, have) for area, have in candidates.items()}
    room = {area: have - base[area] for area, have in candidates.items()}
    rest, all_room = max(0, count - sum(base.values())), sum(room.values())
    more = {area: -(-rest * have // all_room) if all_room else 0 for area, have in room.items()}
    return {area: min(have, base[area] + more[area]) for area, have in candidates.items()}


def order(faults: Sequence[Fault], seed: int) -> list[Fault]:
    """All of them, drawn: one of each operator, then a second of each, and so on; equal seeds give equal orders."""
    kinds: dict[str, list[Fault]] = {}
    for fault in sorted(faults):
        kinds.setdefault(fault.operator, []).append(fault)
    for operator, found in kinds.items():
        random.Random(f"{seed}/{operator}").shuffle(found)
    names = sorted(kinds)
    random.Random(seed).shuffle(names)
    longest = max(map(len, kinds.values()), default=0)
    return [kinds[name][turn] for turn in range(longest) for name in names if turn < len(kinds[name])]
