"""Several training steps in one call of a compiled program, without returning to the host."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resflax.feeding.batch import Gather
from resflax.training.step import TrainStep

Array = jax.Array

CallStep = Callable[[Any, Any, Any], tuple[Any, Array]]
"""(state, what stays on the devices, what the host gives for the step) -> (state, loss)."""


def gathered(step: TrainStep, gather: Gather) -> CallStep:
    """A step that gathers its batch from what stays on the devices and what the host gives."""
    return lambda state, resident, given: step(state, gather(resident, given))


def many_steps(step: CallStep) -> CallStep:
    """Makes a function that calls a step several times.

    The function is (state, (resident, count), given (B, n, ...)) -> (state, loss of the last step).
    It does `count` steps, () int32; step i takes column i of `given`. So one program serves any
    number of steps up to n.
    """

    def steps(state: Any, resident_and_count: tuple[Any, Array], given: Array) -> Any:
        resident, count = resident_and_count

        def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            return step(carry[0], resident, given[:, i])

        # The loss is (), or (members,) where runs train together: see `training.together`.
        loss = jnp.zeros(given.shape[2:], jnp.float32)
        return jax.lax.fori_loop(0, count, body, (state, loss))

    return steps
