"""The pictures of what a sweep is about: final loss and error against the fields that vary.

Nothing here imports JAX.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from resflax.drawing.axes import add_legend, fit_scale, tick_at, without_outliers, wrap
from resflax.drawing.picture import Picture
from resflax.drawing.style import SIZE, plot_style
from resflax.experiment import flat_json
from resflax.report.groups import SeedGroup
from resflax.report.marks import draw_outliers, draw_paper_marks, draw_series, paper_handle
from resflax.report.measures import (
    Measure,
    drawn_values,
    means_in_words,
    measures_of,
    missing_runs,
    outliers_sentence,
)
from resflax.report.page import Section
from resflax.report.paper_marks import (
    PaperMark,
    errors_of,
    find_paper_marks,
    legend_label,
    sources_sentence,
)
from resflax.report.papers import PaperFigure
from resflax.report.series import (
    NumericField,
    Panel,
    arrange,
    find_numeric_fields,
    is_number,
    short_name,
)
from resflax.report.variant_dots import plot_variants


def plot_findings(groups: Sequence[SeedGroup]) -> list[Section]:
    """Plots final training loss and test error against every numeric field that varies.

    If some finished groups have no place in any of these pictures, pictures of all groups, one row
    for each, come first.

    Returns:
      A section for each field; none if fewer than two groups are finished.
    """
    finished = [group for group in groups if group.finished]
    if len(finished) < 2:
        return []
    fields = find_numeric_fields(groups)
    sections = [
        Section(
            f"Loss and error against {short_name(field.name)}",
            tuple(
                picture
                for measure in measures_of(finished)
                for picture in _plot_field(field, measure, groups)
            ),
        )
        for field in fields
    ]
    placed = {id(group) for field in fields for line in field.lines for group in line}
    if any(id(group) not in placed for group in finished):
        pictures = [plot_variants(groups, measure) for measure in measures_of(finished)]
        sections.insert(0, Section("Loss and error of every variant", tuple(pictures)))
    return sections


def _plot_field(
    field: NumericField, measure: Measure, all_groups: Sequence[SeedGroup]
) -> list[Picture]:
    """One picture for each panel; all have the same scales."""
    panels = arrange(field.lines, field.others, x_of=field.value_of)
    every = [series for panel in panels for series in panel.series]
    groups = [group for series in every for group in series.groups]
    if not any(measure.of(group) for group in groups):
        return []
    xs = [x for series in every for x in series.xs]
    drawn = drawn_values(groups, measure)
    ys = without_outliers(drawn)

    def place(figure: PaperFigure, x: float) -> float | None:
        there: Any = flat_json(figure.protocol).get(field.name)
        if not is_number(there):
            return x if field.name.startswith("model.") else None  # the network is the same
        return float(there) if min(xs) <= there <= max(xs) else None

    ys += errors_of(find_paper_marks(every, measure, place))
    pictures = []
    for panel in panels:
        title = f"{measure.name.capitalize()} against {short_name(field.name)}"
        title += f": {panel.title}" if panel.title else ""
        marks = find_paper_marks(panel.series, measure, place)
        figure = _draw_panel(field, panel, measure, xs, ys, marks)
        description = means_in_words(title, panel.series, measure)
        missing = missing_runs(field.groups_along(panel.series, all_groups))
        caption = _caption(field, panel.left_out, marks, [outliers_sentence(drawn), missing])
        pictures.append(Picture(title, figure, description, caption))
    return pictures


def _draw_panel(
    field: NumericField,
    panel: Panel,
    measure: Measure,
    xs: Sequence[float],
    ys: Sequence[float],
    marks: Sequence[PaperMark],
) -> Figure:
    with plot_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        fit_scale(axes, "x", xs)
        fit_scale(axes, "y", ys, from_zero=True, most=measure.most)
        tick_at(axes, "x", xs)
        entries: list[tuple[Any, str]] = []
        for series in panel.series:
            handle = draw_series(axes, series, measure)
            if handle is not None:
                entries.append((handle, series.label))
        draw_outliers(axes, panel.series, measure)
        draw_paper_marks(axes, marks)
        if marks:
            groups = [group for series in panel.series for group in series.groups]
            entries.append((paper_handle(), legend_label([m.figure for m in marks], groups)))
        together = ", ".join(map(short_name, field.followers))
        xlabel = short_name(field.name) + (f" (with {together})" if together else "")
        axes.set(xlabel=wrap(xlabel, 60), ylabel=measure.axis_label)
        add_legend(figure, entries)
    return figure


def _caption(
    field: NumericField, left_out: int, marks: Sequence[PaperMark], notes: Sequence[str]
) -> str:
    name = short_name(field.name)
    sentences = [
        "Lines join the means over the seeds at the end of training; bars are standard deviations, "
        "and dots are single seeds.",
        sources_sentence([mark.figure for mark in marks]),
    ]
    if field.followers:
        names = " and ".join(map(short_name, field.followers))
        verb = "varies" if len(field.followers) == 1 else "vary"
        sentences.append(f"Along a line, {names} {verb} together with {name}.")
    sentences += notes
    if left_out:
        sentences.append(f"{left_out} more lines are not drawn; the CSV file has all results.")
    return " ".join(filter(None, sentences))
