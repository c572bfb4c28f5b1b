"""What dense networks recompute, so that their memory grows with depth and not with its square.

Every layer normalises all maps before it, and its gradient needs the result. Kept, these results
are quadratic in depth; the maps themselves are linear (Pleiss et al. 2017, arXiv 1707.06990).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resflax.models.convolution import convolve
from resflax.models.layers import relu, scale_and_shift

Array = jax.Array


def activate_and_convolve(
    maps: tuple[Array, ...], factor: Array, offset: Array, kernel: Array
) -> Array:
    """Convolves relu(factor * x + offset), x being all maps (B, H, W, ...) along the last axis.

    `factor` and `offset` (C,) are float32, `kernel` (k, k, C, C') has the maps' dtype.
    """
    x = jnp.concatenate(maps, axis=-1)
    return convolve(relu(scale_and_shift(x, factor, offset)), kernel)


@jax.custom_vjp
def activate_and_convolve_again(
    maps: tuple[Array, ...], factor: Array, offset: Array, kernel: Array
) -> Array:
    """`activate_and_convolve`, keeping nothing but the arguments for its gradient."""
    return activate_and_convolve(maps, factor, offset, kernel)


def _forward(*arguments: Any) -> tuple[Array, Any]:
    return activate_and_convolve(*arguments), arguments


def _backward(arguments: Any, gradient: Array) -> Any:
    def pull(arguments: Any, gradient: Array) -> Any:
        return jax.vjp(activate_and_convolve, *arguments)[1](gradient)

    return _not_before(gradient, pull, arguments, gradient)


activate_and_convolve_again.defvjp(_forward, _backward)


def _not_before(awaited: Array, function: Callable[..., Any], *arguments: Any) -> Any:
    """The function of its arguments, for sure computed after `awaited` is there.

    XLA for CPUs drops optimization barriers, finds that the same was computed before, and keeps
    that. It does not look into the branches of a condition; this one is always true.
    """
    if jax.default_backend() != "cpu":
        arguments, _ = lax.optimization_barrier((arguments, awaited))
        return function(*arguments)

    def never(*arguments: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *arguments))

    first = awaited[(0,) * awaited.ndim]
    return lax.cond(~(jnp.abs(first) > jnp.inf), function, never, *arguments)
