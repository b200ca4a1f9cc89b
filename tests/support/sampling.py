# SPDX-License-Identifier: GPL-3.0-or-later
"""Some of many cases, the same ones each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly(cases: Sequence[T], most: int) -> list[T]:
    """At most `most` of the cases, 1 at least: the first, the last and those at even steps between."""
    if most < 1:
        raise ValueError(f"{most} cases: take one at least")
    if len(cases) <= most:
        return list(cases)
    if most == 1:
        return [cases[0]]
    return [cases[round(step * (len(cases) - 1) / (most - 1))] for step in range(most)]
