"""Lists what a report of runs shows, and writes it: a page, its tables and its pictures."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from resflax.drawing.picture import to_file
from resflax.files import write_atomically
from resflax.report import comparisons, forest
from resflax.report.cells import ReportTable
from resflax.report.collect import RunRecord, waiting_lines
from resflax.report.groups import SeedGroup, repetition_lines
from resflax.report.latex import to_latex
from resflax.report.page import Page, Section, picture_names
from resflax.report.page_html import render_html
from resflax.report.page_markdown import render_markdown
from resflax.report.sections import course_sections, finding_sections, search_sections
from resflax.report.sentences import sentences
from resflax.report.tables import make_results_table, make_runs_table
from resflax.report.texts import to_csv

TABLE_FORMATS: dict[str, Callable[[ReportTable, str, str], str]] = {
    ".csv": lambda table, name, title: to_csv(table),
    ".tex": to_latex,
}
"""The functions that write a table as a file, by the file's ending.

They take the table, the name of the report's files and the report's title.
"""

_RESULTS = (
    "Mean ± standard deviation over the seeds of the finished runs, at the last step; n says how "
    "many of the runs are finished. Train error and train loss are means over the last batches, "
    "with augmentation. Time is wall-clock time."
)
_RUNS = "Every run, finished or not."


def write_report(
    output: Path,
    runs: Sequence[RunRecord],
    groups: Sequence[SeedGroup],
    diagnostics: Sequence[Section] = (),
    unreadable: Sequence[str] = (),
    *,
    against: str | None = None,
    renewed: bool = False,
) -> list[Path]:
    """Writes a report; returns the paths of its files, and of the folder of its pictures.

    The page is NAME.html, and NAME.md is the same as Markdown. `NAME.csv` (the results),
    `NAME-runs.csv`, `NAME-comparisons.csv` and `NAME-search.csv` (the trials of a search; those of
    further ones are in `NAME-search-2.csv` and so on) have one table each; tables without rows are
    left out, and such files of an earlier report are removed. The folder `NAME-pictures` has every
    picture as SVG and as PDF; a picture of an earlier report with another name stays there.

    Args:
      output: the path of the page, which ends in .html.
      runs: the runs to report.
      groups: the same runs, divided into seed groups.
      diagnostics: sections of pictures that come after the report's own pictures.
      unreadable: a line for each run that could not be read, which the page names.
      against: what the groups are compared with, as `find_reference` reads it.
      renewed: whether the report will be written again, so that the page must look for what is new.

    Raises:
      UsageError: if `against` fits no group and no value.
    """
    sections = make_sections(output.stem, groups, diagnostics, against)
    page = Page(_title(runs), _summary(runs, groups, unreadable), tuple(sections), renewed)
    folder = pictures_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _write_pictures(folder, sections)
    tables = _write_tables(output, page)
    markdown = output.with_suffix(".md")
    write_atomically(markdown, render_markdown(page, folder.name))
    write_atomically(output, render_html(page, folder.name))  # the last: it leads to the others
    return [output, markdown, *tables, *([folder] if folder.is_dir() else [])]


def make_sections(
    name: str,
    groups: Sequence[SeedGroup],
    diagnostics: Sequence[Section] = (),
    against: str | None = None,
) -> list[Section]:
    """The sections of a report in their order; what is empty is left out.

    Args:
      name: the name of the report's files, without an ending.
      groups: the runs, divided into seed groups.
      diagnostics: sections of pictures that come after the report's own pictures.
      against: what the groups are compared with, as `find_reference` reads it.

    Raises:
      UsageError: if `against` fits no group and no value.
    """

    def files(suffix: str) -> tuple[str, ...]:
        return tuple(f"{name}{suffix}{ending}" for ending in TABLE_FORMATS)

    results, notes = make_results_table(groups)
    compared = comparisons.compare(groups, against)
    searches = [
        dataclasses.replace(section, files=files("-search" if n == 1 else f"-search-{n}"))
        for n, section in enumerate(search_sections(groups), start=1)
    ]
    sections = [
        *finding_sections(groups),
        *searches,
        Section(
            results.title,
            explanation=_RESULTS,
            table=results,
            files=files(""),
            notes=tuple(notes),
        ),
        Section(
            "Differences",
            pictures=tuple(forest.plot_comparisons(compared)),
            explanation=f"{comparisons.EXPLANATION} {forest.EXPLANATION}",
            sentences=tuple(sentences(compared)),
            table=comparisons.make_comparisons_table(compared),
            files=files("-comparisons"),
        ),
        *course_sections(groups),
        *diagnostics,
        Section("Runs", explanation=_RUNS, table=make_runs_table(groups), files=files("-runs")),
    ]
    return [section for section in sections if section.has_content]


def report_files(output: Path) -> list[Path]:
    """The files that a report may have beside its pictures, if its page is `output`.

    A report of several searches has more: `NAME-search-2.csv` and so on.
    """
    return [output, output.with_suffix(".md"), *_table_files(output)]


def _table_files(output: Path) -> list[Path]:
    suffixes = ("", "-search", "-comparisons", "-runs")
    return [
        output.with_name(f"{output.stem}{suffix}{ending}")
        for suffix in suffixes
        for ending in TABLE_FORMATS
    ]


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


def _write_tables(output: Path, page: Page) -> list[Path]:
    """Writes the files of all tables, and returns their paths.

    It removes those of an earlier report that this one does not have.
    """
    paths: list[Path] = []
    for section in page.sections:
        if section.table is not None:
            for name in section.files:
                path = output.with_name(name)
                text = TABLE_FORMATS[path.suffix](section.table, output.stem, page.title)
                write_atomically(path, text)
                paths.append(path)
    for path in set(_table_files(output)) - set(paths):
        path.unlink(missing_ok=True)
    return paths


def _title(runs: Sequence[RunRecord]) -> str:
    names = sorted({run.experiment.name for run in runs})
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _summary(
    runs: Sequence[RunRecord], groups: Sequence[SeedGroup], unreadable: Sequence[str]
) -> tuple[str, ...]:
    return (
        f"{count_states(runs)}.",
        *(f"{line}." for line in waiting_lines(runs)),
        *(f"{line[0].upper()}{line[1:]}." for line in repetition_lines(groups)),
        *(f"Left out: {line}." for line in unreadable),
    )


def count_states(runs: Sequence[RunRecord]) -> str:
    """The number of runs in all and in each state: `3 runs: 2 finished, 1 failed`."""
    states = [run.state for run in runs]
    counts = (f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    noun = "run" if len(runs) == 1 else "runs"
    return f"{len(runs):,} {noun}: {', '.join(counts)}"
