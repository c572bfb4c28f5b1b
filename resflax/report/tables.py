"""The report's tables of results, runs and comparisons, and their texts as CSV and Markdown."""

import csv
import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resflax.report.collect import RunRecord
from resflax.report.groups import SeedGroup
from resflax.report.papers import PaperFigure, nearest_figure, protocol_differences
from resflax.report.statistics import Comparison, compare_by_seed, compute_spread
from resflax.text import duration

_MOST_COMPARISONS = 60
"""The most rows in the table of comparisons; later rows are left out."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """The text that the page and the Markdown show."""
    value: float | str | None = None
    """The value by which the page sorts and which the CSV has; None if there is nothing to show."""
    std: float | None = None
    """Standard deviation of the value; the CSV has it in a column of its own."""
    note: int | None = None
    """Number of the cell's note below the table."""


@dataclass(frozen=True)
class ReportTable:
    """Rows of cells under headers, with a title."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    states: tuple[str, ...] = ()
    """The state of each row's run; empty if the rows are not runs."""


@dataclass(frozen=True)
class PaperNote:
    """A note on a group's figure in a paper, and on how the protocols differ."""

    label: str
    """Label of the group."""
    figure: PaperFigure
    differences: tuple[str, ...]
    """How the group's protocol differs from the paper's, as `protocol_differences` lists it."""


def _percent_cell(fraction: float | None) -> Cell:
    return Cell("-") if fraction is None else Cell(f"{100 * fraction:.2f} %", 100 * fraction)


def _spread_cell(values: Sequence[float], scale: float, digits: int, unit: str = "") -> Cell:
    spread = compute_spread(values)
    if spread is None:
        return Cell("-")
    mean, std = spread.mean * scale, None if spread.std is None else spread.std * scale
    text = f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
    return Cell(text + unit, mean, std)


def _count_cell(count: float | None) -> Cell:
    return Cell("-") if count is None else Cell(f"{count:,.0f}", count)


def _duration_cell(seconds: float | None) -> Cell:
    return Cell("-") if seconds is None else Cell(duration(seconds), seconds)


def _p_cell(p: float) -> Cell:
    if math.isnan(p):
        return Cell("-")
    return Cell("< 0.0001" if p < 1e-4 else f"{p:.4f}", p)


def _result_values(runs: Sequence[RunRecord], key: str) -> list[float]:
    """The values under a key of result.json, for the runs that have one."""
    return [run.result[key] for run in runs if run.result and run.result.get(key) is not None]


def _mean(values: Sequence[float]) -> float | None:
    spread = compute_spread(values)
    return None if spread is None else spread.mean


def make_results_table(groups: Sequence[SeedGroup]) -> tuple[ReportTable, list[PaperNote]]:
    """Makes a table with one row per group, and notes on the papers' figures in the table."""
    validated = any(_result_values(group.runs, "validation_error") for group in groups)
    rows, notes = [], []
    for group in groups:
        runs = group.finished
        figure = nearest_figure(group.experiment)
        paper = Cell("-")
        if figure is not None:
            differences = tuple(protocol_differences(figure, group.experiment))
            notes.append(PaperNote(group.label, figure, differences))
            mark = " †" if differences else ""
            paper = Cell(figure.printed + mark, figure.error, figure.std, note=len(notes))
        rates = [rate for run in runs if (rate := run.images_per_second) is not None]
        validation = [_spread_cell(_result_values(runs, "validation_error"), 100, 2, " %")]
        row = [
            Cell(group.label, group.label),
            Cell(f"{len(runs)} of {len(group.runs)}", len(runs)),
            _spread_cell(_result_values(runs, "test_error"), 100, 2, " %"),
            *(validation if validated else []),
            paper,
            _spread_cell(_result_values(runs, "train_error"), 100, 2, " %"),
            _spread_cell(_result_values(runs, "train_loss"), 1, 4),
            _count_cell(_mean(_result_values(runs, "params"))),
            _count_cell(_mean(_result_values(runs, "macs"))),
            _duration_cell(_mean(_result_values(runs, "seconds"))),
            _count_cell(_mean(rates)),
        ]
        rows.append(tuple(row))
    headers = ["variant", "n", "test error"]
    headers += ["validation error"] if validated else []
    headers += ["paper", "train error", "train loss", "parameters", "multiply-adds", "time"]
    headers += ["images/s"]
    return ReportTable("Results", tuple(headers), tuple(rows)), notes


def make_runs_table(groups: Sequence[SeedGroup]) -> ReportTable:
    """Makes a table with one row per run, finished or not."""
    rows, states = [], []
    for group in groups:
        for run in group.runs:
            last_line = run.lines[-1] if run.lines else {}
            seconds = run.result["seconds"] if run.result else last_line.get("seconds")
            states.append(run.state)
            rows.append(
                (
                    Cell(group.label, group.label),
                    Cell(str(run.experiment.seed), run.experiment.seed),
                    Cell(run.state + (f": {run.why}" if run.why else ""), run.state),
                    _count_cell(run.steps_done),
                    _percent_cell(run.test_error),
                    _percent_cell(run.result.get("train_error") if run.result else None),
                    _duration_cell(seconds),
                    Cell(run.path.name, str(run.path)),
                )
            )
    headers = ("variant", "seed", "state", "steps", "test error", "train error", "time", "folder")
    return ReportTable("Runs", headers, tuple(rows), tuple(states))


