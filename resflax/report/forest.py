"""Comparisons as forest plots: each effect with its interval. It does not import JAX."""

import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, INK, SIZE, plot_style
from resflax.report.comparisons import GroupComparison
from resflax.report.pairs import value_text
from resflax.report.sentences import SIGNIFICANT

_MOST_ROWS = 40
"""The most rows of one picture."""
_MOST_PICTURES = 3
"""The most pictures of one measure and field."""
_LABEL_WIDTH = 30
"""Characters in a line of a row's label."""

EXPLANATION = (
    "Each mark is the mean difference of runs with equal seeds, and the bar is its 95 % interval; "
    "an arrow stands for an interval that goes on. A mark is filled if p of the t-test is below "
    "0.05 after Holm's correction for the number of comparisons. A mark without a bar stands for "
    "pairs that all differ by the same amount, which allow no interval."
)
"""How to read the pictures."""


def plot_comparisons(comparisons: Sequence[GroupComparison]) -> list[Picture]:
    """Draws the differences with their intervals: a picture for each field, reference and measure.

    A picture has at most 40 rows, and there are at most three for one field, reference and measure;
    the caption of the third says how many rows are left out.
    """
    panels: dict[tuple[str, ...], list[GroupComparison]] = {}
    for one in comparisons:
        key = (one.pair.field, _reference_text(one), one.measure.name)
        panels.setdefault(key, []).append(one)
    return [picture for rows in panels.values() for picture in _draw_panel(rows)]


def _reference_text(one: GroupComparison) -> str:
    """What all rows of a picture are compared with."""
    if not one.pair.field:
        return one.pair.reference.label
    texts = (value_text(one.pair.reference, *item) for item in one.pair.there.items())
    return ", ".join(texts)


def _draw_panel(rows: Sequence[GroupComparison]) -> Iterator[Picture]:
    pages = [rows[i : i + _MOST_ROWS] for i in range(0, len(rows), _MOST_ROWS)]
    measure, reference = rows[0].measure, _reference_text(rows[0])
    left_out = sum(map(len, pages[_MOST_PICTURES:]))
    for number, page in enumerate(pages[:_MOST_PICTURES], start=1):
        title = f"{measure.name.capitalize()} against {reference}"
        title += f" ({number} of {len(pages)})" if len(pages) > 1 else ""
        caption = ""
        if left_out and number == _MOST_PICTURES:
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
        limits = _limits(rows)
        ends = [place for place in range(1, len(rows)) if not _same_context(rows, place)]
        for place in ends if len(ends) < len(rows) - 1 else []:  # else each context is one row
            axis.axhline(place - 0.5, color=INK, alpha=0.25, linewidth=0.6)
        for place, one in enumerate(rows):
            _draw_row(axis, place, one, limits)
        axis.set_xlim(limits)
        axis.set_yticks(range(len(rows)), labels, fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False, axis="y")
        unit = f" ({measure.unit.strip()})" if measure.unit else ""
        axis.set_xlabel(f"difference in {measure.name}{unit}")
    return figure


def _same_context(rows: Sequence[GroupComparison], place: int) -> bool:
    """Whether a row has the same context as the row before it."""
    return rows[place].pair.context == rows[place - 1].pair.context


def _limits(rows: Sequence[GroupComparison]) -> tuple[float, float]:
    """The ends of the axis, which lie within intervals that are far wider than the others."""
    means = [0.0, *(one.comparison.mean for one in rows)]
    widths = [one.half_width for one in rows if not math.isnan(one.half_width)] or [0.0]
    reach = max(0.75 * (max(means) - min(means)), 2 * statistics.median(widths))
    ends = [end for one in rows for end in one.comparison.interval if not math.isnan(end)]
    low = max(min([*means, *ends]), min(means) - reach)
    high = min(max([*means, *ends]), max(means) + reach)
    margin = 0.05 * (high - low) or 1.0  # all differences may be zero
    return low - margin, high + margin


def _draw_row(axis: Axes, place: int, one: GroupComparison, limits: tuple[float, float]) -> None:
    low, high = one.comparison.interval
    if not math.isnan(low):
        axis.plot([low, high], [place, place], color=COLORS[0], linewidth=1.6)
        for end, arrow in ((limits[0], "<"), (limits[1], ">")):
            if low < end < high:
                axis.plot(end, place, arrow, color=COLORS[0], markersize=6, clip_on=False)
    face = COLORS[0] if one.holm_t < SIGNIFICANT else "none"
    axis.plot(one.comparison.mean, place, "o", color=COLORS[0], markersize=6, markerfacecolor=face)
    axis.text(
        1.02,
        place,
        f"n = {one.comparison.n}",
        transform=axis.get_yaxis_transform(),
        fontsize=8,
        verticalalignment="center",
    )
