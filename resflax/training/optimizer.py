"""Declared optimizers and schedules as optax transformations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from resflax.declarations.optimization import Cosine, Optimizer, Schedule, StepDecay

LearningRate = Callable[[jax.Array], jax.Array]
"""The learning rate () float32 of a step () int32 counted from 0."""


def learning_rate(schedule: Schedule, peak: float, steps: int) -> LearningRate:
    """The declared schedule for a training of so many steps."""
    if isinstance(schedule, Cosine):
        main = _cosine(schedule, peak, steps)
    else:
        main = _step_decay(schedule, peak, steps)
    start = schedule.warmup_learning_rate
    end = peak if schedule.warmup == "linear" else start
    warmup = optax.linear_schedule(start, end, max(schedule.warmup_steps, 1))

    @jax.jit
    def at(step: jax.Array) -> jax.Array:
        rate = jnp.where(step < schedule.warmup_steps, warmup(step), main(step))
        return jnp.asarray(rate, jnp.float32)

    return at


def _step_decay(schedule: StepDecay, peak: float, steps: int) -> optax.Schedule:
    places = [round(b * steps) if isinstance(b, float) else b for b in schedule.boundaries]
    factors: dict[int, float] = {}
    for place in places:  # fractions of a very short training may fall on one step
        factors[place] = factors.get(place, 1.0) * schedule.factor
    return optax.piecewise_constant_schedule(peak, factors)


def _cosine(schedule: Cosine, peak: float, steps: int) -> optax.Schedule:
    length = max(steps - schedule.warmup_steps, 1)
    cosine = optax.cosine_decay_schedule(peak, length, schedule.final_learning_rate / peak)
    return lambda step: cosine(step - schedule.warmup_steps)


def make_optimizer(optimizer: Optimizer, rate: LearningRate) -> optax.GradientTransformation:
    """SGD with weight decay in the gradient, for every parameter."""
    momentum = optimizer.momentum
    none = not isinstance(momentum, jax.Array) and momentum == 0  # see training.vectorized
    return optax.chain(
        optax.add_decayed_weights(optimizer.weight_decay),
        optax.sgd(rate, momentum=None if none else momentum, nesterov=optimizer.nesterov),
    )
