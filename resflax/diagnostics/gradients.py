"""Gradient norm of every layer."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from resflax.diagnostics.network import Network, apply, kernels
from resflax.training.compilation import compile_fast


def gradient_norms(network: Network) -> dict[str, float]:
    """Euclidean norm of the loss's gradient by every kernel, by path in order of the parameters.

    The loss is the mean cross-entropy of the network's pictures, in training mode.
    """

    gradients = _gradient_of(network.module)(
        network.variables["params"],
        network.variables["batch_stats"],
        network.images,
        jnp.asarray(network.labels),
    )
    return {path: float(np.linalg.norm(g)) for path, g in kernels(gradients).items()}


@lru_cache(maxsize=1)  # compiled once for all checkpoints of a run
def _gradient_of(module: nn.Module) -> Callable[..., Any]:
    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": statistics}
        logits = apply(module, variables, images, train=True)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return compile_fast(jax.grad(loss))
