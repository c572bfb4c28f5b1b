"""Groups of trials that can train together, because one program computes their steps.

The members of a group differ only in numbers that are arguments of that program.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from resflax.declarations.data import Streamed
from resflax.declarations.optimization import TRACED_FIELDS
from resflax.experiment import Experiment
from resflax.sweep.trials import Trial


def grouping_key(experiment: Experiment) -> Experiment:
    """A key that is equal for experiments that can train together.

    The key is the given experiment, with fixed values in the fields that are arguments of the step:
    the seed, and the optimizer's learning rate, weight decay and momentum. A momentum of 0 stays 0,
    because its step is another program, without momentum.

    Experiments with streamed data cannot train together, because each reads its own pictures; their
    key is the experiment itself.
    """
    if isinstance(experiment.data, Streamed):
        return experiment
    optimizer = experiment.optimizer
    numbers: dict[str, Any] = {name: 0.5 for name in TRACED_FIELDS if hasattr(optimizer, name)}
    if getattr(optimizer, "momentum", None) == 0:
        numbers["momentum"] = 0.0
    return dataclasses.replace(
        experiment.resolved(), seed=0, optimizer=dataclasses.replace(optimizer, **numbers)
    )


def form_groups(trials: Sequence[Trial], group_size: int) -> list[tuple[Trial, ...]]:
    """Divides all trials of a sweep into groups that can train together.

    The groups do not depend on which trials are already done, so a sweep that is continued has the
    same groups again.

    Args:
      trials: all trials of the sweep, in order.
      group_size: the largest number of trials in a group; 0 sets no limit.

    Returns:
      The groups; each trial is in exactly one of them.
    """
    trials_by_key: dict[Experiment, list[Trial]] = {}
    for trial in trials:
        trials_by_key.setdefault(grouping_key(trial.experiment), []).append(trial)
    return [
        tuple(members[start : start + (group_size or len(members))])
        for members in trials_by_key.values()
        for start in range(0, len(members), group_size or len(members))
    ]
