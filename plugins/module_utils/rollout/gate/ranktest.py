# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is one sample larger than another? Rank tests, which no outlier and no distribution fools. Pure.

Two samples: Wilcoxon's rank sum, which is Mann and Whitney's U. Pairs: Wilcoxon's signed ranks. Both are exact by
dynamic programming up to EXACT values, also with ties (the distribution is then that of the mid-ranks as they are),
and normal above, corrected for ties and continuity. The size of a difference is Hodges and Lehmann's: the median of
all differences between the samples, or of all means of two differences within pairs. Sources: E. L. Lehmann,
Nonparametrics (1975), chapters 1 to 3; tests/unit/test_ranktest.py holds all of it against scipy.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import groupby
from statistics import NormalDist
from typing import NamedTuple, Sequence

# Values of both samples together, or pairs, up to which the distribution is counted out.
EXACT = 60
# Values of a sample of which the differences are made: of more, so many evenly spaced ones of the ordered sample.
DIFFERENCES_OF = 500
CONFIDENCE = 0.95
MILLION = 1_000_000


class RankTest(NamedTuple):
    """Whether `left` is larger than `right`, and by how much.

    `p` is the one-sided probability, from 0 to 1, of ranks as large where there is no difference; `statistic` is U
    (pairs of which `left` is the larger, ties counted by half) or the sum of the positive ranks; `effect_ppm` the
    rank-biserial correlation (Cliff's delta) from -1000000 (all smaller) to 1000000 (all larger); `shift` the
    difference in the values' own unit, within `low` and `high` at CONFIDENCE (both sides together; None where so few
    values give no bound). `exact` says how `p` was made.
    """

    p: float
    statistic: float
    effect_ppm: int
    shift: float
    low: float | None
    high: float | None
    exact: bool


