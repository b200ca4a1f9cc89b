# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is one sample larger than another? A rank test, which no outlier and no distribution fools."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from typing import Sequence


def median(values: Sequence[int]) -> int:
    """The middle value, the mean of the two middle ones rounded down; the sequence is not empty."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2


def rank_test(left: Sequence[int], right: Sequence[int]) -> tuple[int, int]:
    """(one-sided p of `left` being no larger, Cliff's delta), both in ppm.

    Mann-Whitney's U with the normal approximation, corrected for ties and continuity; good
    from about five values a side. Delta runs from -1000000 (all smaller) to 1000000 (all larger).
    """
    ordered = sorted(right)
    # Smaller values of `right` less larger ones, of each of `left`: by search, as pairs are a fleet's square.
    wins = sum(bisect_left(ordered, a) + bisect_right(ordered, a) - len(ordered) for a in left)
    pairs = len(left) * len(right)
    spread = _spread(left, right)
    # U less its mean is half of wins less losses; 0.5 corrects for continuity.
    z = (wins / 2 - 0.5) / spread if spread > 0 else 0.0
    p = 0.5 * math.erfc(z / math.sqrt(2)) if spread > 0 else 1.0
    return round(p * 1_000_000), wins * 1_000_000 // pairs


def _spread(left: Sequence[int], right: Sequence[int]) -> float:
    """Standard deviation of U, less for ties."""
    both = [*left, *right]
    total = len(both)
    ties = sum(count**3 - count for count in Counter(both).values())
    variance = len(left) * len(right) / 12 * (total + 1 - ties / (total * (total - 1)))
    return math.sqrt(max(0.0, variance))
