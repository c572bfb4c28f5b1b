"""Means over seeds, and whether two variants differ."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Spread:
    """A figure over seeds."""

    n: int
    mean: float
    std: float | None
    """The sample's standard deviation (n - 1); None of a single run."""


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and standard deviation; None of no values."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), std)


@dataclass(frozen=True)
class Comparison:
    """Two variants, paired by seed."""

    n: int
    """Seeds that both have."""
    mean: float
    """Mean difference, second minus first."""
    interval: tuple[float, float]
    """95 % confidence interval of the mean difference (Student's t); nan for one pair."""
    p_t: float
    """Two-sided p of the paired t-test; nan where it does not exist."""
    p_exact: float
    """Two-sided p of the exact sign-flip permutation test: the part of all 2^n ways to swap the
    two within pairs whose mean difference is as large. At least 2 / 2^n."""


_EXACT_UP_TO = 16  # pairs: 65,536 ways; beyond, the signs are sampled
_SAMPLES = 20_000


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison | None:
    """Compares errors by seed; None if they have no seed in common."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = np.array([second[seed] - first[seed] for seed in seeds])
    n, mean = len(differences), float(differences.mean())
    low = high = p = math.nan
    if n > 1:
        error = float(differences.std(ddof=1)) / math.sqrt(n)
        if error > 0:
            reach = float(stats.t.ppf(0.975, n - 1)) * error
            low, high = mean - reach, mean + reach
            p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
        else:
            low = high = mean
    return Comparison(n, mean, (low, high), p, sign_flip_p(differences))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the sign-flip permutation test; sampled (seed 0) beyond 16 pairs."""
    n = len(differences)
    if n <= _EXACT_UP_TO:
        signs = np.array(list(itertools.product((-1, 1), repeat=n)))
    else:
        signs = np.random.default_rng(0).choice((-1, 1), (_SAMPLES, n))
        signs[0] = 1  # what was seen is one of the ways
    found = np.abs(signs @ differences)
    # Sums in another order differ in the last bits.
    return float(np.mean(found >= abs(differences.sum()) * (1 - 1e-9)))
