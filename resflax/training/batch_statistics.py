"""Precise batch norm: statistics measured after the training replace the running averages.

Source: Wu & Johnson 2021 (arXiv 2105.07576), section 3. N batches are normalised by their own
statistics as in training, and mean and variance are computed over all of their activations.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resflax.devices.parallel import AXIS, Devices
from resflax.feeding.batch import Batch
from resflax.models.layers import BatchNorm
from resflax.training.objective import Objective, loss_of, micro_batches_of
from resflax.training.state import TrainState

Array = jax.Array


def statistics_step(objective: Objective) -> Callable[[TrainState, Batch], Any]:
    """Makes the step (state, a replica's share) -> the batch's statistics at every batch norm.

    The statistics are the mean and, in place of the variance, the mean square, each over all
    devices and micro-batches. They are those of the weights that evaluations use. Images are
    augmented as in training.
    """

    def step(state: TrainState, share: Batch) -> Any:
        variables = state.evaluated()
        # Running averages that begin at zero contain only the statistics of the batch.
        empty = state.replace(batch_stats=jax.tree.map(jnp.zeros_like, variables["batch_stats"]))
        parts = []
        for number, batch in enumerate(micro_batches_of(objective, share)):
            _, forward = loss_of(objective, empty, batch, number)(variables["params"])
            taken = 1 / (1 - BatchNorm.momentum)
            own = jax.tree.map(lambda sums, taken=taken: sums * taken, forward.batch_stats)
            parts.append(_change_variances(_square_from_variance, own))
        mean = jax.tree.map(lambda *values: sum(values[1:], values[0]) / len(values), *parts)
        return jax.lax.pmean(mean, AXIS)

    return step


def with_measured_statistics(
    step: Callable[..., Any],
    state: TrainState,
    devices: Devices,
    resident: Any,
    batches: Iterable[Any],
    stop: Callable[[], bool],
) -> TrainState | None:
    """The state with the statistics of the batches, or None as soon as `stop()` is true.

    Args:
      step: a `statistics_step` that runs on the devices: (state, resident, what the feed gives for
        a batch) -> statistics.
      state: the state at the end of the training; its running averages do not matter.
      devices: the devices of the run.
      resident: what the training feed keeps on the devices.
      batches: what the feed gives for the batches that would follow the training.
      stop: is called before every batch.
    """
    total, count, first = None, 0, int(state.step)
    for count, given in enumerate(batches, start=1):
        if stop():
            return None
        at = state.replace(step=devices.replicate(np.int32(first + count - 1)))
        statistics = jax.device_get(step(at, resident, given))
        wide = jax.tree.map(np.float64, statistics)
        total = wide if total is None else jax.tree.map(np.add, total, wide)
    mean = jax.tree.map(lambda sums: sums / count, total)
    narrow = jax.tree.map(np.float32, _change_variances(_variance_from_square, mean))
    measured = devices.replicate(narrow)
    if state.average:
        return state.replace(average=state.average | {"batch_stats": measured})
    return state.replace(batch_stats=measured)


def _change_variances(change: Callable[[Any, Any], Any], statistics: Any) -> Any:
    """Replaces `var` with `change(mean, var)` in every batch norm of a tree."""
    if "var" in statistics:
        mean, var = statistics["mean"], statistics["var"]
        return {"mean": mean, "var": change(mean, var)}
    return {name: _change_variances(change, below) for name, below in statistics.items()}


def _square_from_variance(mean: Array, var: Array) -> Array:
    return var + jnp.square(mean)


def _variance_from_square(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.maximum(square - np.square(mean), 0)
