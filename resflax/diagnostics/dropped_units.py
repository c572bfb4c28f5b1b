"""The error when single units are taken away (Veit et al. 2016, arXiv 1605.06431, section 4.1)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.diagnostics.network import Network, Variables, apply
from resflax.models.dense import DenseLayer
from resflax.models.layers import StochasticDepth
from resflax.training.step import rank


def errors_without_units(network: Network) -> tuple[float, dict[str, float]]:
    """The error with all units, and by path that without each one.

    Without a residual unit its branch is zero and the shortcut is left; in a plain net nothing
    is left. Without a dense layer its maps are zero.
    """
    names: list[str] = []

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
    compiled = jax.jit(error)  # once: which unit is dropped is an input
    whole = float(compiled(jnp.ones(units), *data))
    without = [float(compiled(keep, *data)) for keep in jnp.asarray(1 - np.eye(units))]
    return whole, dict(zip(names, without, strict=True))
