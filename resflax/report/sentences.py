"""Comparisons as sentences."""

import math
from collections.abc import Sequence

from resflax.report.cells import decimal
from resflax.report.comparisons import GroupComparison
from resflax.report.phrases import phrases

SIGNIFICANT = 0.05
"""A corrected p from which on a difference may well be chance."""
_MOST_DIGITS = 6
"""The most digits after the point."""


def sentences(comparisons: Sequence[GroupComparison], most: int = 12) -> list[str]:
    """The clearest comparisons as sentences, in the given order.

    The clearest are those with the smallest p of the t-test. If there are more than `most`, a line
    at the end says how many others there are.
    """
    p_values = [one.comparison.p_t for one in comparisons]
    by_p = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    lines = [describe(comparisons[i]) for i in sorted(by_p[:most])]
    others = len(comparisons) - len(lines)
    if others:
        lines.append(
            f"These are the {most} comparisons with the smallest p; the table has {others} more."
        )
    return lines


def describe(one: GroupComparison) -> str:
    """The comparison as a sentence.

    It calls the group higher or lower than the reference only if the 95 % interval does not contain
    zero. If p is not below 0.05 after Holm's correction, the sentence says so. Numbers have as many
    digits as the interval's half width with two significant ones.
    """
    comparison, unit = one.comparison, one.measure.difference_unit
    here, there = phrases(one.pair.here), phrases(one.pair.there)
    context = phrases(one.pair.context, ", ")
    the_measure = f"{f'{context[0].upper()}{context[1:]}, the' if context else 'The'} "
    the_measure += one.measure.name
    digits = _digits(one)
    size = decimal(abs(comparison.mean), digits) + unit
    size += " higher" if comparison.mean > 0 else " lower"
    low, high = comparison.interval
    if math.isnan(low):
        pairs = "both pairs" if comparison.n == 2 else f"all {comparison.n} pairs"
        if not float(decimal(comparison.mean, digits)):  # no difference that could be shown
            return f"{the_measure} {here} equals that {there} in {pairs}."
        return f"{the_measure} is {size} {here} than {there}, by the same amount in {pairs}."
    if low <= 0 <= high:
        mean, least, greatest = (
            decimal(x, digits, sign=True) for x in (comparison.mean, low, high)
        )
        return (
            f"{the_measure} {here} cannot be told from that {there} (difference {mean}{unit}, "
            f"95 % {least} to {greatest}, n = {comparison.n})."
        )
    least, greatest = (decimal(end, digits) for end in sorted(map(abs, comparison.interval)))
    chance = ""
    if not one.holm_t < SIGNIFICANT:
        chance = f", but this is not significant after Holm's correction (p = {one.holm_t:.2g})"
    return (
        f"{the_measure} is {size} {here} than {there} "
        f"(95 % {least} to {greatest}, n = {comparison.n}){chance}."
    )


def _digits(one: GroupComparison) -> int:
    """The digits after the point with which a comparison is told."""
    if not one.half_width > 0:  # nan
        return one.measure.digits
    return min(max(1 - math.floor(math.log10(one.half_width)), 0), _MOST_DIGITS)
