"""Recomputation in dense networks, so that their memory grows linearly with depth.

Every layer normalises all maps before it, and its backward pass needs the normalised maps. Keeping
all of these takes memory that is quadratic in depth, while the maps themselves take linear memory
(Pleiss et al. 2017, arXiv 1707.06990). So the backward pass normalises the maps again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resflax.models.convolution import convolve
from resflax.models.layers import relu, scale_and_shift

Array = jax.Array


def activation_and_convolution(
    maps: tuple[Array, ...], factor: Array, offset: Array, kernel: Array
) -> Array:
    """Convolves relu(factor * x + offset), where x are all maps, concatenated along the last axis.

    Args:
      maps: arrays (B, H, W, ...) that have C channels together.
      factor: (C,) float32.
      offset: (C,) float32.
      kernel: (k, k, C, C'), of the maps' dtype.
    """
    x = jnp.concatenate(maps, axis=-1)
    return convolve(relu(scale_and_shift(x, factor, offset)), kernel)


@jax.custom_vjp
def recomputed_activation_and_convolution(
    maps: tuple[Array, ...], factor: Array, offset: Array, kernel: Array
) -> Array:
    """`activation_and_convolution` that keeps only its arguments for the backward pass."""
    return activation_and_convolution(maps, factor, offset, kernel)


def _forward(*arguments: Any) -> tuple[Array, Any]:
    return activation_and_convolution(*arguments), arguments


def _backward(arguments: Any, gradient: Array) -> Any:
    def gradients(arguments: Any, gradient: Array) -> Any:
        return jax.vjp(activation_and_convolution, *arguments)[1](gradient)

    return _call_after(gradient, gradients, arguments, gradient)


recomputed_activation_and_convolution.defvjp(_forward, _backward)


def _call_after(awaited: Array, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the function, which is computed only after `awaited` has been computed.

    Otherwise XLA would notice that the forward pass computes the same values, and keep them until
    they are needed here. XLA for CPUs drops optimization barriers, but it does not look into the
    branches of a conditional. So on CPUs the function is called in a branch whose condition is
    always true.
    """
    if jax.default_backend() != "cpu":
        arguments, _ = lax.optimization_barrier((arguments, awaited))
        return function(*arguments)

    def never(*arguments: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *arguments))

    first = awaited[(0,) * awaited.ndim]
    return lax.cond(~(jnp.abs(first) > jnp.inf), function, never, *arguments)
