"""The report's plots of loss and error against steps. It does not import JAX."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resflax.drawing.axes import add_legend, fit_scale, outlier_limit
from resflax.drawing.picture import Picture
from resflax.drawing.style import SIZE, plot_style
from resflax.report.collect import RunRecord
from resflax.report.groups import SeedGroup
from resflax.report.marks import color_of, dash_of, marker_of
from resflax.report.measures import TEST_ERROR
from resflax.report.paper_marks import data_beside
from resflax.report.series import Panel, Series, arrange

Curve = tuple[np.ndarray, np.ndarray]
"""Steps (n,) float, and values (n,) float."""

MOST_POINTS = 200
"""The most points of a curve; longer curves are averaged over stretches of steps."""

_MOST_IN_ONE_PANEL = 4
"""The most groups that share a picture although a field of words divides them."""
_LONGEST = 50
"""The most characters of a label that names the paper's data."""
_MARKS = 7
"""Number of marks on a curve."""


def plot_loss_curves(groups: Sequence[SeedGroup], note: str = "") -> list[Picture]:
    """Plots training loss against steps, on a logarithmic scale, as means over the seeds.

    There is one picture for each panel, and all have the same scale.

    Args:
      groups: the groups, each of which has a curve.
      note: a sentence that ends every caption.
    """
    panels = _panels(groups)
    curves = {id(s): mean_curve(s.groups[0], "train", "loss") for p in panels for s in p.series}
    losses = [losses for _, losses in curves.values() if len(losses)]
    limit = outlier_limit([float(value) for values in losses for value in values])
    calm = [values for values in losses if values.max() <= limit] or losses
    caption = _LOSSES if len(calm) == len(losses) else f"{_LOSSES} {_DIVERGED}"
    pictures = []
    for panel in panels:
        if not any(len(curves[id(series)][0]) for series in panel.series):
            continue
        with plot_style():
            figure, axes = _new_figure("training loss")
            fit_scale(axes, "y", np.concatenate(calm).tolist(), from_zero=True)
            entries = [
                (_draw_marked(axes, curves[id(series)], series), series.label)
                for series in panel.series
            ]
            add_legend(figure, entries)
        pictures.append(_picture("Training loss", panel, figure, caption, note))
    return pictures


def plot_error_curves(groups: Sequence[SeedGroup], note: str = "") -> list[Picture]:
    """Plots training error (thin) and test error (bold) against steps, as means over the seeds.

    The pictures look like Figures 4 and 6 of He et al. 2015. There is one for each panel, and all
    have the same scale. A legend has the paper's test error of a network beside its fields.

    Args:
      groups: the groups, each of which has a curve for each split.
      note: a sentence that ends every caption.
    """
    panels = _panels(groups)
    curves = {
        id(s): (mean_curve(s.groups[0], "train"), _test_curve(s.groups[0]))
        for p in panels
        for s in p.series
    }
    late = [_greatest_late(errors) for pair in curves.values() for _, errors in pair]
    top = min(100.0, 1.15 * max([5.0, *late]))
    pictures = []
    for panel in panels:
        if not any(len(curve[0]) for series in panel.series for curve in curves[id(series)]):
            continue
        with plot_style():
            figure, axes = _new_figure("error (%)")
            entries = []
            for series in panel.series:
                train, test = curves[id(series)]
                thin = axes.plot(
                    *train, color=color_of(series), linestyle=dash_of(series), linewidth=0.8,
                    alpha=0.85, label="_train",
                )[0]  # fmt: skip
                bold = _draw_marked(axes, test, series)
                handle = bold if len(test[0]) else thin
                entries.append((handle, _with_paper_value(series)))
            axes.set_ylim(0, top)
            add_legend(figure, entries)
        pictures.append(_picture("Error", panel, figure, _ERRORS, note))
    return pictures


_MEANS = (
    "Curves are means over the group's finished runs, or over all its runs if none is finished, "
    "and end where the first of them ends."
)
_LOSSES = f"Mean loss on the training batches, with augmentation. {_MEANS}"
_DIVERGED = "Curves of nets that diverged leave the picture."
_ERRORS = (
    "Thin lines show the error on the training batches, with augmentation. Bold lines show the "
    "error on the test split, or on the validation examples where those were measured more often. "
    f"{_MEANS}"
)


