"""Networks with random weights and pictures, for the tests of diagnostics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resflax import Experiment
from resflax.data.in_memory import Split
from resflax.data.normalization import Normalization
from resflax.diagnostics.inspected import InspectedNetwork
from resflax.models import build


def network(model: Any, examples: int = 6) -> InspectedNetwork:
    """A network without any variable at its initial value, with random pictures of 8x8."""
    rng = np.random.default_rng(0)
    experiment = Experiment(name="x", model=model, batch_size=4, steps=1)
    pictures = Split(
        rng.integers(0, 256, (examples, 8, 8, 1), dtype=np.uint8),
        rng.integers(0, 10, examples, dtype=np.int32),
    )
    module = build(model, 10)
    images = jnp.asarray(pictures.images / 100 - 1, jnp.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(  # nothing at its initial value
        lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), dict(shapes)
    )
    variables["batch_stats"] = jax.tree.map(lambda x: 0.5 + jnp.abs(x), variables["batch_stats"])
    normalization = Normalization(jnp.full(1, 100.0), jnp.full(1, 0.01))
    return InspectedNetwork(experiment, module, variables, 1, pictures, images, normalization)
