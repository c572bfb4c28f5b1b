"""Declared optimizers as optax transformations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.optimization import LARS, SGD, AdamW, Optimizer
from resflax.models.stacking import is_stacked
from resflax.training.schedule import LearningRate


def make_optimizer(optimizer: Optimizer, rate: LearningRate) -> optax.GradientTransformation:
    """Makes the declared optimizer for parameters by module path, with equal units stacked or not.

    Args:
      optimizer: the declaration.
      rate: the learning rate of each step, which replaces `optimizer.learning_rate`.
    """
    decayed = None if optimizer.no_weight_decay == "none" else partial(_decayed, optimizer)
    decay = optax.add_decayed_weights(optimizer.weight_decay, decayed)
    limit = optimizer.max_gradient_norm
    clip = [] if limit is None else [optax.clip_by_global_norm(limit)]
    if isinstance(optimizer, SGD):
        momentum = optimizer.momentum
        # Where runs train together the momentum may be traced: see `training.together`.
        without = not isinstance(momentum, jax.Array) and momentum == 0
        sgd = optax.sgd(rate, None if without else momentum, optimizer.nesterov)
        return optax.chain(*clip, decay, sgd)
    if isinstance(optimizer, LARS):
        return optax.chain(
            *clip,
            decay,
            _scale_by_trust_ratio(optimizer.trust_coefficient, decayed),
            optax.scale_by_learning_rate(rate),
            optax.trace(optimizer.momentum),
        )
    adam = optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.epsilon)
    if isinstance(optimizer, AdamW):
        return optax.chain(*clip, adam, decay, optax.scale_by_learning_rate(rate))
    return optax.chain(
        *(clip or [optax.identity()]),  # checkpoints have a place for it either way
        adam,
        decay,
        _scale_by_trust_ratio(1.0, decayed),
        optax.scale_by_learning_rate(rate),
    )


def _decayed(optimizer: Optimizer, params: Any) -> Any:
    """A tree like the parameters, with a bool for each: whether it has weight decay."""
    flat = flatten_dict(params)
    only_kernels = optimizer.no_weight_decay == "norm_and_bias"

    def decays(path: tuple[str, ...]) -> bool:
        norm = (*path[:-1], "scale") in flat
        return not norm and not (only_kernels and path[-1] == "bias")

    return unflatten_dict({path: decays(path) for path in flat})


def _scale_by_trust_ratio(
    coefficient: float, mask: Callable[[Any], Any] | None
) -> optax.GradientTransformation:
    """Scales the update of each parameter array p by coefficient * |p| / |update|.

    Each layer of stacked units is scaled separately. Parameters that `mask` leaves out are not
    scaled.
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
