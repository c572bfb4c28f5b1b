"""Optimizers layer by layer against their formulas, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resflax import LAMB, LARS, SGD, AdamW
from resflax.declarations.optimization import Optimizer
from resflax.models.stacking import stack, unstack
from resflax.training.optimizer import make_optimizer

RNG = np.random.default_rng(0)

PARAMS = {
    "stem_conv": {"kernel": (3, 3)},
    **{
        f"stage1_unit{n}": {"conv1": {"kernel": (2, 4)}, "norm1": {"scale": (4,), "bias": (4,)}}
        for n in (1, 2, 3)
    },
    "head": {"kernel": (4, 2), "bias": (2,)},
}


def drawn(scale):
    return jax.tree.map(
        lambda shape: RNG.normal(0, scale, shape), PARAMS, is_leaf=lambda x: isinstance(x, tuple)
    )


def decayed(path, without):
    norm = path[-2].startswith("norm")
    return not (norm and without != "none") and not (
        without == "norm_and_bias" and path[-1] == "bias"
    )


def by_hand(declared: Optimizer, path, p, gradients, norms, rates):
    """A parameter array after the optimizer's steps: the formulas of its docstring."""
    decays = decayed(path, declared.no_weight_decay)
    decay = declared.weight_decay if decays else 0.0
    m = v = np.zeros_like(p)
    for t, (g, norm, rate) in enumerate(zip(gradients, norms, rates, strict=True), start=1):
        if declared.max_gradient_norm is not None:
            g = g / max(1, norm / declared.max_gradient_norm)
        if isinstance(declared, SGD):
            m = declared.momentum * m + g + decay * p
            p = p - rate * m
            continue
        if isinstance(declared, LARS):
            g = g + decay * p
            ratio = declared.trust_coefficient * np.linalg.norm(p) / np.linalg.norm(g)
            m = declared.momentum * m + rate * g * (ratio if decays else 1)
            p = p - m
            continue
        m = declared.b1 * m + (1 - declared.b1) * g
        v = declared.b2 * v + (1 - declared.b2) * g**2
        u = (m / (1 - declared.b1**t)) / (np.sqrt(v / (1 - declared.b2**t)) + declared.epsilon)
        u = u + decay * p
        if isinstance(declared, LAMB) and decays:
            u = u * np.linalg.norm(p) / np.linalg.norm(u)
        p = p - rate * u
    return p


@pytest.mark.parametrize(
    "declared",
    [
        SGD(momentum=0.9, weight_decay=0.1, no_weight_decay="norm"),
        SGD(momentum=0.9, weight_decay=0.1, no_weight_decay="norm_and_bias"),
        LARS(learning_rate=0.5, weight_decay=0.1, trust_coefficient=0.01),
        LARS(learning_rate=0.5, weight_decay=0.1, no_weight_decay="none"),
        AdamW(weight_decay=0.1),
        AdamW(weight_decay=0.0, b1=0.5, b2=0.9, epsilon=1e-3),
        LAMB(learning_rate=0.05, weight_decay=0.1),
        LAMB(learning_rate=0.05, max_gradient_norm=None, no_weight_decay="norm"),
        SGD(weight_decay=0.1, max_gradient_norm=0.5),
        SGD(weight_decay=0.1, max_gradient_norm=1.0),
        LARS(learning_rate=0.5, weight_decay=0.1, max_gradient_norm=0.5),
        AdamW(weight_decay=0.1, max_gradient_norm=0.5),
    ],
    ids=lambda x: f"{type(x).__name__} {x.no_weight_decay} {x.max_gradient_norm}",
)
def test_optimizers_are_their_formulas_layer_by_layer(declared: Optimizer):
    start, gradients, rates = drawn(1.0), [drawn(s) for s in (0.5, 0.1, 0.5)], [0.01, 0.1, 0.1]
    optimizer = make_optimizer(declared, lambda step: jnp.asarray(rates)[step])
    # A run stacks units 2 and 3 into one array, and they are still two layers.
    single = jax.tree.map(jnp.float32, start)
    params = stack(single)
    assert "stage1_units" in params
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(stack(jax.tree.map(jnp.float32, gradient)), state, params)
        params = optax.apply_updates(params, updates)
    stepped = flatten_dict(unstack(params))
    norms = [float(optax.tree.norm(gradient)) for gradient in gradients]
    assert norms[1] < 1 < min(norms[0], norms[2])  # a limit of 1 clips two of the gradients
    for path, p in flatten_dict(start).items():
        own = [flatten_dict(gradient)[path] for gradient in gradients]
        expected = by_hand(declared, path, p, own, norms, rates)
        np.testing.assert_allclose(stepped[path], expected, rtol=2e-5, atol=1e-6, err_msg=str(path))
