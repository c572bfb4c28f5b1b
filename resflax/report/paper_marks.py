"""Finds the papers' figures that belong into a picture. It does not import JAX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resflax.report.groups import SeedGroup
from resflax.report.measures import Measure
from resflax.report.papers import PaperFigure
from resflax.report.series import Series


@dataclass(frozen=True)
class PaperMark:
    """A paper's figure and its place in a picture."""

    x: float
    figure: PaperFigure
    series: Series | None
    """The series to which it belongs; None if it belongs to several."""


def find_paper_marks(
    all_series: Sequence[Series],
    measure: Measure,
    place: Callable[[PaperFigure, float], float | None] = lambda figure, x: x,
) -> list[PaperMark]:
    """The papers' figures for the groups of a picture, each of them once.

    Args:
      all_series: the series of the picture.
      measure: the number that is drawn. Papers have figures for test errors only.
      place: gives the place of a figure on the x axis, from the group's own; None if the figure has
        no place there.
    """
    found: dict[tuple[float, int], PaperMark] = {}
    for series in all_series:
        for x, group in zip(series.xs, series.groups, strict=True):
            figure = measure.paper_figure(group) if measure.of(group) else None
            there = None if figure is None else place(figure, x)
            if figure is None or there is None:
                continue
            mark = found.setdefault((there, id(figure)), PaperMark(there, figure, series))
            if mark.series is not series:
                found[there, id(figure)] = PaperMark(there, figure, None)
    return list(found.values())


def errors_of(marks: Sequence[PaperMark]) -> list[float]:
    """The errors of the figures that have one, in per cent."""
    return [mark.figure.error for mark in marks if mark.figure.error is not None]


def data_beside(figures: Sequence[PaperFigure], groups: Sequence[SeedGroup]) -> str:
    """The names of the papers' data; "" if the groups have the same data."""
    papers = dict.fromkeys(figure.protocol.data.name for figure in figures)
    return ", ".join(papers) if papers.keys() - {g.experiment.data.name for g in groups} else ""


def legend_label(
    figures: Sequence[PaperFigure],
    groups: Sequence[SeedGroup],
    label: str = "hollow: the papers' figures",
) -> str:
    """The label of the hollow marks in a legend, with the papers' data if the runs have others."""
    data = data_beside(figures, groups)
    return f"{label} ({data})" if data else label


def sources_sentence(figures: Sequence[PaperFigure]) -> str:
    """A sentence that says what the hollow marks are; "" without figures."""
    if not figures:
        return ""
    sources = dict.fromkeys(f"{f.source} ({f.protocol.data.name})" for f in figures)
    return (
        "Hollow marks are what papers report for the same networks, on their own data and "
        f"protocol: {'; '.join(sources)}."
    )
