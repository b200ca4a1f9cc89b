# SPDX-License-Identifier: GPL-3.0-or-later
"""The rank tests against scipy, and against what can be counted by hand."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import ranktest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.ranktest import rank_sum, signed_rank
from scipy import stats

EXACT_PERMUTATIONS = stats.PermutationMethod(n_resamples=10**7)


def untied(seed: int, left: int, right: int) -> tuple[list[float], list[float]]:
    chance = random.Random(seed)
    return [chance.gauss(0.5, 1) for _one in range(left)], [chance.gauss(0, 1) for _one in range(right)]


def tied(seed: int, left: int, right: int, kinds: int) -> tuple[list[int], list[int]]:
    chance = random.Random(seed)
    return [chance.randrange(kinds) for _one in range(left)], [chance.randrange(kinds) for _one in range(right)]


@pytest.mark.parametrize(("left", "right"), [(1, 1), (1, 20), (5, 5), (8, 3), (20, 20), (40, 20), (10, 50)])
def test_the_rank_sum_is_scipys_where_nothing_is_tied(left: int, right: int) -> None:
    for seed in range(5):
        first, second = untied(seed, left, right)
        ours, theirs = rank_sum(first, second), stats.mannwhitneyu(first, second, alternative="greater", method="exact")
        assert ours.exact and ours.p == pytest.approx(float(theirs.pvalue), rel=1e-9, abs=1e-15)
        assert ours.statistic == float(theirs.statistic)
        # The rank-biserial correlation by its definition.
        assert ours.effect_ppm == pytest.approx((2 * ours.statistic / (left * right) - 1) * 10**6, abs=1)


@pytest.mark.parametrize(("left", "right", "kinds"), [(3, 4, 2), (5, 5, 3), (6, 6, 4), (7, 4, 1), (4, 8, 5)])
def test_with_ties_it_is_the_share_of_all_permutations(left: int, right: int, kinds: int) -> None:
    for seed in range(5):
        first, second = tied(seed, left, right, kinds)
        theirs = stats.mannwhitneyu(first, second, alternative="greater", method=EXACT_PERMUTATIONS)
        assert rank_sum(first, second).p == pytest.approx(float(theirs.pvalue), rel=1e-9)


@pytest.mark.parametrize(("left", "right", "kinds"), [(41, 20, 10**9), (30, 31, 8), (200, 20, 3), (100, 300, 40)])
def test_above_sixty_values_it_is_scipys_normal_distribution_with_ties(left: int, right: int, kinds: int) -> None:
    for seed in range(5):
        first, second = tied(seed, left, right, kinds)
        ours = rank_sum(first, second)
        theirs = stats.mannwhitneyu(first, second, alternative="greater", method="asymptotic")
        assert not ours.exact and ours.p == pytest.approx(float(theirs.pvalue), rel=1e-9)


def test_both_ways_agree_at_the_boundary() -> None:
    """60 values are counted out, 61 are not, and the distribution does not jump."""
    first, second = untied(3, 30, 30)
    exact, normal = rank_sum(first, second), rank_sum(first, [*second, -9.0])
    assert (exact.exact, normal.exact) == (True, False)
    approximate = float(stats.mannwhitneyu(first, second, alternative="greater", method="asymptotic").pvalue)
    assert exact.p == pytest.approx(approximate, rel=0.05)


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40, 60])
def test_the_signed_ranks_are_scipys_where_nothing_is_tied(count: int) -> None:
    for seed in range(5):
        differences, _none = untied(seed, count, 0)
        ours, theirs = signed_rank(differences), stats.wilcoxon(differences, alternative="greater", method="exact")
        assert ours.exact and ours.p == pytest.approx(float(theirs.pvalue), rel=1e-9)
        assert ours.statistic == float(theirs.statistic)


@pytest.mark.parametrize("count", [3, 6, 11])
def test_signed_ranks_with_ties_are_the_share_of_all_signs(count: int) -> None:
    for seed in range(5):
        chance = random.Random(seed)
        differences = [chance.choice([-3, -2, -1, 1, 2, 3]) for _one in range(count)]
        ranks = stats.rankdata([abs(one) for one in differences])
        seen = sum(rank for rank, one in zip(ranks, differences) if one > 0)
        sums = [sum(rank for rank, up in zip(ranks, signs) if up) for signs in itertools.product((0, 1), repeat=count)]
        assert signed_rank(differences).p == pytest.approx(sum(one >= seen for one in sums) / len(sums), rel=1e-9)


@pytest.mark.parametrize("kinds", [10**9, 20])
def test_above_sixty_pairs_it_is_scipys_normal_distribution(kinds: int) -> None:
    first, second = tied(1, 90, 90, kinds)
    differences = [one - other for one, other in zip(first, second)]
    ours = signed_rank(differences)
    theirs = stats.wilcoxon(differences, alternative="greater", method="asymptotic", correction=True,
                            zero_method="wilcox")  # fmt: skip
    assert not ours.exact and ours.p == pytest.approx(float(theirs.pvalue), rel=1e-9)


def test_pairs_that_are_alike_show_nothing() -> None:
    assert [signed_rank(one).p for one in ([], [0, 0, 0])] == [1.0, 1.0]
    assert signed_rank([0, 0, 1, 2, 3]).p == signed_rank([1, 2, 3]).p == 1 / 8
    assert signed_rank([1, 2, 3]).effect_ppm == 10**6 and signed_rank([-1, -2]).effect_ppm == -(10**6)


def test_all_above_all_has_the_least_p() -> None:
    for left, right in ((1, 1), (3, 20), (5, 5), (20, 20)):
        found = rank_sum(range(100, 100 + left), range(right))
        assert found.p == pytest.approx(ranktest.least_p(left, right), rel=1e-12) and found.effect_ppm == 10**6
        assert rank_sum(range(right), range(100, 100 + left)).p == 1
    assert rank_sum([1] * 5, [1] * 5)[:3] == (1.0, 12.5, 0)
    assert rank_sum([7] * 40, [7] * 40).p == 1
    assert [ranktest.least_p(*one) for one in ((0, 5), (5, 0))] == [1.0, 1.0]


# --- how much --------------------------------------------------------------------------------------


def test_the_shift_is_the_median_of_all_differences() -> None:
    first, second = untied(4, 9, 7)
    differences = sorted(one - other for one in first for other in second)
    assert rank_sum(first, second).shift == differences[31]
    moved = rank_sum([one + 100 for one in first], second)
    assert moved.shift == pytest.approx(rank_sum(first, second).shift + 100)
    assert rank_sum([5], [2]).shift == 3 and rank_sum([5, 7], [2]).shift == 4


def test_the_pseudomedian_is_the_median_of_all_means_of_two() -> None:
    differences, _none = untied(5, 13, 0)
    means = [(differences[at] + differences[to]) / 2 for at in range(13) for to in range(at, 13)]
    assert signed_rank(differences).shift == pytest.approx(sorted(means)[45])


def test_the_bounds_are_those_that_the_test_would_not_refuse() -> None:
    """Shift one sample by a little more than a bound, and the test at half of what is left over changes its mind."""
    for seed, (left, right) in enumerate([(5, 5), (8, 12), (20, 20), (45, 30)]):
        first, second = untied(seed, left, right)
        found = rank_sum(first, second)
        assert found.low is not None and found.high is not None and found.low < found.shift < found.high
        inside = rank_sum([one - found.low - 1e-9 for one in first], second).p
        outside = rank_sum([one - found.low + 1e-9 for one in first], second).p
        # Where the distribution is approximated the two may stand on one side of the boundary.
        slack = 1.1 if left + right > ranktest.EXACT else 1
        assert outside <= 0.025 * slack and inside * slack > 0.025


def test_so_few_values_have_no_bounds() -> None:
    assert (rank_sum([1, 2], [3, 4]).low, rank_sum([1, 2], [3, 4]).high) == (None, None)
    assert (signed_rank([1, 2, 3]).low, signed_rank([1, 2, 3]).high) == (None, None)


def test_the_bounds_cover_the_truth_as_often_as_they_say() -> None:
    hits: dict[str, int] = {"pair": 0, "sum": 0}
    for seed in range(400):
        first, second = untied(seed, 10, 10)
        found, own = rank_sum(first, second), signed_rank(first)
        hits["sum"] += _within(found, 0.5)
        hits["pair"] += _within(own, 0.5)
    assert all(370 <= count <= 398 for count in hits.values()), hits


def _within(found: Any, truth: float) -> bool:
    return bool(found.low <= truth <= found.high)


def test_a_fleet_costs_little() -> None:
    """Ten thousand hosts against a thousand: the differences are made of quantiles, the ranks of all."""
    first, second = untied(9, 10_000, 1_000)
    found = rank_sum(first, second)
    assert found.shift == pytest.approx(0.5, abs=0.1) and found.p < 1e-9
    assert len(ranktest.quantiles(first)) == ranktest.DIFFERENCES_OF
    assert ranktest.quantiles([3, 1, 2]) == [1, 2, 3]


def test_the_median() -> None:
    assert ranktest.median([3, 1, 2]) == 2
    assert ranktest.median([4, 1]) == 2
