"""Draws one row for each group: where no numeric field varies. It does not import JAX."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from resflax.drawing.axes import add_legend, fit_scale, without_outliers, wrap
from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, MARKERS, SIZE, plot_style
from resflax.report.groups import SeedGroup
from resflax.report.marks import draw_row, paper_handle
from resflax.report.measures import Measure, drawn_values, missing_runs, outliers_sentence
from resflax.report.paper_marks import legend_label, sources_sentence

MOST_ROWS = 40
"""The most groups in one picture."""

_ROW = 0.24
"""Height of a row in inches; a second line of its label makes it higher."""
_LETTERS = 30
"""Width of the labels in letters."""


def plot_variants(groups: Sequence[SeedGroup], measure: Measure) -> Picture:
    """Plots a number for each group: its mean, deviation and seeds, and the paper's figure.

    Args:
      groups: the groups, in the order of the rows. Those without the number have no row, and only
        the first `MOST_ROWS` others have one.
      measure: the number.
    """
    measured = [group for group in groups if measure.of(group)]
    shown = measured[:MOST_ROWS]
    left_out = set(map(id, measured[MOST_ROWS:]))
    labels = [wrap(group.label, _LETTERS) for group in shown]
    lines = [label.count("\n") + 1 for label in labels]
    heights = [max(1.0, 0.62 * n) for n in lines]
    places = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    papers = [paper for g in shown if (paper := measure.paper_figure(g)) is not None]
    errors = [paper.error for paper in papers if paper.error is not None]
    drawn = drawn_values(shown, measure)
    with plot_style():
        figure = Figure(figsize=(SIZE[0], 0.8 + _ROW * sum(heights)), layout="constrained")
        axes = figure.subplots()
        values = without_outliers(drawn) + errors
        fit_scale(axes, "x", values, from_zero=True, most=measure.most)
        for y, group in zip(places, shown, strict=True):
            draw_row(axes, y, group, measure)
        axes.set_ylim(sum(heights), 0)
        axes.set_yticks(places, labels, fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(measure.axis_label)
        if papers:
            label = legend_label(papers, shown, "hollow: the paper's figure")
            add_legend(figure, [(paper_handle(MARKERS[1], COLORS[1]), label)])
    title = f"{measure.name.capitalize()} of every variant"
    means = (f"{' '.join(group.label.split())}: {measure.mean_in_words(group)}" for group in shown)
    return Picture(
        title,
        figure,
        f"{title}. Means: {'; '.join(means)}.",
        _caption(
            len(left_out),
            sources_sentence(papers),
            outliers_sentence(drawn),
            missing_runs([group for group in groups if id(group) not in left_out]),
        ),
    )


def _caption(left_out: int, *notes: str) -> str:
    sentences = [
        "Filled marks are means over the seeds at the end of training, bars are standard "
        "deviations, and dots are single seeds.",
        *notes,
    ]
    if left_out:
        sentences.append(f"{left_out} more variants are not drawn; the CSV file has them all.")
    return " ".join(filter(None, sentences))
