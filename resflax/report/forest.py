"""Comparisons as forest plots: each effect with its interval. It does not import JAX."""

import math
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, INK, SIZE, plot_style
from resflax.report.cells import decimal
from resflax.report.comparisons import GroupComparison
from resflax.report.pairs import value_text
from resflax.report.sentences import SIGNIFICANT

_MOST_ROWS = 40
"""The most rows of one picture."""
_MOST_PICTURES = 3
"""The most pictures of one field, reference and measure."""
_MANY = 12
"""The number of pictures that is only exceeded if there is just one for each of these."""
_FAR = 20
"""How many times as great as the median a difference is that lies outside of its picture."""
_ROOM = 0.35
"""The length of an axis for the texts of means outside of it, as a share of the rest."""
_LABEL_WIDTH = 30
"""Characters in a line of a row's label."""

EXPLANATION = (
    "Each mark is the mean difference of runs with equal seeds, and the bar is its 95 % interval; "
    "an arrow stands for what lies outside of the picture, and a mean outside of it is written "
    "beside its arrow. A mark is filled if p of the t-test is "
    "below 0.05 after Holm's correction for the number of comparisons. A mark without a bar stands "
    "for pairs that all differ by the same amount, which allow no interval."
)
"""How to read the pictures."""


def plot_comparisons(comparisons: Sequence[GroupComparison]) -> list[Picture]:
    """Draws the differences with their intervals: a picture for each field, reference and measure.

    A picture has at most 40 rows. Long comparisons have up to three, or fewer if there would be
    more than twelve pictures in all; the caption of the last one says how many rows are left out.
    """
    panels: dict[tuple[str, ...], list[GroupComparison]] = {}
    for one in comparisons:
        key = (one.pair.field, _reference_text(one), one.measure.name)
        panels.setdefault(key, []).append(one)
    most = max(1, min(_MOST_PICTURES, _MANY // max(1, len(panels))))
    return [picture for rows in panels.values() for picture in _draw_panel(rows, most)]


def _reference_text(one: GroupComparison) -> str:
    """What all rows of a picture are compared with."""
    if not one.pair.field:
        return one.pair.reference.label
    texts = (value_text(one.pair.reference, *item) for item in one.pair.there.items())
    return ", ".join(texts)


def _draw_panel(rows: Sequence[GroupComparison], most: int) -> Iterator[Picture]:
    pages = [rows[i : i + _MOST_ROWS] for i in range(0, len(rows), _MOST_ROWS)]
    measure, reference = rows[0].measure, _reference_text(rows[0])
    left_out = sum(map(len, pages[most:]))
    for number, page in enumerate(pages[:most], start=1):
        title = f"{measure.name.capitalize()} compared with {reference}"
        title += f" (part {number})" if len(pages) > 1 else ""
        caption = ""
        if left_out and number == most:
            caption = f"{left_out} more comparisons of this kind are in the table."
        description = (
            f"Forest plot: {len(page)} differences in {measure.name} from {reference}, with their "
            "95 % intervals; the table of comparisons has the numbers"
        )
        yield Picture(title, _draw_rows(page), description, caption)


def _draw_rows(rows: Sequence[GroupComparison]) -> Figure:
    measure = rows[0].measure
    labels = [
        "\n".join(textwrap.wrap(one.pair.group.label, _LABEL_WIDTH, max_lines=2, placeholder=" …"))
        for one in rows
    ]
    per_row = 0.32 if any("\n" in label for label in labels) else 0.24
    with plot_style():
        figure = Figure(figsize=(SIZE[0], 0.8 + per_row * len(rows)), layout="constrained")
        axis = figure.subplots()
        axis.axvline(0, color=INK, linewidth=0.8)
        limits, outside = _limits(rows)
        ends = [place for place in range(1, len(rows)) if not _same_context(rows, place)]
        if len(ends) < len(rows) - 1:  # else each context is one row
            lines = [place - 0.5 for place in ends]
            axis.hlines(lines, *limits, color=INK, alpha=0.25, linewidth=0.6)
        _draw_effects(axis, rows, limits, outside)
        axis.set_xlim(limits)
        axis.set_yticks(range(len(rows)), labels, fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False, axis="y")
        unit = f" ({measure.difference_unit.strip()})" if measure.difference_unit else ""
        axis.set_xlabel(f"difference in {measure.name}{unit}")
    return figure


def _same_context(rows: Sequence[GroupComparison], place: int) -> bool:
    """Whether a row has the same context as the row before it."""
    return rows[place].pair.context == rows[place - 1].pair.context


def _limits(rows: Sequence[GroupComparison]) -> tuple[tuple[float, float], dict[int, str]]:
    """The ends of the axis, which are not decided by what is far greater than the rest.

    Returns:
      The ends, and the texts of the means that lie outside of them, by row. Where there are such
      means, the axis is longer, so that their texts have room.
    """
    sizes = [abs(one.comparison.mean) for one in rows]
    far = _FAR * statistics.median([size for size in sizes if size] or [math.inf])
    means = [
        0.0,
        *(one.comparison.mean for one, size in zip(rows, sizes, strict=True) if size <= far),
    ]
    widths = [one.half_width for one in rows if not math.isnan(one.half_width)] or [0.0]
    reach = max(0.75 * (max(means) - min(means)), 2 * statistics.median(widths))
    ends = [end for one in rows for end in one.comparison.interval if not math.isnan(end)]
    low = max(min([*means, *ends]), min(means) - reach)
    high = min(max([*means, *ends]), max(means) + reach)
    margin = 0.05 * (high - low) or 1.0  # all differences may be zero
    low, high = low - margin, high + margin
    room = _ROOM * (high - low)
    outside = {}
    for place, one in enumerate(rows):
        text = decimal(one.comparison.mean, one.measure.digits, sign=True)
        if one.comparison.mean < low:
            outside[place] = f"← {text}"
        elif one.comparison.mean > high:
            outside[place] = f"{text} →"
    arrows = "".join(outside.values())
    return (low - room * ("←" in arrows), high + room * ("→" in arrows)), outside


def _goes_on(one: GroupComparison, end: float) -> bool:
    """Whether a difference or its interval reaches beyond an end of the axis."""
    values = [x for x in (one.comparison.mean, *one.comparison.interval) if not math.isnan(x)]
    return max(values) > end if end > 0 else min(values) < end


def _draw_effects(
    axis: Axes,
    rows: Sequence[GroupComparison],
    limits: tuple[float, float],
    outside: Mapping[int, str],
) -> None:
    """Draws marks and bars, a row of the picture for each comparison, from 0 on.

    A mean outside of the axis is a text at that end, without a mark and a bar.
    """
    color = COLORS[0]
    inside = [place for place in range(len(rows)) if place not in outside]
    intervals = {
        place: rows[place].comparison.interval
        for place in inside
        if not math.isnan(rows[place].half_width)
    }
    if intervals:
        lows, highs = zip(*intervals.values(), strict=True)
        axis.hlines(list(intervals), lows, highs, color=color, linewidth=1.6)
    for end, arrow in zip(limits, "<>", strict=True):
        places = [place for place in inside if _goes_on(rows[place], end)]
        axis.plot([end] * len(places), places, arrow, color=color, clip_on=False)
    for is_clear, face in ((True, color), (False, "none")):
        places = [i for i in inside if (rows[i].holm_t < SIGNIFICANT) == is_clear]
        means = [rows[i].comparison.mean for i in places]
        axis.plot(means, places, "o", color=color, markerfacecolor=face)
    right = axis.get_yaxis_transform()
    for place, text in outside.items():
        at, side = (0.01, "left") if text.startswith("←") else (0.99, "right")
        axis.text(at, place, text, transform=right, fontsize=7, ha=side, va="center")
    for place, one in enumerate(rows):
        text = f"n = {one.comparison.n}"
        axis.text(1.02, place, text, transform=right, fontsize=8, verticalalignment="center")