def median(values: Sequence[int]) -> int:
    """The middle value, the mean of the two middle ones rounded down; the sequence is not empty."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2


def rank_sum(left: Sequence[float], right: Sequence[float], confidence: float = CONFIDENCE) -> RankTest:
    """Is `left` larger than `right`? Wilcoxon's rank sum; neither may be empty, every value is finite."""
    ordered = sorted(right)
    # Smaller values of `right` less larger ones, of each of `left`: by search, as pairs are a fleet's square.
    wins = sum(bisect_left(ordered, one) + bisect_right(ordered, one) - len(ordered) for one in left)
    pairs = len(left) * len(right)
    exact = len(left) + len(right) <= EXACT
    p = _exact_sum_p(left, right) if exact else _normal_sum_p(wins, left, right)
    shift, low, high = shift_of(left, right, confidence)
    # U is half of wins less losses, plus half of all pairs.
    return RankTest(p, (wins + pairs) / 2, wins * MILLION // pairs, shift, low, high, exact)


def signed_rank(differences: Sequence[float], confidence: float = CONFIDENCE) -> RankTest:
    """Are the differences of pairs larger than 0? Wilcoxon's signed ranks; pairs that are alike say nothing.

    Of differences that are all 0, and of none, p is 1.
    """
    told = [one for one in differences if one != 0]
    ranks = dict(zip(range(len(told)), doubled_ranks([abs(one) for one in told])))
    positive = sum(rank for at, rank in ranks.items() if told[at] > 0)
    total = sum(ranks.values())
    exact = len(told) <= EXACT
    p = _exact_signed_p(tuple(sorted(ranks.values())), positive) if exact else _normal_signed_p(told, positive)
    shift, low, high = _pseudomedian(list(differences), confidence)
    effect = (2 * positive - total) * MILLION // total if total else 0
    return RankTest(p, positive / 2, effect, shift, low, high, exact)


def least_p(left: int, right: int) -> float:
    """The least p that samples of these sizes can have: all of `left` above all of `right`, without ties."""
    return 1.0 / math.comb(left + right, left) if left > 0 and right > 0 else 1.0


# --- ranks ---------------------------------------------------------------------------------------


def doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, from 2 up; equal values share the middle of their ranks, so that all are whole."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    ranks = [0] * len(values)
    below = 0
    for _value, group in groupby(order, key=lambda at: values[at]):
        members = list(group)
        for at in members:
            ranks[at] = 2 * below + len(members) + 1
        below += len(members)
    return ranks


def _exact_sum_p(left: Sequence[float], right: Sequence[float]) -> float:
    ranks = doubled_ranks([*left, *right])
    return _upper_share(_sums_of_choices(tuple(sorted(ranks)), len(left)), sum(ranks[: len(left)]))


def _exact_signed_p(ranks: tuple[int, ...], positive: int) -> float:
    return _upper_share(_sums_of_subsets(ranks), positive)


def _upper_share(counts: Sequence[int], least: int) -> float:
    """Which part of all choices has a sum of at least `least`; `counts[s]` have a sum of s or more."""
    return counts[least] / counts[0] if least < len(counts) else 0.0


@lru_cache(maxsize=64)
def _sums_of_choices(ranks: tuple[int, ...], size: int) -> tuple[int, ...]:
    """How many choices of `size` ranks have a sum of at least 0, 1, 2, …

    A row of counts is one long integer with a field of `width` bits for each sum: adding a rank is one shift.
    """
    width = math.comb(len(ranks), size).bit_length() + 1
    rows = [1] + [0] * size
    for rank in ranks:
        for chosen in range(size, 0, -1):
            rows[chosen] += rows[chosen - 1] << (rank * width)
    return _at_least(rows[size], width, sum(ranks))


@lru_cache(maxsize=64)
def _sums_of_subsets(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """How many of all subsets of the ranks have a sum of at least 0, 1, 2, …"""
    width = len(ranks) + 2
    row = 1
    for rank in ranks:
        row += row << (rank * width)
    return _at_least(row, width, sum(ranks))


def _at_least(row: int, width: int, most: int) -> tuple[int, ...]:
    """The fields of a row, each with all those after it."""
    mask = (1 << width) - 1
    whole = row.to_bytes((width * (most + 1) + 7) // 8 + 1, "little")
    fields = []
    for at in range(most + 1):
        first = at * width
        part = int.from_bytes(whole[first // 8 : (first + width + 7) // 8 + 1], "little")
        fields.append(part >> (first % 8) & mask)
    for at in range(most - 1, -1, -1):
        fields[at] += fields[at + 1]
    return tuple(fields)


def _normal_sum_p(wins: int, left: Sequence[float], right: Sequence[float]) -> float:
    spread = _spread_of_sum(left, right)
    # U less its mean is half of wins less losses; 0.5 corrects for continuity.
    return _upper_tail((wins / 2 - 0.5) / spread) if spread > 0 else 1.0


def _spread_of_sum(left: Sequence[float], right: Sequence[float]) -> float:
    """Standard deviation of U, less for ties (Lehmann 1975, 1.35)."""
    both = sorted([*left, *right])
    total = len(both)
    variance = len(left) * len(right) / 12 * (total + 1 - _ties(both) / (total * (total - 1)))
    return math.sqrt(max(0.0, variance))


def _normal_signed_p(told: Sequence[float], doubled: int) -> float:
    """Of the sum of positive ranks, given twice (Lehmann 1975, 3.23)."""
    count = len(told)
    ties = _ties(sorted(abs(one) for one in told))
    spread = math.sqrt((count * (count + 1) * (2 * count + 1) - ties / 2) / 24)
    return _upper_tail((doubled / 2 - count * (count + 1) / 4 - 0.5) / spread)


def _ties(ordered: Sequence[float]) -> int:
    return sum(count**3 - count for count in (len(list(group)) for _value, group in groupby(ordered)))


def _upper_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))


# --- how much ------------------------------------------------------------------------------------


def shift_of(
    left: Sequence[float], right: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float | None, float | None]:
    """(by how much `left` is larger, and its bounds): the median of all differences and two of their order statistics.

    Lehmann 1975, 2.5: the bounds are the differences that stand C from either end, where C is the most for which
    P(U < C) is half of what the confidence leaves. Of a large sample its DIFFERENCES_OF quantiles are taken, the
    bounds then by the normal distribution of U of the whole samples.
    """
    few, others = quantiles(left), quantiles(right)
    differences = sorted(one - other for one in few for other in others)
    if len(left) + len(right) <= EXACT:
        depth = _exact_depth(len(left), len(right), confidence)
        share = depth / (len(left) * len(right))
    else:
        spread = math.sqrt(len(left) * len(right) * (len(left) + len(right) + 1) / 12)
        share = 0.5 - NormalDist().inv_cdf(0.5 + confidence / 2) * spread / (len(left) * len(right))
    return (_middle(differences), *_bounds(differences, math.floor(share * len(differences) + 1e-9)))


def quantiles(values: Sequence[float], most: int = DIFFERENCES_OF) -> list[float]:
    """The values in their order; of more than `most` so many, evenly spaced."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return ordered
    return [ordered[(2 * at + 1) * len(ordered) // (2 * most)] for at in range(most)]


@lru_cache(maxsize=256)
def _exact_depth(left: int, right: int, confidence: float) -> int:
    """The most C for which P(U < C) is at most half of what the confidence leaves; 0 where there is none."""
    counts = _sums_of_choices(tuple(range(2, 2 * (left + right) + 1, 2)), left)
    least = left * (left + 1)
    return _depth(counts, least, left * right, confidence)


def _depth(counts: Sequence[int], least: int, most: int, confidence: float) -> int:
    """By the doubled sums' counts, of which `least` is the smallest sum."""
    total, tail = counts[0], (1 - confidence) / 2
    depth = 0
    while depth < most and (total - counts[least + 2 * (depth + 1)]) <= tail * total:
        depth += 1
    return depth


def _pseudomedian(differences: list[float], confidence: float) -> tuple[float, float | None, float | None]:
    """(the median of all means of two differences, one with itself too, and its bounds); Lehmann 1975, 3.4."""
    if not differences:
        return 0.0, None, None
    count = len(differences)
    few = quantiles(differences)
    means = sorted((few[at] + few[to]) / 2 for at in range(len(few)) for to in range(at, len(few)))
    pairs = count * (count + 1) / 2
    if count <= EXACT:
        counts = _sums_of_subsets(tuple(range(2, 2 * count + 1, 2)))
        share = _depth(counts, 0, count * (count + 1) // 2, confidence) / pairs
    else:
        spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        share = 0.5 - NormalDist().inv_cdf(0.5 + confidence / 2) * spread / pairs
    return (_middle(means), *_bounds(means, math.floor(share * len(means) + 1e-9)))


def _middle(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _bounds(ordered: Sequence[float], depth: int) -> tuple[float | None, float | None]:
    return (None, None) if depth < 1 else (ordered[depth - 1], ordered[-depth])
