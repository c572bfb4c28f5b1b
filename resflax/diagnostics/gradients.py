"""Gradient norm of every layer: at one step by itself, and over a training as its log has it."""

from collections.abc import Callable, Mapping, Sequence
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


def norms_over_training(
    lines: Sequence[Mapping[str, Any]], layers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """What a run's log says of its gradients.

    Args:
      lines: of its metrics.jsonl.
      layers: paths of convolutions or of the classifier.

    Returns:
      Steps (n,) int, and the mean norms since the line before (n, layers) float64; NaN for one
      that was not finite. n is 0 for a log without them.
    """
    logged = [line for line in lines if "kernel_gradient_norms" in line]
    norms = [
        [
            np.nan if (norm := line["kernel_gradient_norms"][layer]) is None else norm
            for layer in layers
        ]
        for line in logged
    ]
    steps = np.array([line["step"] for line in logged], int)
    return steps, np.array(norms, np.float64).reshape(len(logged), len(layers))


@lru_cache(maxsize=1)  # compiled once for all checkpoints of a run
def _gradient_of(module: nn.Module) -> Callable[..., Any]:
    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": statistics}
        logits = apply(module, variables, images, train=True)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return compile_fast(jax.grad(loss))
