"""Finds the layer in which numbers stopped being finite, by repeating the step and watching it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.devices.parallel import AXIS, Devices
from resflax.models.layers import BatchNorm, Conv
from resflax.models.stacking import unstack
from resflax.training.objective import LossOfParams
from resflax.training.state import TrainState

Array = jax.Array

LossAt = Callable[[TrainState, Any, Any], LossOfParams]
"""(state, what stays on the devices, a replica's share of what the host gives) -> the loss, as a
function of the parameters, in the step that follows the state."""


def explain(devices: Devices, loss_at: LossAt, state: TrainState, resident: Any, given: Any) -> str:
    """Describes what is not finite in the step that follows `state`, and in which layer that began.

    The step is repeated with the same keys and its whole batch.

    Args:
      devices: the devices of the run.
      loss_at: the loss of a network whose units are not stacked, so that every layer has a name.
      state: the last good state.
      resident: what the training feed keeps on the devices.
      given: what the feed gives for the step.
    """
    state = state.replace(params=unstack(state.params), batch_stats=unstack(state.batch_stats))
    loss, layers, faulty = _watch_outputs(devices, loss_at, state, resident, given)
    if faulty:
        return f"the loss is {loss}, and the first layer whose output is not finite is {faulty[0]}"
    if not np.isfinite(loss):
        return f"the loss is {loss}, and the outputs of all layers are finite"
    # Gradients flow from the last layer to the first, so the fault began in the last layer whose
    # gradient is not finite.
    finite = _finite_gradients(devices, loss_at, state, resident, given)
    wrong = {path.rpartition("/")[0].replace("/", ".") for path, ok in finite.items() if not ok}
    wrong_in_order = [layer for layer in layers if layer in wrong]
    if wrong_in_order:
        last = wrong_in_order[-1]
        return f"the loss is {loss}, and the gradient is not finite from layer {last} down"
    return f"the loss is {loss}, and the gradient's norm is too large a number"


def _watch_outputs(
    devices: Devices, loss_at: LossAt, state: TrainState, resident: Any, given: Any
) -> tuple[float, list[str], list[str]]:
    """Returns the loss, all layers in the order in which they run, and those that are faulty.

    A layer is faulty if its output is not finite.
    """
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

    def forward(state: TrainState, resident: Any, given: Any) -> Array:
        with nn.intercept_methods(watch):
            loss, _ = loss_at(state, resident, given)(state.params)
        return jax.lax.pmean(loss, AXIS)

    run = devices.parallelize(forward, donate_state=False)
    loss = float(run(state, resident, given))
    jax.effects_barrier()
    return loss, layers, [layers[place] for place in sorted(faulty)]


def _finite_gradients(
    devices: Devices, loss_at: LossAt, state: TrainState, resident: Any, given: Any
) -> dict[str, bool]:
    """Whether the gradient of each parameter is finite, by the parameter's path."""

    def backward(state: TrainState, resident: Any, given: Any) -> Any:
        loss_of_params = loss_at(state, resident, given)
        gradients, _ = jax.grad(loss_of_params, has_aux=True)(state.params)
        gradients = jax.lax.pmean(gradients, AXIS)
        return jax.tree.map(lambda gradient: jnp.all(jnp.isfinite(gradient)), gradients)

    run = devices.parallelize(backward, donate_state=False)
    finite = jax.device_get(run(state, resident, given))
    return {path: bool(ok) for path, ok in flatten_dict(finite, sep="/").items()}
