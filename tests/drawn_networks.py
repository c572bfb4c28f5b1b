"""Freshly drawn variables of networks, for tests of what the networks compute."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.declarations import models as declarations
from resflax.models import build

KEY = jax.random.key(0)

# Every network here runs a few times, so compiling takes most of the time.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def draw(module: nn.Module, images: Any) -> Any:
    """Freshly drawn variables."""
    return jit(lambda x: module.init(KEY, x, train=False))(images)


def initial(config: declarations.Model, classes: int = 10) -> dict:
    """Freshly drawn variables by path: `params/stem_conv/kernel`."""
    return flatten_dict(draw(build(config, classes), jnp.zeros((1, 32, 32, 3))), sep="/")


def shuffled(variables: dict, seed=0) -> dict:
    """Every variable given values of its own, variances positive."""
    random = np.random.default_rng(seed)
    others = {}
    for path, value in variables.items():
        drawn = random.normal(size=value.shape) * (0.2 if value.ndim < 4 else 0.1)
        leaf = path.split("/")[-1]
        others[path] = np.float32(drawn + 1 if leaf in ("scale", "var") else drawn)
    return others
