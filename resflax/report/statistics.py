"""Spread over seeds, and tests of whether two variants differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_EXACT_UP_TO = 16
"""The most pairs for which all 2^n sign flips (65,536) are counted; for more, flips are sampled."""
_SAMPLES = 20_000
_ROUNDING = 1e-9
"""Relative difference up to which numbers count as equal; rounding causes far smaller ones."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a number over seeds."""

    n: int
    """Number of values."""
    mean: float
    std: float | None
    """Standard deviation of the sample (with the divisor n - 1); None for a single value."""


def compute_spread(values: Sequence[float]) -> Spread | None:
    """Mean and standard deviation of the values; None if there are no values."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), std)


@dataclass(frozen=True)
class Comparison:
    """Difference of two variants, paired by seed."""

    n: int
    """Number of seeds that both variants have."""
    mean: float
    """Mean difference, second minus first."""
    interval: tuple[float, float]
    """95 % confidence interval of the mean difference (Student's t).

    Both ends are nan for one pair, and if all differences are equal, because an interval needs
    variance.
    """
    p_t: float
    """Two-sided p of the paired t-test; nan for one pair or if all differences are equal."""
    p_exact: float
    """Two-sided p of the sign-flip permutation test, as `sign_flip_p` computes it."""


def compare_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison | None:
    """Compares the values of two variants, given by seed; None if they have no seed in common."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    before = np.array([first[seed] for seed in seeds])
    after = np.array([second[seed] for seed in seeds])
    differences = after - before
    mean = float(differences.mean())
    low = high = p_t = math.nan
    if np.ptp(differences) > _ROUNDING * np.abs([before, after]).max():  # else there is no t
        test = stats.ttest_rel(after, before)
        low, high = map(float, test.confidence_interval(0.95))
        p_t = float(test.pvalue)
    return Comparison(len(seeds), mean, (low, high), p_t, sign_flip_p(differences))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the sign-flip permutation test of paired differences.

    There are 2^n ways to swap the two variants within pairs. p is the fraction of these ways for
    which the mean difference, without its sign, is at least as large as the observed one. So p is
    at least 2 / 2^n. For more than 16 pairs, only 20,000 ways are used: the observed one, and
    random ones from a fixed seed.

    Args:
      differences: (n,) differences, n >= 1.
    """
    n = len(differences)
    if n == 1:
        return 1.0  # both signs give the same size; scipy refuses a single pair
    # The sum of the same numbers in another order may differ in its last bits.
    least = abs(differences.sum()) - _ROUNDING * np.abs(differences).sum()

    def is_as_large(flipped: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.abs(flipped.sum(axis=axis)) >= least, dtype=float)

    test = stats.permutation_test(
        (differences,),
        is_as_large,
        permutation_type="samples",
        alternative="greater",
        # scipy adds the observed differences to the random ones.
        n_resamples=math.inf if n <= _EXACT_UP_TO else _SAMPLES - 1,
        rng=0,
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects the p-values of a family of tests for their number (Holm 1979).

    If the tests whose corrected p is below 0.05 are taken as differences, then one or more of them
    are by mere chance with a probability below 0.05. The smallest of m p-values is multiplied by m,
    the next one by m - 1, and so on; none becomes smaller than one before it, or larger than 1.

    Args:
      p_values: the p-values, of which those that are nan stay nan and do not count.
    """
    adjusted = list(p_values)
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i]
    )
    least = 0.0
    for rank, i in enumerate(order):
        least = adjusted[i] = max(least, min(1.0, (len(order) - rank) * p_values[i]))
    return adjusted
