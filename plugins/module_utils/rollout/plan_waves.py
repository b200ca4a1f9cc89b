# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many hosts change at once: the batches of a stage within their shares, and how they grow. Pure.

A batch has at most `fleet_percent` of the fleet, and at most `cell_percent` of each cell, both rounded down; a
share of less than one host is one host. The fleet is every host that the plan may change: neither left out nor
held back. A batch of canaries, or of hosts that stand alone, is small besides; a wave (any other batch) is at most
`growth` times the largest batch before it, rounded up, or `growth` times a small batch where it is the first.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any, Iterable, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_hosts import Host, Json, read_value

# Most hosts that meet a release at once where nothing is known of how their kind takes it.
SMALL_BATCH = 5
GROWTH = "growth"
FLEET_PERCENT = "fleet_percent"
CELL_PERCENT = "cell_percent"
DEFAULTS: dict[str, Any] = {GROWTH: 2, FLEET_PERCENT: 10, CELL_PERCENT: 25}
READERS: dict[str, values.Reader] = {
    GROWTH: values.decimal(1, 1000),
    FLEET_PERCENT: values.whole(1, 100),
    CELL_PERCENT: values.whole(1, 100),
}


class Waves(NamedTuple):
    """Bounds of a batch: a factor of 1 or more, and two percentages from 1 to 100."""

    growth: Fraction
    fleet_percent: int
    cell_percent: int


def read_waves(where: str, given: Json, otherwise: Waves | None = None) -> Waves:
    """The bounds that are given by name; one that is missing or null is that of `otherwise`, or its default.

    Raises PlanError with `where` and the name for a value that is refused.
    """
    base = {**DEFAULTS, **({} if otherwise is None else otherwise._asdict())}
    found = {
        name: base[name] if given.get(name) is None else read_value(reader, where + name, given[name])
        for name, reader in READERS.items()
    }
    # By its digits: 1.1 is eleven tenths and not the binary fraction beside it.
    growth = found[GROWTH] if isinstance(found[GROWTH], Fraction) else Fraction(Decimal(str(found[GROWTH])))
    return Waves(growth, found[FLEET_PERCENT], found[CELL_PERCENT])


class Fleet(NamedTuple):
    """How many hosts the plan may change, in all and by cell."""

    hosts: int
    cells: dict[str, int]


def fleet_of(hosts: Sequence[Host]) -> Fleet:
    """The fleet of which a batch has a share."""
    return Fleet(len(hosts), dict(Counter(host.cell for host in hosts)))


def share(hosts: int, percent: int) -> int:
    """So many of `hosts` are `percent` of them: rounded down, and one at least."""
    return max(1, hosts * percent // 100)


def wave_size(waves: Waves, largest: int) -> int:
    """Most hosts of a wave after a largest batch of so many; 0 where no batch is before it."""
    return math.ceil(waves.growth * (largest or SMALL_BATCH))


class Size(NamedTuple):
    """What bounds the batches of one stage beside its shares.

    `most` is the stage's own or the fleet's `max_batch`, if any; a stage that does not `grow` has no other bound.
    """

    most: int | None
    grows: bool
    waves: Waves


def batches_of(groups: Iterable[Sequence[Host]], size: Size, fleet: Fleet, largest: int) -> list[list[Host]]:
    """The batches of a stage in their sequence, each host once; no batch spans two groups.

    Hosts keep their sequence, but one whose cell has its share in a batch already waits for the next one. `largest`
    is the size of the largest batch of earlier stages, 0 where there is none.
    """
    found: list[list[Host]] = []
    quota = {cell: share(count, size.waves.cell_percent) for cell, count in fleet.cells.items()}
    bound = min(share(fleet.hosts, size.waves.fleet_percent), size.most or fleet.hosts)
    for group in groups:
        waiting = _Waiting(group)
        while waiting:
            most = min(bound, wave_size(size.waves, largest)) if size.grows else bound
            found.append(waiting.take(most, quota))
            largest = max(largest, len(found[-1]))
    return found


class _Waiting:
    """Hosts that wait for their batch: a queue for each cell, and a heap of their first ones by the place in the group.

    So a batch costs what it takes, however many hosts and cells wait.
    """

    def __init__(self, group: Sequence[Host]) -> None:
        self._cells: dict[str, list[tuple[int, Host]]] = {}
        for place, host in reversed(list(enumerate(group))):
            self._cells.setdefault(host.cell, []).append((place, host))
        self._heads = [(queue[-1][0], cell) for cell, queue in self._cells.items()]
        heapq.heapify(self._heads)

    def __bool__(self) -> bool:
        return bool(self._heads)

    def take(self, most: int, quota: dict[str, int]) -> list[Host]:
        """The next batch: one host at least, as every quota is one at least."""
        batch: list[Host] = []
        used: Counter[str] = Counter()
        full: list[tuple[int, str]] = []
        while self._heads and len(batch) < most:
            place, cell = heapq.heappop(self._heads)
            if used[cell] == quota[cell]:
                full.append((place, cell))
                continue
            used[cell] += 1
            queue = self._cells[cell]
            batch.append(queue.pop()[1])
            if queue:
                heapq.heappush(self._heads, (queue[-1][0], cell))
        for head in full:
            heapq.heappush(self._heads, head)
        return batch
