"""One step of several runs at once: equal programs whose numbers are arguments."""

import copy
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.optimization import ARGUMENTS, Optimizer
from resflax.experiment import Experiment
from resflax.training.state import TrainState
from resflax.training.step import Examples, TrainStep

Array = jax.Array

Numbers = Mapping[str, Array]
"""Values by field of the optimizer, one of `ARGUMENTS`."""

GroupStep = Callable[[TrainState, tuple[Examples, Numbers], Array], tuple[TrainState, Array]]


def numbers_of(experiments: Sequence[Experiment]) -> dict[str, np.ndarray]:
    """The optimizer's numbers in which experiments differ, each (members,) float32."""
    found = {}
    for name in ARGUMENTS:
        values = [getattr(experiment.optimizer, name, None) for experiment in experiments]
        if len(set(values)) > 1:
            found[name] = np.array(values, np.float32)
    return found


def with_numbers(optimizer: Optimizer, numbers: Numbers) -> Optimizer:
    """The declaration with traced numbers in some fields, past its checks, which need values."""
    traced = copy.copy(optimizer)
    for name, value in numbers.items():
        object.__setattr__(traced, name, value)
    return traced


def group_step(step_of: Callable[[Numbers], TrainStep], *, in_turn: bool) -> GroupStep:
    """The step (states, (examples, numbers), indices (B, members)) -> (states, losses (members,)).

    States and numbers have a leading axis of members. A member whose indices are -1 is held: its
    state stays as it is, and its loss is NaN.

    Args:
      step_of: the step of one member with its numbers.
      in_turn: whether members follow one another in a loop, in the memory of one, or are an axis of
        every operation (`jax.vmap`), which fills wide devices.
    """

    def one(
        state: TrainState, examples: Examples, numbers: Numbers, indices: Array
    ) -> tuple[TrainState, Array]:
        held = indices[0] < 0
        step = step_of(numbers)
        # A state that has failed is left alone by its step.
        stepped, loss = step(state.replace(failed=state.failed | held), examples, indices)
        return stepped.replace(failed=jnp.where(held, state.failed, stepped.failed)), loss

    def step(
        states: TrainState, shared: tuple[Examples, Numbers], indices: Array
    ) -> tuple[TrainState, Array]:
        examples, numbers = shared
        if in_turn:
            return jax.lax.map(
                lambda member: one(member[0], examples, *member[1:]), (states, numbers, indices.T)
            )
        return jax.vmap(one, (0, None, 0, 1))(states, examples, numbers, indices)

    return step
