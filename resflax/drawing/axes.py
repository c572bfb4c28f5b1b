"""Scales, ticks and legends that plots share. It does not import JAX.

Matplotlib's own labels of logarithmic axes are mathematics, which `plot_style` turns off because
names may hold dollar signs. So logarithmic axes get plain numbers here.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)

from resflax.drawing.style import in_legend

Direction = Literal["x", "y"]

_DECADE = 10.0
_FAR = 1e6
"""Number of upper quartiles from which on a value is an outlier."""
_MOST_TICKS = 8
"""The most values of a field that all get a tick of their own."""
_LETTER = 0.62
"""Mean width of a letter in font sizes."""
_LEGEND_WIDTH = 66
"""Number of letters that fit into a row of a legend."""
_HANDLE = 7
"""Width of a legend's line or mark, in letters."""
_ROW = 0.19
"""Height of a row of a legend in inches."""


def wrap(text: str, width: int, rows: int = 3) -> str:
    """The text in at most `rows` lines of `width` letters; `…` stands for what does not fit."""
    lines = textwrap.wrap(" ".join(text.split()), width)
    if len(lines) > rows:
        lines = [*lines[: rows - 1], lines[rows - 1][: width - 1] + "…"]
    return "\n".join(lines)


def plain_number(value: float) -> str:
    """The number in at most six digits; small and large ones as `1e-4` and `1e13`."""
    if 0 < abs(value) < 0.001 or abs(value) >= 1e6:
        digits, _, exponent = f"{value:e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:g}"


def fit_scale(
    axes: Axes,
    direction: Direction,
    values: Sequence[float],
    *,
    from_zero: bool = False,
    most: float = math.inf,
) -> None:
    """Sets the scale and limits of one axis, so that all values are well inside.

    The scale is logarithmic if no value is negative and the positive ones span a decade or more. If
    some values are 0, it is linear between 0 and the smallest positive value.

    Args:
      axes: the axes.
      direction: the axis to set.
      values: all numbers that are drawn along it; those that are not finite are passed over.
      from_zero: whether a linear scale begins at 0, unless the values are far from it.
      most: the axis does not go beyond this number, even if values do.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return
    axis, low, high = _axis(axes, direction), min(finite), max(finite)
    if not is_wide(finite):
        start, end = _linear_limits(low, high, from_zero)
        _set_limits(axes, direction, start, min(end, most))
        return
    smallest = min(value for value in finite if value > 0)
    margin = (high / smallest) ** 0.06
    if low > 0:
        _set_scale(axes, direction, "log")
        _set_limits(axes, direction, low / margin, min(high * margin, most))
        subs = (1.0, 2.0, 5.0) if high < _DECADE**2 * smallest else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs))
    else:
        _set_scale(axes, direction, "symlog", linthresh=smallest, linscale=0.5)
        _set_limits(axes, direction, -0.15 * smallest, min(high * margin, most))
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=smallest))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def outlier_limit(values: Sequence[float]) -> float:
    """A million times the upper quartile of the positive values; infinite if there are none.

    A net whose training diverged may have a loss of 1e13. On an axis that reaches so far, nobody
    could see how the others differ.
    """
    positive = sorted(value for value in values if value > 0)
    return _FAR * positive[int(0.75 * (len(positive) - 1))] if positive else math.inf


def without_outliers(values: Sequence[float]) -> list[float]:
    """The values that are not above the `outlier_limit`."""
    limit = outlier_limit(values)
    return [value for value in values if value <= limit]


def is_wide(values: Sequence[float]) -> bool:
    """Whether no value is negative and the positive ones span a decade or more."""
    positive = [value for value in values if value > 0]
    return min(values) >= 0 and bool(positive) and max(positive) >= _DECADE * min(positive)


def _linear_limits(low: float, high: float, from_zero: bool) -> tuple[float, float]:
    """Limits with a margin, so that no mark is cut in half."""
    if from_zero and 0 < low < 0.5 * high:
        return 0.0, 1.06 * high
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin


def tick_at(axes: Axes, direction: Direction, values: Sequence[float]) -> None:
    """Puts the ticks at the values themselves, if these are few.

    Values whose labels would touch those of others have ticks without a label.
    """
    distinct = sorted(set(values))
    if not 0 < len(distinct) <= _MOST_TICKS:
        return
    axis = _axis(axes, direction)
    labels = labels_apart(axes, direction, distinct, [plain_number(value) for value in distinct])
    axis.set_ticks(distinct, labels)
    axis.set_minor_locator(NullLocator())


def labels_apart(
    axes: Axes, direction: Direction, values: Sequence[float], labels: Sequence[str]
) -> list[str]:
    """The labels, of which those that would touch others are replaced by "".

    The last one stays, and of the others as many as there is room for, from the first on.

    Args:
      axes: the axes, with their scale and limits.
      direction: the axis along which the labels are written.
      values: the places of the labels, in rising order.
      labels: the texts.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    box = axes.get_position()
    inches = (
        box.width * figure.get_figwidth()
        if direction == "x"
        else box.height * figure.get_figheight()
    )
    letter = _LETTER * 10 / 72 / inches  # in parts of the axis
    transform = _axis(axes, direction).get_transform()
    low, high = (float(end) for end in transform.transform(_limits(axes, direction)))
    places = [(float(p) - low) / (high - low) for p in transform.transform(list(values))]
    widths = [len(label) + 1 if direction == "x" else 2.4 for label in labels]
    reach = [letter * width / 2 for width in widths]
    last = len(values) - 1
    shown, free_from = {last}, -1.0
    for i in range(last):
        ends = places[i] + reach[i]
        if places[i] - reach[i] > free_from and ends < places[last] - reach[last]:
            shown.add(i)
            free_from = ends
    return [label if i in shown else "" for i, label in enumerate(labels)]


def add_legend(figure: Figure, entries: Sequence[tuple[Any, str]]) -> None:
    """Puts a legend below the axes, so that it covers nothing, and makes the figure higher for it.

    Args:
      figure: a figure with constrained layout.
      entries: lines and marks with their labels, of which long ones are wrapped. Those whose label
        is "" are left out.
    """
    labelled = [(handle, label) for handle, label in entries if label]
    if not labelled:
        return
    texts = [in_legend(wrap(label, _LEGEND_WIDTH - _HANDLE)) for _, label in labelled]
    longest = max(len(line) for text in texts for line in text.split("\n"))
    columns = min(len(texts), max(1, _LEGEND_WIDTH // (longest + _HANDLE)))
    rows = sum(text.count("\n") + 1 for text in texts) / columns
    figure.set_figheight(figure.get_figheight() + _ROW * math.ceil(rows) + 0.08)
    handles = [handle for handle, _ in labelled]
    figure.legend(
        handles, texts, loc="outside lower center", ncols=columns, columnspacing=1.2,
        handlelength=2.6, labelspacing=0.3, borderaxespad=0.2,
    )  # fmt: skip


def _axis(axes: Axes, direction: Direction) -> Axis:
    return axes.xaxis if direction == "x" else axes.yaxis


def _limits(axes: Axes, direction: Direction) -> tuple[float, float]:
    return axes.get_xlim() if direction == "x" else axes.get_ylim()


def _set_scale(axes: Axes, direction: Direction, scale: str, **options: float) -> None:
    (axes.set_xscale if direction == "x" else axes.set_yscale)(scale, **options)


def _set_limits(axes: Axes, direction: Direction, low: float, high: float) -> None:
    (axes.set_xlim if direction == "x" else axes.set_ylim)(low, high)
