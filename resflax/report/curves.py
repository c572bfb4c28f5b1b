"""The report's plots of errors. It does not import JAX."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, SIZE, in_legend, plot_style
from resflax.report.groups import SeedGroup
from resflax.report.statistics import compute_spread


def split_into_panels(groups: Sequence[SeedGroup]) -> dict[str, list[SeedGroup]]:
    """Divides the groups into panels, by the first field that has 2 to 6 values, all of them words.

    Returns the groups of each panel by the panel's title. There is one panel, with the title "", if
    there is no such field, if only one field varies, or if the variants have names.
    """
    if not groups or groups[0].runs[0].variant is not None or len(groups[0].fields) < 2:
        return {"": list(groups)}
    for name in groups[0].fields:
        values = list(dict.fromkeys(group.fields[name] for group in groups))
        if not all(isinstance(value, str) for value in values):
            continue
        if 2 <= len(values) <= 6:
            short = name.rpartition(".")[2].replace("_", " ")
            return {
                f"{short} {value}": [group for group in groups if group.fields[name] == value]
                for value in values
            }
    return {"": list(groups)}


def line_label(group: SeedGroup, panel: str) -> str:
    """The group's label without the part that is the panel's title."""
    parts = [part for part in group.label.split(", ") if part != panel]
    return in_legend(", ".join(parts) or group.label)


def plot_error_curves(groups: Sequence[SeedGroup]) -> list[Picture]:
    """Plots training error (thin) and test error (bold) against steps, as means over the seeds.

    The plots look like Figures 4 and 6 of He et al. 2015. There is one plot per panel, and all
    plots have the same scale.

    The panel's title is the picture's title.
    """
    panels = split_into_panels(groups)
    labels = dict.fromkeys(
        line_label(group, panel) for panel, members in panels.items() for group in members
    )
    color = {label: COLORS[i % len(COLORS)] for i, label in enumerate(labels)}
    curves = {group.label: (mean_curve(group, "train"), _test_curve(group)) for group in groups}
    late_errors = [_greatest_late(errors) for pair in curves.values() for _, errors in pair]
    top = min(100.0, 1.15 * max([5.0, *late_errors]))
    plots = []
    for panel, members in panels.items():
        with plot_style():
            figure = Figure(figsize=SIZE, layout="constrained")
            axis = figure.subplots()
            for group in members:
                label = line_label(group, panel)
                train, test = curves[group.label]
                axis.plot(*train, color=color[label], linewidth=0.8, alpha=0.85)
                label_in_legend = label if len(test[0]) else None
                axis.plot(*test, color=color[label], linewidth=2.2, label=label_in_legend)
            axis.set(ylim=(0, top), xlabel="step", ylabel="error (%)")
            if any(len(curves[group.label][1][0]) for group in members):  # some were tested
                axis.legend()
            description = "error against steps: thin train, bold test"
            plots.append(Picture(panel, figure, description))
    return plots


def _test_curve(group: SeedGroup) -> tuple[np.ndarray, np.ndarray]:
    """The curve of the test split, or of the validation split if it was measured more often."""
    test, validation = mean_curve(group, "test"), mean_curve(group, "validation")
    return validation if len(validation[0]) > len(test[0]) else test


def mean_curve(group: SeedGroup, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean error over the seeds, at each step at which at least one run was measured.

    Returns:
      The steps (n,) int, and the errors (n,) float in per cent.
    """
    errors_at: dict[int, list[float]] = {}
    for run in group.runs:
        for line in run.lines:
            if line["split"] == split and line.get("error") is not None:
                errors_at.setdefault(line["step"], []).append(100 * line["error"])
    steps = sorted(errors_at)
    return np.array(steps), np.array([np.mean(errors_at[step]) for step in steps])


def _greatest_late(errors: np.ndarray) -> float:
    """The greatest error after the first third of a curve; 0 if there are no errors."""
    return float(errors[len(errors) // 3 :].max()) if len(errors) else 0.0


def plot_error_against_size(groups: Sequence[SeedGroup]) -> list[Picture]:
    """Plots test error against parameters, and against multiply-adds.

    The plots look like Figure 3 of Huang et al. 2017.
    """
    panels = split_into_panels(groups)
    plots = []
    for key, name in (("params", "parameters"), ("macs", "multiply-adds of one picture")):
        with plot_style():
            figure = Figure(figsize=SIZE, layout="constrained")
            axis = figure.subplots()
            for i, (panel, members) in enumerate(panels.items()):
                _draw_size_line(axis, members, key, panel, COLORS[i % len(COLORS)])
            low, high = axis.dataLim.intervalx
            scale = "log" if high > 3 * low > 0 else "linear"
            axis.set(xscale=scale, xlabel=name, ylabel="test error (%)")
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.xaxis.set_minor_formatter(EngFormatter(sep="") if high < 30 * low else "")
            if len(panels) > 1:
                axis.legend()
            plots.append(Picture(name, figure, f"test error against {name}"))
    return plots


def _draw_size_line(
    axis: Axes, members: Sequence[SeedGroup], key: str, panel: str, color: str
) -> None:
    points = []
    for group in members:
        errors = compute_spread(
            [run.test_error for run in group.finished if run.test_error is not None]
        )
        if errors is not None:
            size = next(run.result[key] for run in group.finished if run.result)
            points.append((size, 100 * errors.mean, 100 * (errors.std or 0), group))
    points.sort(key=lambda point: point[0])
    if not points:
        return
    sizes, means, stds, point_groups = zip(*points, strict=True)
    line = "-" if len(set(sizes)) == len(sizes) else ""
    axis.errorbar(
        sizes,
        means,
        stds,
        color=color,
        marker="o",
        linestyle=line,
        capsize=3,
        label=in_legend(panel) or None,
    )
    if len(points) <= 12:
        for size, mean, group in zip(sizes, means, point_groups, strict=True):
            axis.annotate(
                line_label(group, panel), (size, mean), (5, 5), textcoords="offset points",
                fontsize=8,
            )  # fmt: skip
