"""The report's plots of error against the size of the network. It does not import JAX."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from resflax.drawing.axes import add_legend, fit_scale, labels_apart
from resflax.drawing.picture import Picture
from resflax.drawing.style import SIZE, plot_style
from resflax.report.groups import SeedGroup
from resflax.report.marks import draw_paper_marks, draw_series, paper_handle
from resflax.report.measures import (
    TRAINING_LOSS,
    Measure,
    drawn_values,
    means_in_words,
    measures_of,
    missing_runs,
)
from resflax.report.paper_marks import errors_of, find_paper_marks, legend_label, sources_sentence
from resflax.report.series import (
    NumericField,
    Panel,
    arrange,
    find_numeric_fields,
    is_number,
    short_name,
)

_SIZES = {"params": "parameters", "macs": "multiply-adds of one picture"}
"""The sizes by their names in result.json."""
_WORTH_A_PLOT = 1.5
"""Ratio of the largest size to the smallest from which on errors are plotted against them."""
_ABOUT = 1.1
"""Ratio up to which sizes of networks of equal depth count as one."""


def plot_error_against_size(groups: Sequence[SeedGroup]) -> list[Picture]:
    """Plots test error against parameters, and against multiply-adds.

    The plots look like Figure 3 of Huang et al. 2017. Lines join groups that differ only in one
    numeric field, such as the depth. There is no plot against a size that is about the same for all
    groups, and none if nothing but the training loss was measured.
    """
    errors = [measure for measure in measures_of(groups) if measure is not TRAINING_LOSS]
    pictures = []
    for measure in errors:
        for key, name in _SIZES.items():
            sizes = [size_of(group, key) for group in groups if measure.of(group)]
            if sizes and max(sizes) >= _WORTH_A_PLOT * min(sizes) and max(sizes) > min(sizes):
                pictures += _plot_against(groups, key, name, measure)
    return pictures


def size_of(group: SeedGroup, key: str) -> float:
    """The size of the group's network, as its first finished run has it."""
    return float(next(run.result[key] for run in group.runs if run.result is not None))


def _plot_against(
    groups: Sequence[SeedGroup], key: str, name: str, measure: Measure
) -> list[Picture]:
    """One picture for each panel; all have the same scales."""
    measured = [group for group in groups if measure.of(group)]

    def size(group: SeedGroup) -> float:
        return size_of(group, key)

    field = next(
        (
            field
            for field in find_numeric_fields(measured)
            if any(len(set(map(size, line))) > 1 for line in field.lines)
        ),
        None,
    )
    lines = [] if field is None else [sorted(line, key=size) for line in field.lines]
    placed = {id(group) for line in lines for group in line}
    lines += [[group] for group in measured if id(group) not in placed]
    panels = arrange(lines, None if field is None else field.others, x_of=size)
    every = [series for panel in panels for series in panel.series]
    sizes = [x for series in every for x in series.xs]
    errors = drawn_values([group for series in every for group in series.groups], measure)
    errors += errors_of(find_paper_marks(every, measure))
    pictures = []
    for panel in panels:
        marks = find_paper_marks(panel.series, measure)
        figures = [mark.figure for mark in marks]
        drawn = [group for series in panel.series for group in series.groups]
        with plot_style():
            figure = Figure(figsize=SIZE, layout="constrained")
            axes = figure.subplots()
            fit_scale(axes, "x", sizes)
            fit_scale(axes, "y", errors, from_zero=True, most=measure.most)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.set(xlabel=name, ylabel=measure.axis_label)
            entries: list[tuple[Any, str]] = []
            for series in panel.series:
                handle = draw_series(axes, series, measure, joined=field is not None)
                if handle is not None:
                    entries.append((handle, series.label))
            draw_paper_marks(axes, marks)
            if marks:
                entries.append((paper_handle(), legend_label(figures, drawn)))
            if field is not None:
                _name_sizes(axes, panel, field)
            add_legend(figure, entries)
        title = f"{measure.name.capitalize()} against {name.partition(' of')[0]}"
        title += f": {panel.title}" if panel.title else ""
        joined = (
            "" if field is None else f"Lines join networks that differ in {short_name(field.name)}."
        )
        caption = [
            "Means over the seeds at the end of training, with standard deviations and every seed.",
            joined,
            sources_sentence(figures),
            missing_runs(drawn if field is None else field.groups_along(panel.series, groups)),
        ]
        if panel.left_out:
            caption.append(f"{panel.left_out} more lines are not drawn; the CSV file has them.")
        description = means_in_words(title, panel.series, measure)
        pictures.append(Picture(title, figure, description, " ".join(filter(None, caption))))
    return pictures


def _name_sizes(axes: Axes, panel: Panel, field: NumericField) -> None:
    """Writes the field's values above the sizes, if each has about one size."""
    sizes: dict[float, list[float]] = {}
    for series in panel.series:
        for size, group in zip(series.xs, series.groups, strict=True):
            if is_number(group.fields.get(field.name)):  # other kinds of networks may lack it
                sizes.setdefault(field.value_of(group), []).append(size)
    if not sizes or any(max(same) > _ABOUT * min(same) for same in sizes.values()):
        return
    places = sorted((sum(same) / len(same), f"{value:g}") for value, same in sizes.items())
    values = [size for size, _ in places]
    above = axes.secondary_xaxis("top")
    above.set_xticks(values, labels_apart(axes, "x", values, [label for _, label in places]))
    above.set_xlabel(short_name(field.name))
    above.spines["top"].set_visible(False)
    above.xaxis.set_minor_locator(NullLocator())
    above.tick_params(length=0, pad=7)
