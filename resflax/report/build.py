"""Writes a report of runs: an HTML page, and its tables as CSV and Markdown."""

from collections.abc import Sequence
from pathlib import Path

from resflax.files import write_atomically
from resflax.report import comparisons, forest
from resflax.report.cells import ReportTable, first_rows
from resflax.report.collect import RunRecord, waiting_lines
from resflax.report.curves import plot_error_against_size, plot_error_curves
from resflax.report.groups import SeedGroup, repetition_lines
from resflax.report.page import Section, render_page
from resflax.report.sentences import sentences
from resflax.report.tables import make_results_table, make_runs_table
from resflax.report.texts import as_markdown, to_csv, to_markdown

_RESULTS = (
    "Mean ± standard deviation over the seeds of the finished runs, at the last step; n says how "
    "many of the runs are finished. Train error and train loss are means over the last batches, "
    "with augmentation. Time is wall-clock time."
)
_RUNS = "Every run, finished or not."
_CURVES = (
    "Thin lines show the error on the training batches, with augmentation. Bold lines show the "
    "error on the test split, or on the validation examples where those were measured more often. "
    "Each line is a mean over the seeds; unfinished runs are included as far as they went."
)
_SIZES = (
    "Error of the finished runs at the end of training: the mean over the seeds, with the standard "
    "deviation as bars."
)


def write_report(
    output: Path,
    runs: Sequence[RunRecord],
    groups: Sequence[SeedGroup],
    diagnostics: Sequence[Section] = (),
    unreadable: Sequence[str] = (),
    against: str | None = None,
) -> list[Path]:
    """Writes the page and its tables, and returns the paths of the files.

    The page is NAME.html. `NAME.md` has all tables, and `NAME.csv` (the results), `NAME-runs.csv`
    and `NAME-comparisons.csv` have one table each. Tables without rows are left out, except in
    `NAME.csv`.

    Args:
      output: the path of the page, which ends in .html.
      runs: the runs to report.
      groups: the same runs, divided into seed groups.
      diagnostics: sections of pictures that come after the report's own sections.
      unreadable: a line for each run that could not be read, which the page names.
      against: what the groups are compared with, as `find_reference` reads it.

    Raises:
      UsageError: if `against` fits no group and no value.
    """
    results, notes = make_results_table(groups)
    compared = comparisons.compare(groups, against)
    runs_table = make_runs_table(groups)
    comparisons_table = comparisons.make_comparisons_table(compared)
    title = _title(runs)
    sections = [Section("Error against steps", tuple(plot_error_curves(groups)), _CURVES)]
    if any(group.finished for group in groups):
        sections.append(
            Section("Error against size", tuple(plot_error_against_size(groups)), _SIZES)
        )
    if compared:
        plots = tuple(forest.plot_comparisons(compared))
        words = tuple(sentences(compared))
        sections.append(Section("Differences", plots, forest.EXPLANATION, words))
    name = output.stem
    html = render_page(
        title,
        _summary(runs, groups, unreadable),
        [
            _on_page(results, 2000, _RESULTS, f"{name}.csv"),
            _on_page(comparisons_table, 100, comparisons.EXPLANATION, f"{name}-comparisons.csv"),
            _on_page(runs_table, 2000, _RUNS, f"{name}-runs.csv"),
        ],
        notes,
        [*sections, *diagnostics],
    )
    stem = output.with_suffix("")
    tables = (results, comparisons_table, runs_table)
    markdown = "\n".join(to_markdown(table) for table in tables if table.rows)
    left_out = "".join(f"Left out: {as_markdown(line)}.\n\n" for line in unreadable)
    heading = f"# {as_markdown(title)}"
    texts = {output: html, stem.with_suffix(".md"): f"{heading}\n\n{left_out}{markdown}"}
    texts[stem.with_suffix(".csv")] = to_csv(results)
    for name, table in (("runs", runs_table), ("comparisons", comparisons_table)):
        if table.rows:
            texts[stem.with_name(f"{stem.name}-{name}.csv")] = to_csv(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_atomically(path, text)
    return list(texts)


def _title(runs: Sequence[RunRecord]) -> str:
    names = sorted({run.experiment.name for run in runs})
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _on_page(table: ReportTable, most: int, explanation: str, file: str) -> tuple[ReportTable, str]:
    """The first rows of a table, and its explanation, which says where the others are."""
    shown, others = first_rows(table, most)
    return shown, explanation + (f" {others:,} more rows are in {file}." if others else "")


def _summary(
    runs: Sequence[RunRecord], groups: Sequence[SeedGroup], unreadable: Sequence[str]
) -> list[str]:
    states = [run.state for run in runs]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return [
        f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(counts)}.",
        *(f"{line}." for line in waiting_lines(runs)),
        *(f"{line[0].upper()}{line[1:]}." for line in repetition_lines(groups)),
        *(f"Left out: {x}." for x in unreadable),
    ]
