"""Our variables as a PyTorch state dict and back: to the bit, for both go through one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.checks import short
from resflax.declarations.models import DenseNet, Model
from resflax.errors import UsageError
from resflax.models import build
from resflax.weights.names import Family, canonical_name, family_of

COUNTER = ".num_batches_tracked"

# Their names of what a layer has.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# Our axes in their order, by how many there are: HWIO to OIHW, (F, C) to (C, F).
AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


@dataclass(frozen=True)
class Tensor:
    """One tensor under both names, and how its values lie."""

    ours: tuple[str, ...]
    """Path in our variables, `params` or `batch_stats` first."""
    theirs: str
    """Name in their state dict."""
    axes: tuple[int, ...]
    """Our axes in their order."""
    shape: tuple[int, ...]
    """Theirs; it may have axes of length 1 behind ours."""
    channels: Mapping[int, np.ndarray]
    """For some of their axes: our channel at each of their places. Elsewhere the order is ours."""

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """Our values as they lie there."""
        array = array.transpose(self.axes)
        for axis, channels in self.channels.items():
            array = array.take(channels, axis)
        return np.ascontiguousarray(array.reshape(self.shape))

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Their values as they lie here."""
        array = array.reshape(self.shape[: len(self.axes)])
        for axis, channels in self.channels.items():
            array = array.take(np.argsort(channels), axis)
        return np.ascontiguousarray(array.transpose(np.argsort(self.axes)))


def from_torch(config: Model, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables of `build(config, classes)` from a PyTorch state dict.

    Classes and image channels are as many as the state has. `num_batches_tracked` is ignored, the
    prefix `module.` of DataParallel too.

    Args:
      config: of the network whose weights these are.
      state: float32 arrays by their name in torchvision, timm or pytorch_resnet_cifar10.

    Returns:
      `params` and `batch_stats`, nested dicts of float32 arrays.

    Raises:
      UsageError: if a tensor is missing, surplus or of the wrong shape or type, or has values
        that no network can have; or if no other library has this network. The message names it.
    """
    config = config.resolved()
    family = family_of(config)
    state = _canonical(state)
    image_channels = _size(state, f"{family.their_name('stem_conv')}.weight", axis=1)
    classes = _size(state, f"{family.their_name('head')}.weight", axis=0)
    tensors = _table(config, classes, image_channels)
    surplus = sorted(state.keys() - {tensor.theirs for tensor in tensors})
    missing = [tensor.theirs for tensor in tensors if tensor.theirs not in state]
    if missing:
        raise UsageError(_missing(missing[0]))
    if surplus:
        raise UsageError(f"the network has no place for the tensor {short(surplus[0])}")
    return unflatten_dict({t.ours: t.to_ours(_checked(state[t.theirs], t)) for t in tensors})


def to_torch(config: Model, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict that the other library's network loads with `strict=True`.

    Args:
      config: of the network whose variables these are.
      variables: `params` and `batch_stats`, as from `module.init`.

    Returns:
      float32 arrays by name, and an int64 zero `num_batches_tracked` for every batch norm.

    Raises:
      UsageError: if no other library has this network; the message says what it lacks.
    """
    config = config.resolved()
    ours = flatten_dict({key: variables[key] for key in ("params", "batch_stats")})
    classes = ours["params", "head", "bias"].shape[0]
    image_channels = ours["params", "stem_conv", "kernel"].shape[2]
    state: dict[str, np.ndarray] = {}
    for tensor in _table(config, classes, image_channels):
        state[tensor.theirs] = tensor.to_theirs(np.asarray(ours[tensor.ours], np.float32))
        if tensor.ours[-1] == "var":
            state[tensor.theirs.removesuffix(".running_var") + COUNTER] = np.zeros((), np.int64)
    return state


@lru_cache(maxsize=4)  # tracing a deep network takes seconds
def _table(config: Model, classes: int, image_channels: int) -> list[Tensor]:
    """Every tensor of a resolved network under both names."""
    family = family_of(config)
    side = 224 if config.layout == "imagenet" else 32
    image = jax.ShapeDtypeStruct((1, side, side, image_channels), jnp.float32)
    module = build(config, classes)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables).items()}
    channels = _channels(config, family)
    tensors = []
    for path, ours in shapes.items():
        layer = "/".join(path[1:-1])
        theirs = tuple(ours[axis] for axis in AXES[len(ours)])
        if len(ours) == 2 and family.head_is_conv:
            theirs += (1, 1)
        tensors.append(
            Tensor(
                ours=path,
                theirs=f"{family.their_name(layer)}.{LEAVES[path[-1]]}",
                axes=AXES[len(ours)],
                shape=theirs,
                channels=channels.get((layer, len(ours)), {}),
            )
        )
    return tensors


def _channels(config: Model, family: Family) -> dict[tuple[str, int], dict[int, np.ndarray]]:
    """Their order of channels where it is not ours, by layer and number of our axes.

    With option A, the zero channels that a stage adds stand behind the others in our nets and on
    both sides of them in theirs: the same network, its channels in another order.
    """
    if isinstance(config, DenseNet) or config.shortcut != "zero_pad":
        return {}
    if not family.zeros_on_both_sides or config.zero_pad_side == "both":
        return {}
    found = {}
    stream = np.arange(16)
    for stage, units in enumerate(config.units_per_stage, start=1):
        for unit in range(1, units + 1):
            found[f"stage{stage}_unit{unit}/conv1", 4] = {1: stream}
            if unit == 1:
                added = np.arange(len(stream), 16 * 2 ** (stage - 1))
                below, above = np.split(added, 2)
                stream = np.concatenate((below, stream, above))
            found[f"stage{stage}_unit{unit}/conv2", 4] = {0: stream}
            found[f"stage{stage}_unit{unit}/norm2", 1] = {0: stream}
    found["head", 2] = {1: stream}
    return found


def _canonical(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that count, by their newest names."""
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    found: dict[str, np.ndarray] = {}
    for name, array in state.items():
        new = canonical_name(name.removeprefix(prefix))
        if new.endswith(COUNTER):
            continue
        if new in found:
            raise UsageError(f"there are two tensors for {short(new)}")
        found[new] = array
    return found


def _size(state: Mapping[str, np.ndarray], name: str, axis: int) -> int:
    """Length of an axis of a weight that decides how large the network is."""
    if name not in state:
        raise UsageError(_missing(name))
    shape = state[name].shape
    if len(shape) < 2 or shape[axis] == 0:
        raise UsageError(f"the tensor {name} has the shape {shape}, which no network has")
    return shape[axis]


def _missing(name: str) -> str:
    return f"the tensor {name} is missing, which the network needs"


def _checked(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The array, if it can be that tensor; shape and type first, for they cost nothing."""
    if array.shape != tensor.shape:
        raise UsageError(
            f"the tensor {tensor.theirs} has the shape {array.shape}; "
            f"the network needs {tensor.shape}"
        )
    if array.dtype != np.float32:
        raise UsageError(f"the tensor {tensor.theirs} is {array.dtype}; it must be float32")
    if not np.isfinite(array).all():
        raise UsageError(f"the tensor {tensor.theirs} has values that are not finite")
    if tensor.ours[-1] == "var" and (array < 0).any():
        raise UsageError(f"the tensor {tensor.theirs} has variances below zero")
    return array
