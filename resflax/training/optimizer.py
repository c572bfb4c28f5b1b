"""Declared optimizers and schedules as optax transformations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.optimization import (
    LARS,
    SGD,
    AdamW,
    Cosine,
    Optimizer,
    Polynomial,
    Schedule,
    StepDecay,
)
from resflax.models.stacking import is_stacked

LearningRate = Callable[[jax.Array], jax.Array]
"""The learning rate () float32 of a step () int32 counted from 0."""


def learning_rate(schedule: Schedule, peak: float, steps: int) -> LearningRate:
    """The declared schedule for a training of so many steps."""
    if isinstance(schedule, Cosine):
        main = _cosine(schedule, peak, steps)
    elif isinstance(schedule, Polynomial):
        main = _polynomial(schedule, peak, steps)
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


def _polynomial(schedule: Polynomial, peak: float, steps: int) -> optax.Schedule:
    length = max(steps - schedule.warmup_steps, 1)
    polynomial = optax.polynomial_schedule(
        peak, schedule.final_learning_rate, schedule.power, length
    )
    return lambda step: polynomial(step - schedule.warmup_steps)


def make_optimizer(optimizer: Optimizer, rate: LearningRate) -> optax.GradientTransformation:
    """The declared optimizer, for parameters by module path with equal units stacked or not."""
    decayed = None if optimizer.no_weight_decay == "none" else partial(_decayed, optimizer)
    decay = optax.add_decayed_weights(optimizer.weight_decay, decayed)
    if isinstance(optimizer, SGD):
        momentum = optimizer.momentum
        none = not isinstance(momentum, jax.Array) and momentum == 0  # see training.vectorized
        sgd = optax.sgd(rate, None if none else momentum, optimizer.nesterov)
        return optax.chain(decay, sgd)
    if isinstance(optimizer, LARS):
        return optax.chain(
            decay,
            _scale_by_trust_ratio(optimizer.trust_coefficient, decayed),
            optax.scale_by_learning_rate(rate),
            optax.trace(optimizer.momentum),
        )
    adam = optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.epsilon)
    if isinstance(optimizer, AdamW):
        return optax.chain(adam, decay, optax.scale_by_learning_rate(rate))
    limit = optimizer.max_gradient_norm
    return optax.chain(
        optax.identity() if limit is None else optax.clip_by_global_norm(limit),
        adam,
        decay,
        _scale_by_trust_ratio(1.0, decayed),
        optax.scale_by_learning_rate(rate),
    )


def _decayed(optimizer: Optimizer, params: Any) -> Any:
    """For every parameter whether it has weight decay."""
    flat = flatten_dict(params)
    kernels_alone = optimizer.no_weight_decay == "norm_and_bias"

    def decays(path: tuple[str, ...]) -> bool:
        norm = (*path[:-1], "scale") in flat
        return not norm and not (kernels_alone and path[-1] == "bias")

    return unflatten_dict({path: decays(path) for path in flat})


def _scale_by_trust_ratio(
    coefficient: float, mask: Callable[[Any], Any] | None
) -> optax.GradientTransformation:
    """Scales updates by coefficient * |p| / |update|, layer by layer, stacked ones each by itself.

    Parameters that `mask` leaves out are not scaled.
    """
    whole = optax.scale_by_trust_ratio(trust_coefficient=coefficient)

    def scale(updates: Any, params: Any) -> Any:
        return whole.update(updates, whole.init(params), params)[0]

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scaled = {
            name: (jax.vmap(scale) if is_stacked(name) else scale)(updates[name], params[name])
            for name in updates
        }
        return scaled, state

    by_layer = optax.GradientTransformation(whole.init, update)
    return by_layer if mask is None else optax.masked(by_layer, mask)