def make_comparisons_table(groups: Sequence[SeedGroup]) -> ReportTable:
    """Makes a table that compares groups that differ in one field, with runs paired by seed.

    Groups of a sweep that names its variants are all compared with each other. A row needs at least
    two seeds that both groups have. The table ends after 60 rows.
    """
    headers = ("from", "to", "of", "pairs", "difference", "95 % interval", "p (t)", "p (exact)")
    rows = itertools.islice(_comparison_rows(groups), _MOST_COMPARISONS)
    return ReportTable("Comparisons", headers, tuple(rows))


def _comparison_rows(groups: Sequence[SeedGroup]) -> Iterator[tuple[Cell, ...]]:
    for first, second in itertools.combinations(groups, 2):
        named = first.runs[0].variant and second.runs[0].variant
        if len(_differing_fields(first, second)) > 1 and not named:
            continue
        for name, key, scale, digits, unit in (
            ("test error", "test_error", 100, 2, " points"),
            ("train loss", "train_loss", 1, 4, ""),
        ):
            comparison = compare_by_seed(_by_seed(first, key), _by_seed(second, key))
            if comparison is not None and comparison.n > 1:
                cells = _comparison_cells(comparison, scale, digits, unit)
                labels = (first.label, second.label, name)
                yield (*(Cell(label, label) for label in labels), *cells)


def _comparison_cells(
    comparison: Comparison, scale: float, digits: int, unit: str
) -> tuple[Cell, ...]:
    low, high = (scale * end for end in comparison.interval)
    mean = scale * comparison.mean
    return (
        Cell(str(comparison.n), comparison.n),
        Cell(f"{mean:+.{digits}f}{unit}", mean),
        Cell(f"{low:+.{digits}f} to {high:+.{digits}f}{unit}", low),
        _p_cell(comparison.p_t),
        _p_cell(comparison.p_exact),
    )


def _differing_fields(first: SeedGroup, second: SeedGroup) -> list[str]:
    return [name for name in first.fields if first.fields[name] != second.fields[name]]


def _by_seed(group: SeedGroup, key: str) -> dict[int, float]:
    return {
        run.experiment.seed: run.result[key]
        for run in group.finished
        if run.result and run.result.get(key) is not None
    }


def to_csv(table: ReportTable) -> str:
    """The table as CSV.

    Numbers have no units, errors are in per cent, and standard deviations have columns of their
    own, each after the column of its mean. A text that a spreadsheet would take for a formula has
    an apostrophe before it (OWASP, "CSV Injection").
    """
    columns = range(len(table.headers))
    has_std = [any(row[i].std is not None for row in table.rows) for i in columns]
    file = io.StringIO()
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    plain.writerow(_csv_row([(name, f"{name} std") for name in table.headers], has_std))
    for cells in table.rows:
        row = _csv_row([(cell.value, cell.std) for cell in cells], has_std)
        # The csv module does not quote a carriage return by itself, and would read it as a new row.
        (quoted if any("\r" in str(entry) for entry in row) else plain).writerow(row)
    return file.getvalue()


def _csv_row(pairs: Sequence[tuple[object, object]], has_std: Sequence[bool]) -> list[object]:
    """The first entry of each pair, and the second if its column has standard deviations."""
    return [
        _no_formula(entry)
        for pair, with_std in zip(pairs, has_std, strict=True)
        for entry in pair[: 2 if with_std else 1]
    ]


_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What formulas begin with. The last four are = + - @ as wide characters."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def _no_formula(entry: object) -> object:
    """The entry, with an apostrophe before a text that a spreadsheet would run."""
    if isinstance(entry, str) and _FORMULA.match(entry) and not _NUMBER.fullmatch(entry):
        return f"'{entry}"
    return entry


def to_markdown(table: ReportTable) -> str:
    """The table as Markdown, under its title as a heading."""
    separator = " | ".join(["---"] * len(table.headers))
    lines = [f"## {as_markdown(table.title)}", "", _markdown_row(table.headers)]
    lines += [
        f"| {separator} |",
        *(_markdown_row([cell.text for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(map(as_markdown, texts)) + " |"


_MARKUP = re.compile(r"[\\`*<>\[\]|~&#$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that may be markup. An underscore within a word is none."""


def as_markdown(text: str) -> str:
    """Markdown (with GitHub's tables) that is shown as the text itself, and has no markup."""
    escaped = _MARKUP.sub(r"\\\g<0>", text)
    return re.sub(r"[\x00-\x1f\x7f]", lambda control: f"&#{ord(control[0])};", escaped)
