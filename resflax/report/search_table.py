"""A search in words and as a table of its trials. It does not import JAX."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from resflax.drawing.axes import plain_number
from resflax.experiment import flat_json
from resflax.report.cells import Cell, ReportTable, count_cell, percent_cell, words_cell
from resflax.report.collect import RunRecord
from resflax.report.labels import value_key
from resflax.report.search_trials import Trial, fields_of, trials_of
from resflax.report.series import is_number, short_name

EXPLANATION = (
    "The search chooses by the error on the held-out examples; test errors have no part in it. The "
    "table has the finished trials first, the best at the top. The others follow in the order of "
    "their last validation errors."
)
"""How the search judges its trials, and in which order the table has them."""

_DIGITS = 4
"""Number of digits of the numbers that the page shows."""


def describe_best(runs: Sequence[RunRecord]) -> list[str]:
    """A sentence on the finished trial with the lowest validation error; none without one.

    Args:
      runs: the trials of one search.
    """
    finished = [t for t in rank(trials_of(runs)) if t.run.result and t.error is not None]
    if not finished:
        return []
    best, fields = finished[0], fields_of(runs)
    values = flat_json(best.run.experiment)
    parts = ", ".join(
        f"{name} {_field_cell(values.get(field)).text}"
        for field, name in zip(fields, _names(fields), strict=True)
    )
    start = (
        f"The only finished trial is trial {best.number}"
        if len(finished) == 1
        else f"The best of {len(finished)} finished trials is trial {best.number}"
    )
    errors = f"its validation error is {best.error:.2f} %"
    if best.run.test_error is not None:
        errors += f" and its test error {percent_cell(best.run.test_error).text}"
    return [f"{start}: {parts}; {errors}." if parts else f"{start}; {errors}."]


def make_trials_table(runs: Sequence[RunRecord], title: str = "Trials") -> ReportTable:
    """Makes a table with one row per trial, in the order of `rank`.

    The page shows numbers of fields in four digits; the CSV has all digits.

    Args:
      runs: the trials of one search.
      title: the title of the table.
    """
    fields, trials = fields_of(runs), rank(trials_of(runs))
    headers = ("trial", *_names(fields), "state", "steps", "validation error", "test error")
    rows = tuple(_row(trial, fields) for trial in trials)
    states = tuple(trial.run.state for trial in trials)
    return ReportTable(title, (*headers, "folder"), rows, states)


def rank(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials before the others, both in rising order of their last errors.

    Trials without an error are the last of their kind.
    """

    def key(trial: Trial) -> tuple[bool, float, int]:
        error = math.inf if trial.error is None else trial.error
        return trial.run.result is None, error, trial.number

    return sorted(trials, key=key)


def _row(trial: Trial, fields: Sequence[str]) -> tuple[Cell, ...]:
    values, run = flat_json(trial.run.experiment), trial.run
    return (
        count_cell(trial.number),
        *(_field_cell(values.get(field)) for field in fields),
        words_cell(run.state),
        count_cell(run.steps_done),
        percent_cell(None if trial.error is None else trial.error / 100),
        percent_cell(run.test_error),
        Cell(run.path.name, str(run.path)),
    )


def _field_cell(value: Any) -> Cell:
    if value is None:
        return Cell("-")
    if isinstance(value, float):
        return Cell(plain_number(float(f"{value:.{_DIGITS}g}")), value)
    if is_number(value):
        return Cell(str(value), value)
    return words_cell(value_key(value) if isinstance(value, list | dict) else str(value))


def _names(fields: Sequence[str]) -> list[str]:
    """The fields in words; those of equal short names have their part of the experiment as well."""
    counts = Counter(map(short_name, fields))
    return [
        short_name(field)
        if counts[short_name(field)] == 1
        else field.replace(".", " ").replace("_", " ")
        for field in fields
    ]
