"""The gradient norms of all layers, computed for one step or read from a run's log."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from resflax.devices.compilation import compile_fast
from resflax.diagnostics.inspected import InspectedNetwork, apply, kernels


def gradient_norms(network: InspectedNetwork) -> dict[str, float]:
    """Euclidean norm of the loss's gradient with respect to each kernel, by the layer's path.

    The loss is the mean cross-entropy over the network's pictures, in training mode. The paths are
    in the order of the parameters.
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
    """Reads the gradient norms of layers from a run's log.

    Args:
      lines: lines of the run's metrics.jsonl.
      layers: paths of convolutions, or of the classifier.

    Returns:
      The steps (n,) int of the lines with gradient norms, and the norms (n, layers) float64. Each
      norm is a mean over the steps since the previous line; NaN if that mean was not finite.
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


@lru_cache(maxsize=1)  # all checkpoints of a run use one compiled function
def _gradient_of(module: nn.Module) -> Callable[..., Any]:
    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": statistics}
        logits = apply(module, variables, images, train=True)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return compile_fast(jax.grad(loss))
