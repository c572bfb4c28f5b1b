"""Marks for means, seeds and the papers' figures. It does not import JAX.

Means are filled marks, standard deviations are bars, single seeds are small dots, and the papers'
figures are hollow marks.
"""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from resflax.drawing.style import COLORS, DASHES, INK, MARKERS
from resflax.report.groups import SeedGroup
from resflax.report.measures import Measure
from resflax.report.paper_marks import PaperMark
from resflax.report.series import Series

_DOT: dict[str, Any] = {
    "linestyle": "", "marker": "o", "markersize": 3.6, "markeredgewidth": 0, "alpha": 0.5,
    "zorder": 1.8, "label": "_seeds",
}  # fmt: skip
"""Dots of single seeds, which let each other shine through."""
_HOLLOW: dict[str, Any] = {
    "linestyle": "", "marker": MARKERS[0], "markeredgecolor": INK, "label": "_paper",
    "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.4,
    "zorder": 3,
}  # fmt: skip
_BEYOND: dict[str, Any] = {"linestyle": "", "markersize": 7, "label": "_beyond"}
_EDGE_DISTANCE = 0.065
"""Distance of marks at the top edge, in parts of the axis."""
_BELOW = 0.25
"""Distance of the seeds' dots from the mean, in rows."""

FAILS = "fails"
"""Stands beside the mark of a run that a paper calls failed."""


def color_of(series: Series) -> str:
    """The series' colour."""
    return COLORS[series.style % len(COLORS)]


def marker_of(series: Series) -> str:
    """The series' kind of mark, which differs between series of one colour."""
    return MARKERS[(series.style + series.style // len(COLORS)) % len(MARKERS)]


def dash_of(series: Series) -> str:
    """The series' kind of stroke."""
    return DASHES[series.style % len(DASHES)]


def draw_series(
    axes: Axes, series: Series, measure: Measure, *, joined: bool = True
) -> ErrorbarContainer | None:
    """Draws means with deviations, and every seed, over the series' xs.

    Args:
      axes: the axes.
      series: the groups and their places on the x axis.
      measure: the number to draw.
      joined: whether a line joins the means.

    Returns:
      The handle for the legend; None if no run has the number.
    """
    color, marker = color_of(series), marker_of(series)
    points = [
        (x, group, spread)
        for x, group in zip(series.xs, series.groups, strict=True)
        if (spread := measure.spread(group)) is not None
    ]
    if not points:
        return None
    dots = [(x, value) for x, group, _ in points for value in measure.of(group)]
    # Marks at 100 % lie on the end of the axis, and are not cut in half there.
    clip = math.isinf(measure.most)
    axes.plot(*zip(*dots, strict=True), color=color, clip_on=clip, **_DOT)
    handle = axes.errorbar(
        [x for x, _, _ in points],
        [spread.mean for _, _, spread in points],
        [math.nan if spread.std is None else spread.std for _, _, spread in points],
        color=color, marker=marker, markersize=5, linestyle=dash_of(series) if joined else "",
        linewidth=1.5, capsize=3, elinewidth=1, label="_mean",
    )  # fmt: skip
    handle.lines[0].set_clip_on(clip)
    return handle


def draw_paper_marks(axes: Axes, marks: Sequence[PaperMark]) -> None:
    """Draws hollow marks, in the style of their series, or as circles if they belong to several.

    A run that a paper calls failed has its mark at the top edge.
    """
    at_edge = []
    for mark in marks:
        hollow = dict(_HOLLOW)
        if mark.series is not None:
            hollow |= {"marker": marker_of(mark.series), "markeredgecolor": color_of(mark.series)}
        if mark.figure.error is None:
            at_edge.append((mark.x, FAILS, hollow))
        else:
            axes.plot(mark.x, mark.figure.error, **hollow)
    _draw_at_top(axes, at_edge)


def draw_outliers(axes: Axes, all_series: Sequence[Series], measure: Measure) -> None:
    """Draws a mark at the top edge for every mean above it, with its number."""
    top = axes.get_ylim()[1]
    at_edge = []
    for series in all_series:
        style = _BEYOND | {"marker": "^", "color": color_of(series)}
        for x, group in zip(series.xs, series.groups, strict=True):
            spread = measure.spread(group)
            if spread is not None and spread.mean > top:
                at_edge.append((x, measure.mean_in_words(group), style))
    _draw_at_top(axes, at_edge)


def _draw_at_top(axes: Axes, marks: Sequence[tuple[float, str, dict[str, Any]]]) -> None:
    """Draws marks with texts at places of the x axis; those of one place lie below each other."""
    count_at: dict[float, int] = {}
    edge: Any = axes.get_xaxis_transform()
    for x, text, style in marks:
        y = 1 - _EDGE_DISTANCE * count_at.get(x, 0)
        count_at[x] = count_at.get(x, 0) + 1
        axes.plot(x, y, clip_on=False, transform=edge, **style)
        axes.annotate(
            text, (x, y), (7, 0), xycoords=edge, textcoords="offset points", fontsize=8,
            va="center", annotation_clip=False,
        )  # fmt: skip


def _draw_at_right(axes: Axes, y: float, text: str, style: dict[str, Any]) -> None:
    edge: Any = axes.get_yaxis_transform()
    axes.plot(1, y, clip_on=False, transform=edge, **style)
    axes.annotate(
        text, (1, y), (-8, 0), xycoords=edge, textcoords="offset points", fontsize=8, ha="right",
        va="center", annotation_clip=False,
    )  # fmt: skip


def draw_row(axes: Axes, y: float, group: SeedGroup, measure: Measure) -> None:
    """Draws the group's mean with deviation, and the paper's figure, and every seed below them.

    What has no place inside has a mark at the right edge: a mean that is too great with its number,
    and a run that the paper calls failed with a hollow mark.
    """
    seeds, spread, color = measure.of(group), measure.spread(group), COLORS[0]
    if spread is None:
        return
    axes.plot(seeds, [y + _BELOW] * len(seeds), color=color, **_DOT)
    if spread.mean > axes.get_xlim()[1]:
        beyond = _BEYOND | {"marker": ">", "color": color}
        _draw_at_right(axes, y, measure.mean_in_words(group), beyond)
    else:
        axes.errorbar(
            spread.mean, y, xerr=math.nan if spread.std is None else spread.std, color=color,
            marker=MARKERS[0], markersize=5, capsize=3, elinewidth=1, label="_mean",
        )  # fmt: skip
    figure = measure.paper_figure(group)
    hollow = _HOLLOW | {"marker": MARKERS[1], "markeredgecolor": COLORS[1]}
    if figure is not None and figure.error is not None:
        axes.plot(figure.error, y, **hollow)
    elif figure is not None:
        _draw_at_right(axes, y, FAILS, hollow)


def paper_handle(marker: str = MARKERS[0], color: str = INK) -> Line2D:
    """The hollow mark that stands for the papers' figures in a legend."""
    return Line2D([], [], **(_HOLLOW | {"marker": marker, "markeredgecolor": color}))
