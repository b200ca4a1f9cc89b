# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often something is done: each alert once, and no more than so many in a time, of a kind and of one scope. Pure.

Time is given as seconds of a clock that never goes back.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

# Alerts that are remembered. An older one that comes again is bounded by the rates like a new one.
MAX_REMEMBERED = 10_000


class Limits(NamedTuple):
    """At most `actions` of one kind within `window` seconds, and of them `per_scope` of one scope.

    Kinds are counted apart, so that many reductions hold up no kill.
    """

    actions: int = 6
    per_scope: int = 2
    window: float = 600.0


class Rates:
    """What was done within the window, and which alerts were."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._done: deque[tuple[float, str, str]] = deque()
        self._alerts: dict[str, None] = {}

    def known(self, alert: str) -> bool:
        """Was that done for this very alert?"""
        return alert in self._alerts

    def take(self, alert: str, kind: str, scope: str, now: float) -> float:
        """Count an action and remember its alert, and return 0; or count nothing, and return the seconds to wait."""
        while self._done and self._done[0][0] <= now - self._limits.window:
            self._done.popleft()
        alike = [(at, one) for at, of, one in self._done if of == kind]
        every, own = [at for at, _one in alike], [at for at, one in alike if one == scope]
        waits = [
            times[len(times) - most] + self._limits.window - now
            for times, most in ((every, self._limits.actions), (own, self._limits.per_scope))
            if len(times) >= most
        ]
        if waits:
            return max(1.0, math.ceil(max(waits)))
        self._done.append((now, kind, scope))
        self._alerts[alert] = None
        if len(self._alerts) > MAX_REMEMBERED:
            del self._alerts[next(iter(self._alerts))]
        return 0.0