def _panels(groups: Sequence[SeedGroup]) -> list[Panel]:
    return arrange([[group] for group in groups], most=_MOST_IN_ONE_PANEL)


def _new_figure(ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="step", ylabel=ylabel)
    return figure, axes


def _draw_marked(axes: Axes, curve: Curve, series: Series) -> Any:
    """Draws a bold curve with a few marks, so that it is told from others without colours."""
    every = max(1, len(curve[0]) // _MARKS)
    return axes.plot(
        *curve, color=color_of(series), linestyle=dash_of(series), linewidth=2, markersize=5,
        marker=marker_of(series), markevery=(series.style % every, every), label="_bold",
    )[0]  # fmt: skip


def _with_paper_value(series: Series) -> str:
    """The series' label with the paper's test error of its network, if a paper has one."""
    figure = TEST_ERROR.paper_figure(series.groups[0])
    if figure is None:
        return series.label
    value = "fails in the paper" if figure.error is None else f"paper {figure.error:.2f} %"
    data = data_beside([figure], series.groups)
    label, longer = (
        f"{series.label} ({text})" if series.label else text for text in (value, f"{value}, {data}")
    )
    return longer if data and len(longer) <= _LONGEST else label


def _picture(name: str, panel: Panel, figure: Figure, caption: str, note: str) -> Picture:
    title = f"{name} against steps" + (f": {panel.title}" if panel.title else "")
    if panel.left_out:
        caption += f" {panel.left_out} more curves are not drawn; the CSV file has all results."
    caption += f" {note}" if note else ""
    labels = "; ".join(series.label for series in panel.series if series.label)
    description = f"{title}. One curve for each of: {labels}." if labels else title
    return Picture(title, figure, description, caption)


def _test_curve(group: SeedGroup) -> Curve:
    """The curve of the test split, or of the validation split if it was measured more often."""
    test, validation = mean_curve(group, "test"), mean_curve(group, "validation")
    return validation if len(validation[0]) > len(test[0]) else test


def mean_curve(group: SeedGroup, split: str, key: str = "error") -> Curve:
    """The mean over the group's runs, as a curve of at most `MOST_POINTS` points.

    The runs that count are the finished ones, or all if none is finished; runs without any
    measurement do not count. The mean has all of them at every step: each run's curve is a straight
    line between its measurements, and the mean begins where the last one begins and ends where the
    first one ends. So it does not jump if runs were logged at different steps, or if one is shorter
    than the others.

    Args:
      group: the group.
      split: `train`, `test` or `validation`.
      key: `error`, which is returned in per cent, or `loss`. Values that are not finite are None in
        the log, and are passed over.
    """
    scale = 100 if key == "error" else 1
    curves = [
        curve
        for run in group.finished or group.runs
        if len((curve := _curve_of(run, split, key))[0])
    ]
    if not curves:
        return np.array([]), np.array([])
    first = max(steps[0] for steps, _ in curves)
    last = min(steps[-1] for steps, _ in curves)
    steps = np.unique(np.concatenate([steps for steps, _ in curves]))
    steps = steps[(first <= steps) & (steps <= last)]
    means = np.mean([np.interp(steps, *curve) for curve in curves], axis=0)
    return thin_out((steps, scale * means))


def _curve_of(run: RunRecord, split: str, key: str) -> Curve:
    """One run's measurements; a step that was logged twice has its last value."""
    values = {
        line["step"]: line[key]
        for line in run.lines
        if line["split"] == split and line.get(key) is not None
    }
    steps = sorted(values)
    return np.array(steps, float), np.array([values[step] for step in steps], float)


def thin_out(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """The curve with at most `most` points.

    The first and the last point stay. Those between them are divided into stretches of equal
    numbers, and each becomes the mean of its steps and of its values.
    """
    steps, values = curve
    if len(steps) <= most:
        return curve
    inner = [np.array_split(array[1:-1], most - 2) for array in (steps, values)]
    means = [[stretch.mean() for stretch in stretches] for stretches in inner]
    thinned = [
        np.array([array[0], *mean, array[-1]])
        for array, mean in zip((steps, values), means, strict=True)
    ]
    return thinned[0], thinned[1]


def _greatest_late(errors: np.ndarray) -> float:
    """The greatest error after the first third of a curve; 0 if there are no errors."""
    return float(errors[len(errors) // 3 :].max()) if len(errors) else 0.0
