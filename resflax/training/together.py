"""One step of several runs at once. The runs share one program, and their numbers are arguments."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.optimization import TRACED_FIELDS, Optimizer
from resflax.experiment import Experiment
from resflax.feeding.batch import ResidentSplit, gather_resident
from resflax.training.many_steps import CallStep
from resflax.training.state import TrainState
from resflax.training.step import TrainStep

Array = jax.Array

OptimizerNumbers = Mapping[str, Array]
"""Values by field of the optimizer, each field being one of `TRACED_FIELDS`."""


class GroupInput(NamedTuple):
    """What stays on the devices while the members of a group step together."""

    split: ResidentSplit
    numbers: OptimizerNumbers
    """Numbers in which the members' optimizers differ, each (members,) float32."""
    held: Array | np.ndarray
    """(members,) bool: marks the members that do not step, because others have to catch up."""


def numbers_of(experiments: Sequence[Experiment]) -> dict[str, np.ndarray]:
    """The optimizer's numbers in which experiments differ, each (members,) float32."""
    numbers = {}
    for name in TRACED_FIELDS:
        values = [getattr(experiment.optimizer, name, None) for experiment in experiments]
        if len(set(values)) > 1:
            numbers[name] = np.array(values, np.float32)
    return numbers


def with_numbers(optimizer: Optimizer, numbers: OptimizerNumbers) -> Optimizer:
    """The declaration with traced numbers in some fields.

    This bypasses the declaration's checks, which need concrete values.
    """
    traced = copy.copy(optimizer)
    for name, value in numbers.items():
        object.__setattr__(traced, name, value)
    return traced


def group_step(step_with: Callable[[OptimizerNumbers], TrainStep], *, in_turn: bool) -> CallStep:
    """Makes the step (states, `GroupInput`, indices (B, members)) -> (states, losses (members,)).

    States have a leading axis of members. A member that is held keeps its state, and its loss is
    NaN.

    Args:
      step_with: makes the step of one member from its numbers.
      in_turn: whether members step one after another in a loop, which needs the working memory of
        only one member. Otherwise members are an axis of every operation (`jax.vmap`), which keeps
        wide devices busy.
    """

    def one(
        state: TrainState,
        split: ResidentSplit,
        numbers: OptimizerNumbers,
        held: Array,
        indices: Array,
    ) -> tuple[TrainState, Array]:
        step = step_with(numbers)
        # A step leaves a failed state as it is, so members that are held are marked as failed.
        before = state.replace(failed=state.failed | held)
        stepped, loss = step(before, gather_resident(split, indices))
        return stepped.replace(failed=jnp.where(held, state.failed, stepped.failed)), loss

    def step(states: TrainState, group: GroupInput, indices: Array) -> Any:
        split, numbers, held = group.split, group.numbers, jnp.asarray(group.held)
        if in_turn:
            return jax.lax.map(
                lambda member: one(member[0], split, *member[1:]),
                (states, numbers, held, indices.T),
            )
        return jax.vmap(one, (0, None, 0, 0, 1))(states, split, numbers, held, indices)

    return step
