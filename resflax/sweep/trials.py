"""The trials of a sweep: experiments, each identified by its content hash."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from resflax.declarations.checks import short
from resflax.declarations.records import plain
from resflax.declarations.sweeps import Grid, Point
from resflax.errors import UsageError
from resflax.experiment import Experiment, with_fields
from resflax.runs.initial_weights import with_initial_weights


@dataclass(frozen=True)
class Trial:
    """One experiment of a sweep."""

    point: Point
    experiment: Experiment

    @property
    def hash(self) -> str:
        """The experiment's content hash, which is also the name of the trial's run folder."""
        return self.experiment.content_hash

    @property
    def label(self) -> str:
        """A readable text that distinguishes the trial from the others: `original, seed 3`."""
        fields = (
            f"{_short_name(name)} {_label_of_value(value)}"
            for name, value in self.point.fields.items()
        )
        if self.point.name is None:
            return ", ".join(fields)
        seed = self.point.fields.get("seed")
        return self.point.name if seed is None else f"{self.point.name}, seed {seed}"

    def to_json(self) -> dict[str, Any]:
        """The variant's name, the label and the varied fields as plain JSON values."""
        fields = {name: plain(value) for name, value in self.point.fields.items()}
        return {"name": self.point.name, "label": self.label, "fields": fields}


def _short_name(dotted_name: str) -> str:
    return dotted_name.rpartition(".")[2].replace("_", " ")


def _label_of_value(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        arguments = (
            f"{field.name}={_label_of_value(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        )
        return f"{type(value).__name__}({', '.join(arguments)})"
    if isinstance(value, type):
        return value.__name__
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def make_trial(experiment: Experiment, point: Point) -> Trial:
    """Returns the trial at one point.

    Raises `UsageError` if the experiment refuses a field or value of the point.
    """
    try:
        return Trial(point, with_initial_weights(with_fields(experiment, point.fields)))
    except UsageError as error:
        raise UsageError(f"sweep: {_describe_point(point)}: {error}") from None


def expand_grid(experiment: Experiment, grid: Grid) -> tuple[Trial, ...]:
    """Returns all trials of a grid, in the grid's order.

    Raises `UsageError` if the experiment refuses a field or value, or if two points give the same
    experiment.
    """
    trials = tuple(make_trial(experiment, point) for point in grid.points)
    first_by_hash: dict[str, Trial] = {}
    for trial in trials:
        first = first_by_hash.setdefault(trial.hash, trial)
        if first is not trial:
            raise UsageError(
                f"sweep: {_describe_point(first.point)} and {_describe_point(trial.point)} are the "
                "same experiment"
            )
    return trials


def _describe_point(point: Point) -> str:
    fields = ", ".join(f"{name} {short(value)}" for name, value in point.fields.items())
    return fields if point.name is None else f"{point.name} ({fields})"
