"""The error after single units are removed (Veit et al. 2016, arXiv 1605.06431, section 4.1)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.diagnostics.inspected import InspectedNetwork, Variables, apply
from resflax.models.dense import DenseLayer
from resflax.models.layers import StochasticDepth
from resflax.training.measurement import rank


def errors_without_units(network: InspectedNetwork) -> tuple[float, dict[str, float]]:
    """The top-1 error with all units, and the errors without each single unit, by the unit's path.

    A residual unit is removed by setting its branch to zero, so that its shortcut remains; in a
    plain net nothing of it remains. A dense layer is removed by setting its maps to zero.
    """
    names: list[str] = []  # paths of the units, in the order of their calls

    def error(
        keep: jax.Array, variables: Variables, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        names.clear()

        def drop(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = call(*args, **kwargs)
            if not isinstance(context.module, StochasticDepth | DenseLayer):
                return output
            names.append(".".join(context.module.path).removesuffix(".stochastic_depth"))
            return output * keep[len(names) - 1].astype(output.dtype)

        with nn.intercept_methods(drop):
            logits = apply(network.module, variables, images, train=False)
        return jnp.mean(rank(logits, labels) > 0)

    data = (network.variables, network.images, jnp.asarray(network.labels))
    jax.eval_shape(error, jax.ShapeDtypeStruct((10_000,), jnp.float32), *data)  # counts the units
    units = len(names)
    compiled = jax.jit(error)  # compiled only once, because the removed unit is an input
    with_all = float(compiled(jnp.ones(units), *data))
    without = [float(compiled(keep, *data)) for keep in jnp.asarray(1 - np.eye(units))]
    return with_all, dict(zip(names, without, strict=True))
