"""The state of a training: everything that passes from one step to the next."""

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

from resflax.data.normalization import Normalization
from resflax.devices.compilation import compile_as_called, compile_fast
from resflax.models.initial_variables import draw_variables
from resflax.models.stacking import is_stacked, stack, unstack

Array = jax.Array


class Totals(flax.struct.PyTreeNode):
    """Sums over the steps since the last training line of the log."""

    loss: Array
    """() float32: sum of the steps' mean losses."""
    wrong: Array
    """() int32: number of examples that were classified wrongly."""
    gradient_norm: Array
    """() float32: sum of the L2 norms of the steps' gradients."""
    kernel_gradient_norms: Any
    """The same sum for each kernel, by module path: () float32, or (n,) for n stacked units."""

    @classmethod
    def zero(cls, params: Any) -> "Totals":
        """The sums over no steps, which are zero, for a network with these parameters."""
        norms = jax.eval_shape(kernel_norms, params)
        return cls(  # no two share an array, because a step is donated every array of the state
            loss=jnp.zeros((), jnp.float32),
            wrong=jnp.zeros((), jnp.int32),
            gradient_norm=jnp.zeros((), jnp.float32),
            kernel_gradient_norms=jax.tree.map(lambda n: jnp.zeros(n.shape, n.dtype), norms),
        )


def kernel_norms(tree: Any) -> dict[str, Any]:
    """L2 norm of every kernel in a tree like the parameters, by module path.

    Each is () float32, or (n,) for n stacked units.
    """

    def norm(path: tuple[str, ...], kernel: Array) -> Array:
        first = 1 if is_stacked(path[0]) else 0
        return jnp.sqrt(jnp.sum(jnp.square(kernel), range(first, kernel.ndim)))

    kernels = {p: k for p, k in flatten_dict(tree).items() if p[-1] == "kernel"}
    return unflatten_dict({path[:-1]: norm(path, kernel) for path, kernel in kernels.items()})


class TrainState(flax.struct.PyTreeNode):
    """The state of a run between two steps; it is the same on every device."""

    step: Array
    """() int32: number of steps that are done."""
    key: Array
    """(2,) uint32: the random key of the run, into which each step folds its number."""
    params: Any
    """float32 parameters by module path, with equal units stacked: see `models.stacking`."""
    batch_stats: Any
    """float32 running means and variances by module path, stacked like the parameters."""
    opt_state: Any
    """The state of the optimizer."""
    average: dict[str, Any]
    """Exponential moving averages of `params` and `batch_stats`; empty if the run has none."""
    normalization: Normalization
    """How images are normalised."""
    totals: Totals
    """Sums for the log."""
    failed: Array
    """() bool: whether the step that follows was tried, and its loss or gradient was not finite.
    All later steps leave a failed state as it is."""

    def variables(self) -> dict[str, Any]:
        """`params` and `batch_stats` as training uses them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def evaluated(self) -> dict[str, Any]:
        """`params` and `batch_stats` as evaluations use them: the averages if there are any."""
        return self.average or self.variables()


# The most layers whose weights are drawn by `compile_fast`, or one by one in a program. Deeper
# networks were once drawn operation by operation, and must still begin with the same weights.
_DRAWN_TOGETHER = 800

Draw = TypeVar("Draw", bound=Callable[..., Any])


def drawing(draw: Draw, layers: int, *, stacked: bool = True) -> Draw:
    """Wraps `draw`, which draws the weights of a network, so that it takes little time in all.

    Args:
      draw: the function, which may be traced.
      layers: the number of the network's layers.
      stacked: whether it draws equal units together, so that its program is small at every depth.
        If it does not, it is not compiled for too many layers, which would take minutes.
    """
    if layers <= _DRAWN_TOGETHER:
        return cast(Draw, compile_fast(draw))
    return cast(Draw, compile_as_called(draw)) if stacked else draw


def initial_state(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    normalization: Normalization,
    image_shape: tuple[int, int, int],
    seed: int | np.uint32,
    *,
    averaged: bool = False,
) -> TrainState:
    """The state before the first step, with weights drawn from the seed.

    The function is meant to be traced. `averaged` adds moving averages to the state.
    """
    weights_key, key = jax.random.split(jax.random.PRNGKey(seed))
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = draw_variables(module, weights_key, images)
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

    With `averaged`, the state has moving averages that begin with these variables.
    """
    params = stack(variables["params"])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        batch_stats=stack(variables.get("batch_stats", {})),
        opt_state=optimizer.init(params),
        average={},
        normalization=normalization,
        totals=Totals.zero(params),
        failed=jnp.zeros((), bool),
    )
    return begin_average(state) if averaged else state


def begin_average(state: TrainState) -> TrainState:
    """The state with moving averages that begin with its weights and statistics."""
    # The averages are copies, because a step is donated every array of the state.
    return state.replace(average=jax.tree.map(jnp.copy, state.variables()))


def same(one: TrainState, other: TrainState) -> bool:
    """Whether two states of a run are bitwise equal."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def params_sha256(params: Any) -> str:
    """The sha256 of all parameters: path, shape and little-endian float32 bytes, sorted by path.

    Stacked units are taken apart first, so it does not matter whether units are stacked.
    """
    digest = hashlib.sha256()
    # Units are taken apart on the host: each slice of an array on a device is a program of its own.
    for path, value in sorted(flatten_dict(unstack(jax.device_get(params)), sep="/").items()):
        array = np.asarray(value, "<f4", order="C")
        digest.update(f"{path}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def params_count(params: Any) -> int:
    """The number of trainable parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
