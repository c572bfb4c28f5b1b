"""Which trials may train together: those whose step is the same program but for its numbers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from resflax.declarations.data import Streamed
from resflax.declarations.optimization import ARGUMENTS
from resflax.experiment import Experiment
from resflax.sweep.trials import Trial


def program(experiment: Experiment) -> Experiment:
    """The experiment without what is an argument of its step; equal for those that go together.

    Arguments are the seed, and of the optimizer the learning rate, the weight decay and a momentum
    that is not 0.
    """
    optimizer = experiment.optimizer
    numbers: dict[str, Any] = {name: 0.5 for name in ARGUMENTS if hasattr(optimizer, name)}
    if getattr(optimizer, "momentum", None) == 0:
        numbers["momentum"] = 0.0
    return dataclasses.replace(
        experiment.resolved(), seed=0, optimizer=dataclasses.replace(optimizer, **numbers)
    )


def form_groups(trials: Sequence[Trial], size: int) -> list[tuple[Trial, ...]]:
    """All trials, each in one group of at most `size` that go together (0: as many as do).

    Groups are those of the sweep as it is declared, whatever of it is done, so that a sweep that is
    continued has them again.
    """
    alike: dict[Experiment, list[Trial]] = {}
    for trial in trials:
        streams = isinstance(trial.experiment.data, Streamed)  # each reads pictures by itself
        key = trial.experiment if streams else program(trial.experiment)
        alike.setdefault(key, []).append(trial)
    return [
        tuple(members[start : start + (size or len(members))])
        for members in alike.values()
        for start in range(0, len(members), size or len(members))
    ]
