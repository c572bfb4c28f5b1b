"""Declared learning-rate schedules as optax schedules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from resflax.declarations.optimization import Cosine, Polynomial, Schedule, StepDecay

LearningRate = Callable[[jax.Array], jax.Array]
"""The learning rate () float32 of a step () int32, counted from 0."""


def learning_rate(schedule: Schedule, peak: float, steps: int) -> LearningRate:
    """Makes the declared schedule, warm-up included, for a training of `steps` steps.

    `peak` is the peak learning rate.
    """
    if isinstance(schedule, Cosine):
        main = _cosine(schedule, peak, steps)
    elif isinstance(schedule, Polynomial):
        main = _polynomial(schedule, peak, steps)
    else:
        main = _step_decay(schedule, peak, steps)
    start = schedule.warmup_learning_rate
    end = peak if schedule.warmup == "linear" else start
    warmup = optax.linear_schedule(start, end, max(schedule.warmup_steps, 1))
    whole = optax.join_schedules([warmup, main], [schedule.warmup_steps])
    return jax.jit(lambda step: jnp.asarray(whole(step), jnp.float32))


# The schedules below count steps from the end of the warm-up, as `join_schedules` does.


def _step_decay(schedule: StepDecay, peak: float, steps: int) -> optax.Schedule:
    factors: dict[int, float] = {}
    for boundary in schedule.boundary_steps(steps):
        step = boundary - schedule.warmup_steps
        # In a very short training, several fractions may be rounded to the same step.
        factors[step] = factors.get(step, 1.0) * schedule.factor
    return optax.piecewise_constant_schedule(peak, factors)


def _cosine(schedule: Cosine, peak: float, steps: int) -> optax.Schedule:
    length = max(steps - schedule.warmup_steps, 1)
    return optax.cosine_decay_schedule(peak, length, schedule.final_learning_rate / peak)


def _polynomial(schedule: Polynomial, peak: float, steps: int) -> optax.Schedule:
    length = max(steps - schedule.warmup_steps, 1)
    return optax.polynomial_schedule(peak, schedule.final_learning_rate, schedule.power, length)
