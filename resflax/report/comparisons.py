"""Compares groups of runs, paired by seed, and makes the table of comparisons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from resflax.report.against import find_reference
from resflax.report.cells import Cell, ReportTable, decimal, p_cell, words_cell
from resflax.report.groups import SeedGroup
from resflax.report.measures import TEST_ERROR, TRAINING_LOSS, Measure
from resflax.report.pairs import Pair, pair_with_group, pair_with_twins
from resflax.report.statistics import Comparison, compare_by_seed, holm

EXPLANATION = (
    "Each difference is the mean over pairs of runs with equal seeds: the variant minus the one it "
    "is compared with. p (t) is from the paired t-test; where all pairs differ by the same amount, "
    "there is neither p (t) nor an interval. p (exact) is from the sign-flip permutation test; it "
    'cannot be below 2 / 2^pairs, which is 0.0625 for five pairs. The columns "Holm" have p '
    "corrected for the number of rows. If you call only those rows findings whose corrected p is "
    "below 0.05, the chance of even one false finding among them stays below 5 %."
)
"""What the table of comparisons shows."""


MEASURES = (TEST_ERROR, TRAINING_LOSS)
"""The numbers that runs are compared by."""


@dataclass(frozen=True)
class GroupComparison:
    """Two groups compared by one measure."""

    pair: Pair
    measure: Measure
    comparison: Comparison
    """The differences, the group minus the reference, in the unit that is shown."""
    holm_t: float
    """p of the t-test, corrected for the number of comparisons; nan if there is none."""
    holm_exact: float
    """p of the permutation test, corrected for the number of comparisons."""

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval; nan if there is no interval."""
        low, high = self.comparison.interval
        return (high - low) / 2


def compare(groups: Sequence[SeedGroup], against: str | None = None) -> list[GroupComparison]:
    """Compares each group with its twins, by test error and training loss.

    A comparison needs at least two seeds that both groups have.

    Args:
      groups: the groups.
      against: the reference, as `find_reference` reads it; None: as `pair_with_twins` chooses it.

    Returns:
      The comparisons by field, then context, then group, then measure.

    Raises:
      UsageError: if `against` fits neither a group nor values that occur.
    """
    reference = None if against is None else find_reference(groups, against)
    if isinstance(reference, SeedGroup):
        pairs = pair_with_group(groups, reference)
    else:
        pairs = pair_with_twins(groups, reference)
    found = []
    for pair in pairs:
        for measure in MEASURES:
            comparison = compare_by_seed(
                measure.by_seed(pair.reference), measure.by_seed(pair.group)
            )
            if comparison is not None and comparison.n > 1:
                found.append((pair, measure, comparison))
    corrected = zip(
        holm([comparison.p_t for _, _, comparison in found]),
        holm([comparison.p_exact for _, _, comparison in found]),
        strict=True,
    )
    return [GroupComparison(*one, *p) for one, p in zip(found, corrected, strict=True)]


def make_comparisons_table(comparisons: Sequence[GroupComparison]) -> ReportTable:
    """Makes a table with one row per comparison."""
    headers = ["variant", "against", "of", "pairs", "difference", "95 % interval"]
    headers += ["p (t)", "Holm (t)", "p (exact)", "Holm (exact)"]
    return ReportTable("Comparisons", tuple(headers), tuple(map(_comparison_row, comparisons)))


def _comparison_row(one: GroupComparison) -> tuple[Cell, ...]:
    comparison, digits, unit = one.comparison, one.measure.digits, one.measure.difference_unit
    return (
        words_cell(one.pair.group.label),
        words_cell(one.pair.reference.label),
        words_cell(one.measure.name),
        Cell(str(comparison.n), comparison.n),
        Cell(decimal(comparison.mean, digits, sign=True) + unit, comparison.mean, unit=unit),
        _interval_cell(comparison.interval, digits, unit),
        p_cell(comparison.p_t),
        p_cell(one.holm_t),
        p_cell(comparison.p_exact),
        p_cell(one.holm_exact),
    )


def _interval_cell(interval: tuple[float, float], digits: int, unit: str) -> Cell:
    low, high = interval
    if math.isnan(low):
        return Cell("-", high=math.nan)
    ends = (decimal(end, digits, sign=True) for end in interval)
    return Cell(" to ".join(ends) + unit, low, high=high, unit=unit)
