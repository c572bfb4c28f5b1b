"""The three pictures of a search. It does not import JAX.

They show the best error so far, the effect of each field, and pairs of fields. Errors are those on
the held-out examples, by which a search chooses.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from resflax.drawing.axes import (
    add_legend,
    fit_scale,
    is_wide,
    plain_number,
)
from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, INK, SIZE, plot_style
from resflax.experiment import flat_json
from resflax.report.collect import RunRecord
from resflax.report.measures import VALIDATION_ERROR
from resflax.report.search_trials import Places, Trial, fields_of, places_of, trials_of

MOST_PAIRED = 4
"""The most fields whose pairs are drawn."""

_COLUMNS = 2
"""The most small axes side by side."""
_SHADES = 16
"""Number of colours for numbers."""


def plot_search(runs: Sequence[RunRecord]) -> list[Picture]:
    """Plots the best error so far, the effect of each field, and pairs of fields.

    Args:
      runs: the trials of one search.

    Returns:
      No pictures if no trial has an error on held-out examples.
    """
    trials = trials_of(runs)
    measured = [trial for trial in trials if trial.error is not None]
    if not measured:
        return []
    fields = fields_of(runs)
    values = [flat_json(trial.run.experiment) for trial in measured]
    places = [places_of(name, [flat.get(name) for flat in values], measured) for name in fields]
    missing = len(trials) - len(measured)
    words = "has no error, and is" if missing == 1 else "have no error, and are"
    note = f" {missing} of {len(trials)} trials {words} not drawn." if missing else ""
    pictures = [_plot_best_so_far(trials)]
    if places:
        pictures.append(_plot_effects(measured, places, note))
    if len(places) > 1:
        if len(places) > MOST_PAIRED:
            note += f" The first {MOST_PAIRED} of {len(places)} fields are shown."
        pictures.append(_plot_pairs(measured, places[:MOST_PAIRED], note))
    return pictures


def _errors(trials: Sequence[Trial]) -> list[float]:
    return [trial.error for trial in trials if trial.error is not None]


def _plot_best_so_far(trials: Sequence[Trial]) -> Picture:
    by_state: dict[str, list[tuple[int, float]]] = {}
    for trial in trials:
        if trial.error is not None:
            by_state.setdefault(trial.run.state, []).append((trial.number, trial.error))
    finished = by_state.get("finished", [])
    lowest = list(itertools.accumulate((error for _, error in finished), min))
    last = max(trial.number for trial in trials)
    with plot_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        fit_scale(axes, "y", _errors(trials), from_zero=True, most=VALIDATION_ERROR.most)
        axes.set_xlim(0.5 - 0.02 * last, last + 0.5 + 0.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel="validation error (%)")
        entries: list[tuple[Any, str]] = []
        for state, style in _MARKS.items():
            if points := by_state.get(state):
                (handle,) = axes.plot(*zip(*points, strict=True), linestyle="", **style)
                entries.append((handle, state))
        failed = [t.number for t in trials if t.run.state == "failed" and t.error is None]
        if failed:
            (handle,) = axes.plot(
                failed, [1.0] * len(failed), linestyle="", clip_on=False,
                transform=axes.get_xaxis_transform(), **_MARKS["failed"],
            )  # fmt: skip
            if "failed" not in by_state:
                entries.append((handle, "failed"))
        if finished:
            numbers = [number for number, _ in finished]
            (line,) = axes.step(
                [*numbers, last + 0.5], [*lowest, lowest[-1]], where="post", color=COLORS[1],
                linewidth=2, label="_best",
            )  # fmt: skip
            entries.append((line, "best so far"))
        add_legend(figure, entries)
    title = "Best error so far"
    caption = (
        "Error on the held-out examples, by which the search chooses. Trials that are not "
        "finished are shown with their newest error, or at the top edge if they failed before "
        "they had one."
    )
    found = ""
    if finished:
        number, error = min(finished, key=lambda point: point[1])
        found = f" The best of the finished ones is trial {number} of {last}, with {error:.3g} %."
    return Picture(title, figure, f"{title}.{found}", f"{caption}{found}")


_MARKS: dict[str, dict[str, Any]] = {
    "finished": {"marker": "o", "markersize": 5, "color": COLORS[0], "label": "_finished"},
    "pruned": {"marker": "x", "markersize": 5, "color": INK, "alpha": 0.6, "label": "_pruned"},
    "failed": {
        "marker": "^", "markersize": 7, "markerfacecolor": "none",
        "markeredgecolor": COLORS[4], "label": "_failed",
    },
    "unfinished": {
        "marker": ".", "markersize": 5, "color": INK, "alpha": 0.6, "label": "_unfinished",
    },
}  # fmt: skip
"""Marks of trials by their states."""


def _plot_effects(trials: Sequence[Trial], places: Sequence[Places], note: str) -> Picture:
    errors, numbers = _errors(trials), [float(trial.number) for trial in trials]
    norm = Normalize(1, max(2.0, *numbers))
    with plot_style():
        figure, panels = _grid(len(places))
        for axes, field in zip(panels, places, strict=True):
            field.fit(axes, "x")
            fit_scale(axes, "y", errors, from_zero=True, most=VALIDATION_ERROR.most)
            _scatter(axes, field.values, errors, numbers, norm, trials)
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("error (%)")
        for axes in panels[1::_COLUMNS]:
            axes.tick_params(labelleft=False)
        bar = _add_color_bar(figure, panels, norm, "trial")
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    title = "Effect of each field"
    names = ", ".join(field.name for field in places)
    caption = (
        "Every trial's last error on the held-out examples against each field. Later trials are "
        f"brighter. Crosses are trials that did not finish.{note}"
    )
    return Picture(title, figure, f"Validation error against {names}, for every trial.", caption)


def _plot_pairs(trials: Sequence[Trial], places: Sequence[Places], note: str) -> Picture:
    errors = _errors(trials)
    finished = [i for i, trial in enumerate(trials) if trial.run.state == "finished"]
    best = min(finished, key=lambda i: errors[i], default=None)
    low, high = min(errors), max(errors)
    is_log = low > 0 and is_wide(errors)
    norm = LogNorm(low, high) if is_log else Normalize(low, high if high > low else low + 1)
    pairs = list(itertools.combinations(places, 2))
    with plot_style():
        figure, panels = _grid(len(pairs))
        for axes, (across, up) in zip(panels, pairs, strict=True):
            across.fit(axes, "x")
            up.fit(axes, "y")
            _scatter(axes, across.values, up.values, errors, norm, trials)
            if best is not None:
                axes.plot(across.values[best], up.values[best], **_RING)
        bar = _add_color_bar(figure, panels, norm, "validation error (%)")
        if is_log:
            bar.locator = LogLocator(subs=(1.0, 2.0, 5.0))
            bar.formatter = FuncFormatter(lambda value, _: plain_number(value))
            bar.minorticks_off()
            bar.update_ticks()
    caption = (
        "Every trial by two of its fields. Darker marks have lower errors, and the best of the "
        f"finished trials has a ring. Crosses are trials that did not finish.{note}"
    )
    names = ", ".join(f"{across.name} and {up.name}" for across, up in pairs)
    return Picture("Pairs of fields", figure, f"Trials by {names}.", caption)


_RING: dict[str, Any] = {
    "marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgecolor": COLORS[1],
    "markeredgewidth": 2, "label": "_best",
}  # fmt: skip
"""The mark of the best trial."""


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with small axes in two columns."""
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    size = (SIZE[0], 2.1 * rows + 0.8 if columns > 1 else SIZE[1])
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels:
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure, panels[:count]


def _scatter(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    colors: Sequence[float],
    norm: Normalize,
    trials: Sequence[Trial],
) -> None:
    """Marks with an edge in the text's colour, so that light and dark ones are seen on any page."""
    for is_finished, marker in ((True, "o"), (False, "X")):
        chosen = [i for i, t in enumerate(trials) if (t.run.state == "finished") == is_finished]
        axes.scatter(
            [xs[i] for i in chosen], [ys[i] for i in chosen], s=26, marker=marker,
            c=[colors[i] for i in chosen], norm=norm, cmap=_color_map(), edgecolors=INK,
            linewidths=0.5,
        )  # fmt: skip


def _add_color_bar(figure: Figure, panels: list[Axes], norm: Normalize, label: str) -> Colorbar:
    bar = figure.colorbar(
        ScalarMappable(norm, _color_map()), ax=panels, location="bottom", label=label, aspect=40,
        fraction=0.06, pad=0.03,
    )  # fmt: skip
    bar.outline.set_visible(False)
    return bar


def _color_map() -> Any:
    return mpl.colormaps["viridis"].resampled(_SHADES)
