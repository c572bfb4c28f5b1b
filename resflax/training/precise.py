"""Precise batch norm: statistics measured after the training, in place of running averages.

Wu & Johnson 2021 (arXiv 2105.07576), section 3: of N batches, normalised by themselves as in
training, mean and variance are taken over all of their activations.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.data import Data
from resflax.models.layers import BatchNorm
from resflax.training.devices import Devices
from resflax.training.recipe import Recipe
from resflax.training.state import TrainState
from resflax.training.step import AXIS, Batch, Examples, each_micro_batch, loss_of

Array = jax.Array


def statistics_step(
    module: nn.Module, data: Data, recipe: Recipe
) -> Callable[[TrainState, Examples | None, Batch], Any]:
    """(state, examples, batch) -> for every batch norm the batch's mean and mean square.

    Of the network that is evaluated, over all devices and micro-batches; the mean square stands in
    the place of the variance. Pictures are augmented as in training.
    """

    def step(state: TrainState, examples: Examples | None, batch: Batch) -> Any:
        variables = state.evaluated()
        # Running averages that begin at zero have taken in nothing but the batch.
        empty = state.replace(batch_stats=jax.tree.map(jnp.zeros_like, variables["batch_stats"]))
        found = []
        for part, share in enumerate(each_micro_batch(batch, recipe.gradient_accumulation)):
            loss = loss_of(module, data, empty, examples, share, recipe, part)
            _, outcome = loss(variables["params"])
            taken = 1 / (1 - BatchNorm.momentum)
            own = jax.tree.map(lambda sums, taken=taken: sums * taken, outcome.batch_stats)
            found.append(_each_norm(_square_from_variance, own))
        mean = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]) / len(parts), *found)
        return jax.lax.pmean(mean, AXIS)

    return step


def precise(
    step: Callable[..., Any],
    state: TrainState,
    devices: Devices,
    examples: Examples | None,
    batches: Iterable[Batch],
    stop: Callable[[], bool],
) -> TrainState | None:
    """The state with the statistics of the batches; None as soon as `stop()` is true between two.

    Args:
      step: a `statistics_step` that runs on the devices.
      state: whose network it is, at the end of its training; its running averages do not matter.
      devices: of the run.
      examples: of the training split, if it is on the devices.
      batches: whole ones, as the training would go on.
      stop: asked before every batch.
    """
    total, count, first = None, 0, int(state.step)
    for count, batch in enumerate(batches, start=1):
        if stop():
            return None
        at = state.replace(step=devices.replicate(np.int32(first + count - 1)))
        found = jax.device_get(step(at, examples, batch))
        wide = jax.tree.map(np.float64, found)
        total = wide if total is None else jax.tree.map(np.add, total, wide)
    mean = jax.tree.map(lambda sums: sums / count, total)
    narrow = jax.tree.map(np.float32, _each_norm(_variance_from_square, mean))
    statistics = devices.replicate(narrow)
    if state.average:
        return state.replace(average=state.average | {"batch_stats": statistics})
    return state.replace(batch_stats=statistics)


def _each_norm(change: Callable[[Any, Any], Any], statistics: Any) -> Any:
    """Changes `var` by `change(mean, var)` wherever the two stand together."""
    if "var" in statistics:
        mean, var = statistics["mean"], statistics["var"]
        return {"mean": mean, "var": change(mean, var)}
    return {name: _each_norm(change, below) for name, below in statistics.items()}


def _square_from_variance(mean: Array, var: Array) -> Array:
    return var + jnp.square(mean)


def _variance_from_square(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.maximum(square - np.square(mean), 0)
