"""The report's tables of results and of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from resflax.report.cells import (
    Cell,
    ReportTable,
    count_cell,
    decimal,
    duration_cell,
    percent_cell,
    words_cell,
)
from resflax.report.collect import RunRecord
from resflax.report.groups import SeedGroup
from resflax.report.papers import PaperFigure, protocol_differences
from resflax.report.statistics import compute_spread


@dataclass(frozen=True)
class PaperNote:
    """A note on a group's figure in a paper, and on how the protocols differ."""

    label: str
    """Label of the group."""
    figure: PaperFigure
    differences: tuple[str, ...]
    """How the group's protocol differs from the paper's, as `protocol_differences` lists it."""
    same_as: int | None = None
    """The number, from 1, of the first note with the same differences; None if it is this."""


def _spread_cell(values: Sequence[float], scale: float, digits: int, unit: str = "") -> Cell:
    spread = compute_spread(values)
    if spread is None:
        return Cell("-")
    mean, std = spread.mean * scale, None if spread.std is None else spread.std * scale
    text = decimal(mean, digits) + ("" if std is None else f" ± {decimal(std, digits)}")
    return Cell(text + unit, mean, std, unit=unit)


def _result_values(runs: Sequence[RunRecord], key: str) -> list[float]:
    """The values under a key of result.json, for the runs that have one."""
    return [run.result[key] for run in runs if run.result and run.result.get(key) is not None]


def _mean(values: Sequence[float]) -> float | None:
    spread = compute_spread(values)
    return None if spread is None else spread.mean


def make_results_table(groups: Sequence[SeedGroup]) -> tuple[ReportTable, list[PaperNote]]:
    """Makes a table with one row per group, and notes on the papers' figures in the table.

    Only groups with finished runs have a paper's figure. If there is none, the table has no column
    for it.
    """
    validated = any(_result_values(group.runs, "validation_error") for group in groups)
    papers, notes = _paper_cells(groups)
    rows = []
    for group, paper in zip(groups, papers, strict=True):
        runs = group.finished
        rates = [rate for run in runs if (rate := run.images_per_second) is not None]
        validation = [_spread_cell(_result_values(runs, "validation_error"), 100, 2, " %")]
        row = [
            words_cell(group.label),
            Cell(f"{len(runs)} of {len(group.runs)}", len(runs)),
            _spread_cell(_result_values(runs, "test_error"), 100, 2, " %"),
            *(validation if validated else []),
            *([paper] if notes else []),
            _spread_cell(_result_values(runs, "train_error"), 100, 2, " %"),
            _spread_cell(_result_values(runs, "train_loss"), 1, 4),
            count_cell(_mean(_result_values(runs, "params"))),
            count_cell(_mean(_result_values(runs, "macs"))),
            duration_cell(_mean(_result_values(runs, "seconds"))),
            count_cell(_mean(rates)),
        ]
        rows.append(tuple(row))
    headers = ["variant", "n", "test error"]
    headers += ["validation error"] if validated else []
    headers += ["paper"] if notes else []
    headers += ["train error", "train loss", "parameters", "multiply-adds", "time", "images/s"]
    return ReportTable("Results", tuple(headers), tuple(rows)), notes


def _paper_cells(groups: Sequence[SeedGroup]) -> tuple[list[Cell], list[PaperNote]]:
    """A cell for each group with its paper's figure, and the notes on these figures."""
    cells: list[Cell] = []
    notes: list[PaperNote] = []
    first: dict[tuple[str, ...], int] = {}
    for group in groups:
        figure = group.paper_figure if group.finished else None
        if figure is None:
            cells.append(Cell("-"))
            continue
        differences = tuple(protocol_differences(figure, group.experiment))
        number = len(notes) + 1
        same_as = first.setdefault(differences, number) if differences else number
        notes.append(
            PaperNote(group.label, figure, differences, same_as if same_as < number else None)
        )
        text = figure.printed + (" †" if differences else "")
        cells.append(Cell(text, figure.error, figure.std, unit=" %", note=number))
    return cells, notes


def make_runs_table(groups: Sequence[SeedGroup]) -> ReportTable:
    """Makes a table with one row per run, finished or not.

    A run that is not used, because its seed was run more than once, says so in its state.
    """
    rows, states = [], []
    for group in groups:
        for run in group.all_runs:
            states.append(run.state)
            rows.append(_run_row(group, run))
    headers = ("variant", "seed", "state", "steps", "test error", "train error", "time", "folder")
    return ReportTable("Runs", headers, tuple(rows), tuple(states))


def _run_row(group: SeedGroup, run: RunRecord) -> tuple[Cell, ...]:
    last_line = run.lines[-1] if run.lines else {}
    seconds = run.result["seconds"] if run.result else last_line.get("seconds")
    state = Cell(run.state + (f": {run.why}" if run.why else ""), run.state)
    if any(run is repeated for repeated in group.repeated):
        why = f" ({run.why})" if run.why else ""
        state = words_cell(f"{run.state}{why}, not used: its seed was run more than once")
    return (
        words_cell(group.label),
        Cell(str(run.experiment.seed), run.experiment.seed),
        state,
        count_cell(run.steps_done),
        percent_cell(run.test_error),
        percent_cell(run.result.get("train_error") if run.result else None),
        duration_cell(seconds),
        Cell(run.path.name, str(run.path)),
    )
