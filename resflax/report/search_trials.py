"""Reads the trials of a search, and finds their places on axes. It does not import JAX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from resflax.drawing.axes import Direction, fit_scale, tick_at, wrap
from resflax.report.collect import RunRecord
from resflax.report.groups import SeedGroup
from resflax.report.series import is_number, short_name

_LETTERS = 16
"""The most letters of a value's label."""


@dataclass(frozen=True)
class Trial:
    """A trial of a search, as it is drawn."""

    number: int
    """Its place in the search, from 1 on."""
    run: RunRecord
    error: float | None
    """Its last error on the held-out examples, in per cent; None if none was measured."""


@dataclass(frozen=True)
class Places:
    """Where the trials lie on an axis that stands for a field."""

    name: str
    """The field in words."""
    values: tuple[float, ...]
    """The place of each trial."""
    labels: tuple[str, ...]
    """The values of a field of words, which lie at 0, 1, ...; empty for a field of numbers."""

    def fit(self, axes: Axes, direction: Direction) -> None:
        """Sets the scale, the ticks and the name of an axis."""
        axis = axes.xaxis if direction == "x" else axes.yaxis
        axis.set_label_text(self.name)
        if not self.labels:
            fit_scale(axes, direction, self.values)
            tick_at(axes, direction, self.values)
            return
        turned = direction == "x" and sum(map(len, self.labels)) > 2 * _LETTERS
        options: dict[str, Any] = {"rotation": 25, "ha": "right"} if turned else {}
        axis.set_ticks(range(len(self.labels)), self.labels, **options)
        limits = (-0.5, len(self.labels) - 0.5)
        (axes.set_xlim if direction == "x" else axes.set_ylim)(*limits)


def best_first(groups: Sequence[SeedGroup], most: int = 4) -> list[SeedGroup]:
    """The groups with the lowest errors on held-out examples, the lowest first.

    Args:
      groups: the trials of searches, each of which is a group of its own.
      most: the most groups that are returned.
    """
    errors = [error_of(group.runs[0]) for group in groups]
    ranked = sorted(
        (i for i, error in enumerate(errors) if error is not None and groups[i].finished),
        key=lambda i: (errors[i], i),
    )
    return [groups[i] for i in ranked[:most]]


def trials_of(runs: Sequence[RunRecord]) -> list[Trial]:
    """The trials in the order in which the search proposed them."""
    ordered = sorted(runs, key=lambda run: -1 if run.number is None else run.number)
    return [
        Trial(place if run.number is None else run.number + 1, run, error_of(run))
        for place, run in enumerate(ordered, start=1)
    ]


def error_of(run: RunRecord) -> float | None:
    """The error by which a search judges a run, in per cent; before its end, the newest one."""
    if run.result is not None:
        error = run.result.get("validation_error")
    else:
        errors = [line.get("error") for line in run.lines if line["split"] == "validation"]
        error = errors[-1] if errors else None
    return None if error is None else 100 * error


def fields_of(runs: Sequence[RunRecord]) -> list[str]:
    """The dotted names of the fields that the search chooses."""
    return list(dict.fromkeys(name for run in runs if run.sweep for name in run.sweep.fields))


def places_of(name: str, values: Sequence[Any], trials: Sequence[Trial]) -> Places:
    """The trials' places on an axis that stands for a field.

    Args:
      name: the dotted name of the field.
      values: the field's value in each trial.
      trials: the trials.
    """
    if all(map(is_number, values)):
        return Places(short_name(name), tuple(map(float, values)), ())
    kinds = list(dict.fromkeys(map(str, sorted(values, key=lambda v: (is_number(v), str(v))))))
    beside = (
        kinds.index(str(value)) + _jitter(trial.number)
        for value, trial in zip(values, trials, strict=True)
    )
    labels = tuple(wrap(kind, _LETTERS, rows=1) for kind in kinds)
    return Places(short_name(name), tuple(beside), labels)


def _jitter(number: int) -> float:
    """A distance from -0.2 to 0.2, so that trials with the same word do not lie on each other."""
    return 0.4 * (number * 0.618034 % 1 - 0.5)
