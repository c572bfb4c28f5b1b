"""All that a run carries from step to step: enough to continue it, or to predict with it."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.data.augmentation import Normalization
from resflax.models.stacking import is_stacked, stack, unstack
from resflax.training.compilation import compile_fast

Array = jax.Array


class Totals(flax.struct.PyTreeNode):
    """Sums over the steps since the last line of the log."""

    loss: Array
    """() float32: sum of the steps' mean losses."""
    wrong: Array
    """() int32: examples classified wrongly."""
    gradient_norm: Array
    """() float32: sum of the L2 norms of the steps' gradients."""
    kernel_gradient_norms: Any
    """Likewise of each kernel's gradient, by module path: () float32, of stacked units (n,)."""

    @classmethod
    def zero(cls, params: Any) -> "Totals":
        """Nothing summed yet, for a network with these parameters."""
        norms = jax.eval_shape(kernel_norms, params)
        return cls(  # each an array of its own, because a step takes all of them over
            loss=jnp.zeros((), jnp.float32),
            wrong=jnp.zeros((), jnp.int32),
            gradient_norm=jnp.zeros((), jnp.float32),
            kernel_gradient_norms=jax.tree.map(lambda n: jnp.zeros(n.shape, n.dtype), norms),
        )


def kernel_norms(tree: Any) -> dict[str, Any]:
    """L2 norm of every kernel in a tree like the parameters; of stacked units each its own."""

    def norm(path: tuple[str, ...], kernel: Array) -> Array:
        first = 1 if is_stacked(path[0]) else 0
        return jnp.sqrt(jnp.sum(jnp.square(kernel), range(first, kernel.ndim)))

    kernels = {p: k for p, k in flatten_dict(tree).items() if p[-1] == "kernel"}
    return unflatten_dict({path[:-1]: norm(path, kernel) for path, kernel in kernels.items()})


class TrainState(flax.struct.PyTreeNode):
    """A run between two steps; the same on every device."""

    step: Array
    """() int32: steps done."""
    key: Array
    """(2,) uint32: the run's random key; a step folds its number in."""
    params: Any
    """float32 parameters by module path, equal units stacked: see `models.stacking`."""
    batch_stats: Any
    """float32 running means and variances by module path, likewise."""
    opt_state: Any
    """The optimizer's."""
    average: dict[str, Any]
    """Exponential moving averages of `params` and `batch_stats`; empty if the run has none."""
    normalization: Normalization
    """Of the pictures, fitted to the training examples."""
    totals: Totals
    """For the log."""
    failed: Array
    """() bool: the next step has no finite loss or gradient; steps change nothing any more."""

    def variables(self) -> dict[str, Any]:
        """`params` and `batch_stats` as they are trained."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def evaluated(self) -> dict[str, Any]:
        """`params` and `batch_stats` as they are evaluated: the averages, if the run has them."""
        return self.average or self.variables()


# Layers whose weights are drawn by one program; of more it compiles for minutes (ResNet-1202: 7),
# and one draw after the other takes seconds.
_DRAWN_TOGETHER = 800


Draw = TypeVar("Draw", bound=Callable[..., Any])


def drawing(draw: Draw, layers: int) -> Draw:
    """A function that draws weights, for a network with so many layers, made to start fast."""
    if layers > _DRAWN_TOGETHER:
        return draw
    return cast(Draw, compile_fast(draw))


def initial_state(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    normalization: Normalization,
    image_shape: tuple[int, int, int],
    seed: int | np.uint32,
    *,
    averaged: bool = False,
) -> TrainState:
    """Weights drawn from the seed, before the first step. To be traced: see `training.plan`."""
    weights_key, key = jax.random.split(jax.random.PRNGKey(seed))
    # Lazily: only the draws, not the network's first run.
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = module.lazy_init(weights_key, images, train=False)
    return state_of(variables, optimizer, normalization, key, averaged=averaged)


def state_of(
    variables: Any,
    optimizer: optax.GradientTransformation,
    normalization: Normalization,
    key: Array,
    *,
    averaged: bool = False,
) -> TrainState:
    """The state before the first step of a network with the given `params` and `batch_stats`.

    If it is `averaged`, its moving averages begin with these.
    """
    params = stack(variables["params"])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        batch_stats=stack(variables["batch_stats"]),
        opt_state=optimizer.init(params),
        average={},
        normalization=normalization,
        totals=Totals.zero(params),
        failed=jnp.zeros((), bool),
    )
    return begin_average(state) if averaged else state


def begin_average(state: TrainState) -> TrainState:
    """The state with moving averages that begin with its weights and statistics."""
    # Copies: a step takes over the arrays of both.
    return state.replace(average=jax.tree.map(jnp.copy, state.variables()))


def same(one: TrainState, other: TrainState) -> bool:
    """Whether two states of a run are equal to the bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def params_sha256(params: Any) -> str:
    """Hash of all parameters: path, shape and little-endian float32 bytes, in order of path.

    Stacked units are taken apart first: the hash is that of the network, not of how it is held.
    """
    digest = hashlib.sha256()
    for path, value in sorted(flatten_dict(unstack(params), sep="/").items()):
        array = np.asarray(value, "<f4", order="C")
        digest.update(f"{path}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def params_count(params: Any) -> int:
    """Number of trainable parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
