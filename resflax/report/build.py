"""Writes a report of runs: an HTML page, and its tables as CSV and Markdown."""

from collections.abc import Sequence
from pathlib import Path

from resflax.files import write_atomically
from resflax.report.collect import RunRecord, waiting_lines
from resflax.report.groups import SeedGroup, repetition_lines
from resflax.report.page import Section, render_page
from resflax.report.sections import picture_sections
from resflax.report.tables import (
    as_markdown,
    make_comparisons_table,
    make_results_table,
    make_runs_table,
    to_csv,
    to_markdown,
)

_RESULTS = (
    "Mean ± standard deviation over the seeds of the finished runs, at the last step; n says how "
    "many of the runs are finished. Train error and train loss are means over the last batches, "
    "with augmentation. Time is wall-clock time."
)
_COMPARISONS = (
    "Each difference is the second variant minus the first, paired by seed. p (t) is from the "
    "paired t-test. p (exact) is from the sign-flip permutation test and cannot be below "
    "2 / 2^pairs. Neither is corrected for the number of rows."
)
_RUNS = "Every run, finished or not."


def write_report(
    output: Path,
    runs: Sequence[RunRecord],
    groups: Sequence[SeedGroup],
    diagnostics: Sequence[Section] = (),
    unreadable: Sequence[str] = (),
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
    """
    results, notes = make_results_table(groups)
    runs_table, comparisons = make_runs_table(groups), make_comparisons_table(groups)
    title = ", ".join(sorted({run.experiment.name for run in runs})[:4])
    html = render_page(
        title,
        _summary(runs, groups, unreadable),
        [(results, _RESULTS), (comparisons, _COMPARISONS), (runs_table, _RUNS)],
        notes,
        [*picture_sections(groups, runs), *diagnostics],
    )
    stem = output.with_suffix("")
    tables = (results, comparisons, runs_table)
    markdown = "\n".join(to_markdown(table) for table in tables if table.rows)
    left_out = "".join(f"Left out: {as_markdown(line)}.\n\n" for line in unreadable)
    heading = f"# {as_markdown(title)}"
    texts = {output: html, stem.with_suffix(".md"): f"{heading}\n\n{left_out}{markdown}"}
    texts[stem.with_suffix(".csv")] = to_csv(results)
    for name, table in (("runs", runs_table), ("comparisons", comparisons)):
        if table.rows:
            texts[stem.with_name(f"{stem.name}-{name}.csv")] = to_csv(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_atomically(path, text)
    return list(texts)


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
