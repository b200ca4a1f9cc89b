# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the error rate of a whole rollout is divided over everything that is tested in it. Pure.

A rollout in which nothing differs is to be stopped by a rank test with a probability of at most `error_rate`. It is
divided evenly over the batches and the checks (Bonferroni: the sum of what the tests spend is the whole, whatever
depends on what). What one check may spend in one batch is divided over the readings of that batch by the spending
function of Lan and DeMets (Biometrika 70, 1983) that gives O'Brien and Fleming's boundaries: next to nothing in early
readings, which only a plain difference passes, nearly all of it in the last one. A reading tests with what it
adds, so that the sum over the readings is what the batch may spend, however the readings depend on each other.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

DEFAULT_ERROR_RATE = 0.05
# More than a rollout of ten thousand hosts has: what is not said costs power, not the rate.
DEFAULT_BATCHES = 50
DEFAULT_READINGS = 1


class Budget(NamedTuple):
    """What a rollout may spend, and where in it this judgement stands.

    `error_rate` is a probability above 0 and below 1; `batches` how many batches of the rollout are tested, `readings`
    how often each is at most, `reading` which of them this is, from 1.
    """

    error_rate: float = DEFAULT_ERROR_RATE
    batches: int = DEFAULT_BATCHES
    readings: int = DEFAULT_READINGS
    reading: int = 1


def alpha(budget: Budget, checks: int) -> float:
    """The probability at which one of `checks` tests of this reading calls a difference; 0 beyond the plan."""
    if checks < 1 or not 1 <= budget.reading <= budget.readings:
        return 0.0
    own = budget.error_rate / (budget.batches * checks)
    return spent(own, budget.reading / budget.readings) - spent(own, (budget.reading - 1) / budget.readings)


def spent(own: float, time: float) -> float:
    """What of `own` is spent at `time`, from 0 (nothing) to 1 (all): 2 - 2 Φ(z / √time), z the upper own/2 quantile."""
    if time <= 0:
        return 0.0
    if time >= 1:
        return own
    z = NormalDist().inv_cdf(1 - own / 2)
    return math.erfc(z / math.sqrt(2 * time))
