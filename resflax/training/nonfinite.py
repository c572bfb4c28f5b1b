"""Where numbers stopped being finite: the layer, found by doing the step again and watching."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.models.layers import BatchNorm, Conv
from resflax.models.stacking import unstack
from resflax.training.devices import Devices
from resflax.training.state import TrainState
from resflax.training.step import AXIS, Batch, Examples, LossOf

Array = jax.Array
LossAt = Callable[[TrainState, Examples | None, Batch], LossOf]
"""Of a state, the examples and a replica's share of the batch: the loss of its next step."""


def explain(
    devices: Devices,
    loss_at: LossAt,
    state: TrainState,
    examples: Examples | None,
    batch: Batch,
) -> str:
    """Says what is not finite in the step that follows `state`, and in which layer that began.

    The step is done once more, with the same keys; with its whole batch.
    """
    state = state.replace(
        params=unstack(state.params), batch_stats=unstack(state.batch_stats)
    )  # layers have names
    loss, layers, faulty = _outputs(devices, loss_at, state, examples, batch)
    if faulty:
        return f"the loss is {loss}, and the first layer whose output is not finite is {faulty[0]}"
    if not np.isfinite(loss):
        return f"the loss is {loss}, and the outputs of all layers are finite"
    # The gradient comes from the loss, so it went wrong in the last layer that has a wrong one.
    gradients = _gradients(devices, loss_at, state, examples, batch)
    wrong = {path.rpartition("/")[0].replace("/", ".") for path, ok in gradients.items() if not ok}
    named = [layer for layer in layers if layer in wrong]
    if named:
        return f"the loss is {loss}, and the gradient is not finite from layer {named[-1]} down"
    return f"the loss is {loss}, and the gradient's norm is too large a number"


def _outputs(
    devices: Devices,
    loss_at: LossAt,
    state: TrainState,
    examples: Examples | None,
    batch: Batch,
) -> tuple[float, list[str], list[str]]:
    """The loss, all layers in the order in which they run, and those whose output is not finite."""
    layers: list[str] = []
    faulty: set[int] = set()

    def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if isinstance(context.module, Conv | BatchNorm | nn.Dense) and context.method_name == (
            "__call__"
        ):
            place = len(layers)
            layers.append(".".join(context.module.path))

            def note(finite: Array) -> None:
                if not finite:
                    faulty.add(place)

            jax.debug.callback(note, jnp.all(jnp.isfinite(output)))
        return output

    def forward(state: TrainState, examples: Examples | None, batch: Batch) -> Array:
        with nn.intercept_methods(watch):
            loss, _ = loss_at(state, examples, batch)(state.params)
        return jax.lax.pmean(loss, AXIS)

    run = devices.parallelize(forward, donate_state=False)
    loss = float(run(state, examples, batch))
    jax.effects_barrier()
    return loss, layers, [layers[place] for place in sorted(faulty)]


def _gradients(
    devices: Devices,
    loss_at: LossAt,
    state: TrainState,
    examples: Examples | None,
    batch: Batch,
) -> dict[str, bool]:
    """For every parameter whether its gradient is finite."""

    def backward(state: TrainState, examples: Examples | None, batch: Batch) -> Any:
        function = loss_at(state, examples, batch)
        gradients, _ = jax.grad(function, has_aux=True)(state.params)
        gradients = jax.lax.pmean(gradients, AXIS)
        return jax.tree.map(lambda gradient: jnp.all(jnp.isfinite(gradient)), gradients)

    run = devices.parallelize(backward, donate_state=False)
    finite = jax.device_get(run(state, examples, batch))
    return {path: bool(ok) for path, ok in flatten_dict(finite, sep="/").items()}
