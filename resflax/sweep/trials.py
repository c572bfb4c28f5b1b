"""From a sweep's declaration to its trials: experiments, each known by its content hash."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resflax.declarations.checks import short
from resflax.declarations.sweeps import Grid, Point
from resflax.errors import UsageError
from resflax.experiment import Experiment, plain, with_fields


@dataclass(frozen=True)
class Trial:
    """One experiment of a sweep."""

    point: Point
    experiment: Experiment

    @property
    def hash(self) -> str:
        """The experiment's content hash: the name of the trial's run folder."""
        return self.experiment.content_hash

    @property
    def label(self) -> str:
        """What sets it apart, for people: `original, seed 3`."""
        fields = (f"{_last(name)} {_shown(value)}" for name, value in self.point.fields.items())
        if self.point.name is None:
            return ", ".join(fields)
        seed = self.point.fields.get("seed")
        return self.point.name if seed is None else f"{self.point.name}, seed {seed}"

    def to_json(self) -> dict[str, Any]:
        """Its name and fields as plain JSON values."""
        fields = {name: plain(value) for name, value in self.point.fields.items()}
        return {"name": self.point.name, "label": self.label, "fields": fields}


def _last(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _shown(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = (
            f"{field.name}={_shown(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        )
        return f"{type(value).__name__}({', '.join(given)})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def make_trial(experiment: Experiment, point: Point) -> Trial:
    """The trial at one point. Raises `UsageError` for a field or value that is refused there."""
    try:
        return Trial(point, with_fields(experiment, point.fields))
    except UsageError as error:
        raise UsageError(f"sweep: {_described(point)}: {error}") from None


def expand(experiment: Experiment, grid: Grid) -> tuple[Trial, ...]:
    """All trials of a grid, in its order.

    Raises `UsageError` if a field or value is refused, or if two points are the same experiment.
    """
    trials = tuple(make_trial(experiment, point) for point in grid.points)
    known: dict[str, Trial] = {}
    for trial in trials:
        other = known.setdefault(trial.hash, trial)
        if other is not trial:
            raise UsageError(
                f"sweep: {_described(other.point)} and {_described(trial.point)} are the same "
                "experiment"
            )
    return trials


def _described(point: Point) -> str:
    fields = _assignments(point.fields)
    return fields if point.name is None else f"{point.name} ({fields})"


def _assignments(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in fields.items())
