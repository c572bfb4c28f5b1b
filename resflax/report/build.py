"""Lists what a report of runs shows, and writes it: a page, its tables and its pictures."""

from collections.abc import Sequence
from pathlib import Path

from resflax.drawing.picture import to_file
from resflax.files import write_atomically
from resflax.report.collect import RunRecord
from resflax.report.curves import plot_error_against_size, plot_error_curves
from resflax.report.groups import SeedGroup
from resflax.report.page import Page, Section, picture_names
from resflax.report.page_html import render_html
from resflax.report.page_markdown import render_markdown
from resflax.report.tables import (
    PaperNote,
    ReportTable,
    make_comparisons_table,
    make_results_table,
    make_runs_table,
    to_csv,
)

TABLE_FORMATS = {".csv": to_csv}
"""The functions that write a table as a file, by the file's ending."""

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
    *,
    renewed: bool = False,
) -> list[Path]:
    """Writes a report; returns the paths of its files, and of the folder of its pictures.

    The page is NAME.html, and NAME.md is the same as Markdown. `NAME.csv` (the results),
    `NAME-runs.csv` and `NAME-comparisons.csv` have one table each; tables without rows are left
    out. The folder `NAME-pictures` has every picture as SVG and as PDF; a picture of an earlier
    report with another name stays there.

    Args:
      output: the path of the page, which ends in .html.
      runs: the runs to report.
      groups: the same runs, divided into seed groups.
      diagnostics: sections of pictures that come after the report's own pictures.
      unreadable: a line for each run that could not be read, which the page names.
      renewed: whether the report will be written again, so that the page must look for what is new.
    """
    sections = make_sections(output.stem, groups, diagnostics)
    page = Page(_title(runs), _summary(runs, unreadable), tuple(sections), renewed)
    folder = pictures_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _write_pictures(folder, sections)
    tables = _write_tables(output, sections)
    markdown = output.with_suffix(".md")
    write_atomically(markdown, render_markdown(page, folder.name))
    write_atomically(output, render_html(page, folder.name))  # the last: it leads to the others
    return [output, markdown, *tables, *([folder] if folder.is_dir() else [])]


def make_sections(
    name: str, groups: Sequence[SeedGroup], diagnostics: Sequence[Section] = ()
) -> list[Section]:
    """The sections of a report in their order; what is empty is left out.

    Args:
      name: the name of the report's files, without an ending.
      groups: the runs, divided into seed groups.
      diagnostics: sections of pictures that come after the report's own pictures.
    """

    def with_table(
        table: ReportTable, suffix: str, explanation: str, notes: Sequence[PaperNote] = ()
    ) -> Section:
        files = tuple(f"{name}{suffix}{ending}" for ending in TABLE_FORMATS)
        return Section(
            table.title, explanation=explanation, table=table, files=files, notes=tuple(notes)
        )

    results, notes = make_results_table(groups)
    finished = any(group.finished for group in groups)
    sizes = plot_error_against_size(groups) if finished else []
    sections = [
        with_table(results, "", _RESULTS, notes),
        Section("Error against steps", tuple(plot_error_curves(groups)), _CURVES),
        Section("Error against size", tuple(sizes), _SIZES),
        *diagnostics,
        with_table(make_comparisons_table(groups), "-comparisons", _COMPARISONS),
        with_table(make_runs_table(groups), "-runs", _RUNS),
    ]
    return [section for section in sections if section.has_content]


def pictures_folder(output: Path) -> Path:
    """The folder of the pictures of a report whose page is `output`."""
    return output.with_name(f"{output.stem}-pictures")


def _write_pictures(folder: Path, sections: Sequence[Section]) -> None:
    """Writes all pictures, each as SVG and as PDF."""
    for section, names in zip(sections, picture_names(sections), strict=True):
        for picture, name in zip(section.pictures, names, strict=True):
            folder.mkdir(exist_ok=True)
            write_atomically(folder / f"{name}.svg", picture.svg)
            write_atomically(folder / f"{name}.pdf", to_file(picture.figure, "pdf"))


def _write_tables(output: Path, sections: Sequence[Section]) -> list[Path]:
    """Writes the files of all tables, and returns their paths."""
    paths = []
    for section in sections:
        if section.table is not None:
            for name in section.files:
                path = output.with_name(name)
                write_atomically(path, TABLE_FORMATS[path.suffix](section.table))
                paths.append(path)
    return paths


def _title(runs: Sequence[RunRecord]) -> str:
    return ", ".join(sorted({run.experiment.name for run in runs})[:4])


def _summary(runs: Sequence[RunRecord], unreadable: Sequence[str]) -> tuple[str, ...]:
    return f"{count_states(runs)}.", *(f"Left out: {line}." for line in unreadable)


def count_states(runs: Sequence[RunRecord]) -> str:
    """The number of runs in all and in each state: `3 runs: 2 finished, 1 failed`."""
    states = [run.state for run in runs]
    counts = (f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    noun = "run" if len(runs) == 1 else "runs"
    return f"{len(runs):,} {noun}: {', '.join(counts)}"
