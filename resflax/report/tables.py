"""The report's tables: of groups, of runs, of comparisons; as cells, and as CSV and Markdown."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from resflax.report.collect import Group, Run
from resflax.report.papers import PaperFigure, deviations, figure_of
from resflax.report.statistics import Comparison, Spread, compare, spread

_MOST_COMPARISONS = 60


@dataclass(frozen=True)
class Cell:
    """One cell: how it reads, and what it is sorted by and written to CSV as."""

    text: str
    value: float | str | None = None
    std: float | None = None
    """Written to a CSV column of its own."""
    note: int | None = None
    """Number of the footnote behind it."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    states: tuple[str, ...] = ()
    """Of each row, where rows are runs."""


@dataclass(frozen=True)
class Note:
    """A footnote: a paper's figure, its protocol, and where the runs' differs."""

    label: str
    figure: PaperFigure
    deviations: tuple[str, ...]


def percent(value: float | None, digits: int = 2) -> Cell:
    """A fraction as per cent."""
    return Cell("-") if value is None else Cell(f"{100 * value:.{digits}f} %", 100 * value)


def _spread(found: Spread | None, scale: float, digits: int, unit: str = "") -> Cell:
    if found is None:
        return Cell("-")
    mean, std = found.mean * scale, None if found.std is None else found.std * scale
    text = f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
    return Cell(text + unit, mean, std)


def _count(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:,.0f}", value)


def _seconds(value: float | None) -> Cell:
    if value is None:
        return Cell("-")
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return Cell(text, value)


def _of(runs: Sequence[Run], key: str) -> list[float]:
    """A figure of the results that have it."""
    return [run.result[key] for run in runs if run.result and run.result.get(key) is not None]


def ablation(groups: Sequence[Group]) -> tuple[Table, list[Note]]:
    """A row per group: mean and standard deviation over seeds, size, time, the paper's figure."""
    validated = any(_of(group.runs, "validation_error") for group in groups)
    papers = {group.label: figure_of(group.experiment) for group in groups}
    rows, notes = [], []
    for group in groups:
        done = group.finished
        figure = papers[group.label]
        paper = Cell("-")
        if figure is not None:
            found = tuple(deviations(figure, group.experiment))
            notes.append(Note(group.label, figure, found))
            mark = " †" if found else ""
            paper = Cell(figure.shown + mark, figure.error, figure.std, note=len(notes))
        rates = [rate for run in done if (rate := run.images_per_second) is not None]
        sizes = [spread(_of(done, key)) for key in ("params", "macs", "seconds")]
        params, macs, seconds = (None if s is None else s.mean for s in sizes)
        row = [
            Cell(group.label, group.label),
            Cell(f"{len(done)} of {len(group.runs)}", len(done)),
            _spread(spread(_of(done, "test_error")), 100, 2, " %"),
            *([_spread(spread(_of(done, "validation_error")), 100, 2, " %")] if validated else []),
            paper,
            _spread(spread(_of(done, "train_error")), 100, 2, " %"),
            _spread(spread(_of(done, "train_loss")), 1, 4),
            _count(params),
            _count(macs),
            _seconds(seconds),
            _count(sum(rates) / len(rates) if rates else None),
        ]
        rows.append(tuple(row))
    headers = ["variant", "n", "test error"]
    headers += ["validation error"] if validated else []
    headers += ["paper", "train error", "train loss", "parameters", "multiply-adds", "time"]
    headers += ["images/s"]
    return Table("Results", tuple(headers), tuple(rows)), notes


def runs_table(groups: Sequence[Group]) -> Table:
    """A row per run, finished or not."""
    rows, states = [], []
    for group in groups:
        for run in group.runs:
            last = run.lines[-1] if run.lines else {}
            states.append(run.state)
            rows.append(
                (
                    Cell(group.label, group.label),
                    Cell(str(run.experiment.seed), run.experiment.seed),
                    Cell(run.state + (f": {run.why}" if run.why else ""), run.state),
                    _count(run.steps_done),
                    percent(run.test_error),
                    percent(run.result.get("train_error") if run.result else None),
                    _seconds(run.result["seconds"] if run.result else last.get("seconds")),
                    Cell(run.path.name, str(run.path)),
                )
            )
    headers = ("variant", "seed", "state", "steps", "test error", "train error", "time", "folder")
    return Table("Runs", headers, tuple(rows), tuple(states))


def comparisons(groups: Sequence[Group]) -> Table:
    """Pairs of groups that differ in one field (any pair if only one varies), paired by seed."""
    rows = []
    for one, other in itertools.combinations(groups, 2):
        if len(_differing(one, other)) > 1 and not (one.runs[0].variant and other.runs[0].variant):
            continue
        for name, key, scale, digits in (
            ("test error", "test_error", 100, 2),
            ("train loss", "train_loss", 1, 4),
        ):
            found = compare(_by_seed(one, key), _by_seed(other, key))
            if found is not None and found.n > 1:
                rows.append(_comparison(one, other, name, found, scale, digits))
    headers = ("from", "to", "of", "pairs", "difference", "95 % interval", "p (t)", "p (exact)")
    return Table("Comparisons", headers, tuple(rows[:_MOST_COMPARISONS]))


def _comparison(
    one: Group, other: Group, name: str, found: Comparison, scale: float, digits: int
) -> tuple[Cell, ...]:
    low, high = (scale * end for end in found.interval)
    unit = " points" if scale == 100 else ""
    return (
        Cell(one.label, one.label),
        Cell(other.label, other.label),
        Cell(name, name),
        Cell(str(found.n), found.n),
        Cell(f"{scale * found.mean:+.{digits}f}{unit}", scale * found.mean),
        Cell(f"{low:+.{digits}f} to {high:+.{digits}f}{unit}", low),
        _p(found.p_t),
        _p(found.p_exact),
    )


def _p(value: float) -> Cell:
    if math.isnan(value):
        return Cell("-")
    return Cell("< 0.0001" if value < 1e-4 else f"{value:.4f}", value)


def _differing(one: Group, other: Group) -> list[str]:
    return [name for name in one.fields if one.fields[name] != other.fields[name]]


def _by_seed(group: Group, key: str) -> dict[int, float]:
    return {
        run.experiment.seed: run.result[key]
        for run in group.finished
        if run.result and run.result.get(key) is not None
    }


def to_csv(table: Table) -> str:
    """Numbers without units (errors in per cent); standard deviations in columns of their own."""
    wide = [any(row[i].std is not None for row in table.rows) for i in range(len(table.headers))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    pairs = [(name, f"{name} std") for name in table.headers]
    writer.writerow(_columns(pairs, wide))
    for row in table.rows:
        writer.writerow(_columns([(cell.value, cell.std) for cell in row], wide))
    return out.getvalue()


def _columns(pairs: Sequence[tuple[object, object]], wide: Sequence[bool]) -> list[object]:
    """The second of each pair where its column is wide."""
    return [
        value for pair, both in zip(pairs, wide, strict=True) for value in pair[: 2 if both else 1]
    ]


def to_markdown(table: Table) -> str:
    """A heading and a table."""
    lines = [f"## {table.title}", "", _row(table.headers), _row(["---"] * len(table.headers))]
    lines += [_row([cell.text for cell in row]) for row in table.rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
