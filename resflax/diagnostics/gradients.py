"""Gradient norm of every layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resflax.diagnostics.network import Network, apply, compile_fast, kernels


def gradient_norms(network: Network) -> dict[str, float]:
    """Euclidean norm of the loss's gradient by every kernel, by path in order of the parameters.

    The loss is the mean cross-entropy of the network's pictures, in training mode.
    """

    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": statistics}
        logits = apply(network, variables, images, train=True)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    gradients = compile_fast(jax.grad(loss))(
        network.variables["params"],
        network.variables["batch_stats"],
        network.images,
        jnp.asarray(network.labels),
    )
    return {path: float(np.linalg.norm(g)) for path, g in kernels(gradients).items()}
