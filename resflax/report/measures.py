"""The final measurements that pictures show. It does not import JAX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from resflax.drawing.axes import plain_number, without_outliers
from resflax.report.groups import SeedGroup
from resflax.report.papers import PaperFigure
from resflax.report.series import Series
from resflax.report.statistics import Spread, compute_spread


@dataclass(frozen=True)
class Measure:
    """A number in the results of finished runs."""

    name: str
    key: str
    """The number's name in result.json."""
    scale: float = 1.0
    """The factor by which it is multiplied."""
    unit: str = ""
    digits: int = 4
    """Digits after the point of a difference in a table."""
    difference_unit: str = ""
    """The unit of a difference, with a space before it."""

    @property
    def axis_label(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def most(self) -> float:
        """The greatest value that there can be; axes do not go beyond it."""
        return 100.0 if self.unit == "%" else math.inf

    def of(self, group: SeedGroup) -> list[float]:
        """The numbers of the group's finished runs that have one, in the order of their seeds."""
        return list(self.by_seed(group).values())

    def by_seed(self, group: SeedGroup) -> dict[int, float]:
        """The same numbers by the seeds of the runs."""
        return {
            run.experiment.seed: self.scale * run.result[self.key]
            for run in group.finished
            if run.result is not None and run.result.get(self.key) is not None
        }

    def spread(self, group: SeedGroup) -> Spread | None:
        """Mean and standard deviation over the seeds; None if no run has the number."""
        return compute_spread(self.of(group))

    def mean_in_words(self, group: SeedGroup) -> str:
        """The mean with its unit, in three digits; `-` if no run has the number."""
        spread = self.spread(group)
        if spread is None:
            return "-"
        return f"{plain_number(float(f'{spread.mean:.3g}'))} {self.unit}".rstrip()

    def paper_figure(self, group: SeedGroup) -> PaperFigure | None:
        """The paper's figure for this measure, if there is one: papers report test errors."""
        return group.paper_figure if self.key == "test_error" else None


_MOST_NUMBERS = 60
"""The most means that are put into words."""

TRAINING_LOSS = Measure("training loss", "train_loss")
TEST_ERROR = Measure("test error", "test_error", 100, "%", 2, " points")
VALIDATION_ERROR = Measure("validation error", "validation_error", 100, "%", 2, " points")


def measures_of(groups: Sequence[SeedGroup]) -> list[Measure]:
    """The training loss, and the test error or else the validation error, so far as measured."""
    measured = [
        measure
        for measure in (TRAINING_LOSS, TEST_ERROR, VALIDATION_ERROR)
        if any(measure.of(group) for group in groups)
    ]
    return [m for m in measured if m is not VALIDATION_ERROR or TEST_ERROR not in measured]


def drawn_values(groups: Sequence[SeedGroup], measure: Measure) -> list[float]:
    """The numbers of all seeds, and the ends of the bars.

    Lower ends that are far below all seeds are left out, so that an axis need not have room for
    them.
    """
    values: list[float] = []
    for group in groups:
        seeds, spread = measure.of(group), measure.spread(group)
        values += seeds
        if spread is not None and spread.std is not None:
            low = spread.mean - spread.std
            values += [spread.mean + spread.std, *([low] if low > 0.5 * min(seeds) else [])]
    return values


def outliers_sentence(values: Sequence[float]) -> str:
    """A sentence on the numbers that have no place on the axis; "" if there are none."""
    if len(without_outliers(values)) == len(values):
        return ""
    return "Numbers of nets that diverged are far outside, and have a triangle at the edge."


def missing_runs(groups: Sequence[SeedGroup]) -> str:
    """A sentence that says how many runs have no result; "" if all have one."""
    missing = sum(len(group.runs) - len(group.finished) for group in groups)
    runs = sum(len(group.runs) for group in groups)
    if not missing:
        return ""
    verb = "is" if missing == 1 else "are"
    return f"{missing} of {runs} runs {verb} unfinished or failed, and not drawn."


def means_in_words(title: str, all_series: Sequence[Series], measure: Measure) -> str:
    """The title of a picture, with all means unless these are too many to be listened to."""
    if sum(len(series.xs) for series in all_series) > _MOST_NUMBERS:
        return title
    parts = []
    for series in all_series:
        points = zip(series.xs, series.groups, strict=True)
        means = ", ".join(
            f"{measure.mean_in_words(group)} at {_in_words(x)}" for x, group in points
        )
        parts.append(f"{series.label}: {means}" if series.label else means)
    return f"{title}. Means: {'; '.join(parts)}."


def _in_words(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else plain_number(number)
