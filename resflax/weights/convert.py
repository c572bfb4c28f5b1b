"""Converts variables of our networks to PyTorch state dicts, and state dicts to our variables.

Both directions use one table of tensors, so an array that is exported and imported again is the
same, bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.checks import short
from resflax.declarations.models import Custom, Model, ResNet
from resflax.errors import UsageError
from resflax.models import build
from resflax.models.zoo import TASKS
from resflax.weights.layer_names import Family, family_of, newest_name

_COUNTER = ".num_batches_tracked"

# PyTorch's names for the arrays of a layer.
_ARRAY_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# Our axes in PyTorch's order, by the number of axes: HWIO to OIHW, (F, C) to (C, F).
_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


@dataclass(frozen=True)
class TensorMapping:
    """Relates one of our arrays to the tensor of a state dict that holds the same values."""

    path: tuple[str, ...]
    """Path of the array in our variables; `params` or `batch_stats` comes first."""
    name: str
    """Name of the tensor in the state dict."""
    axes: tuple[int, ...]
    """The numbers of our axes, in the tensor's order."""
    tensor_shape: tuple[int, ...]
    """Shape of the tensor, which may have additional axes of length 1 at its end."""
    channels: Mapping[int, np.ndarray]
    """For axes of the tensor whose channels have another order than ours: the numbers of our
    channels, in the tensor's order."""

    def to_tensor(self, array: np.ndarray) -> np.ndarray:
        """Our array in the tensor's layout."""
        array = array.transpose(self.axes)
        for axis, channels in self.channels.items():
            array = array.take(channels, axis)
        return np.ascontiguousarray(array.reshape(self.tensor_shape))

    def to_array(self, tensor: np.ndarray) -> np.ndarray:
        """The tensor in our array's layout."""
        array = tensor.reshape(self.tensor_shape[: len(self.axes)])
        for axis, channels in self.channels.items():
            array = array.take(np.argsort(channels), axis)
        return np.ascontiguousarray(array.transpose(np.argsort(self.axes)))


def from_torch(
    config: Model, state: Mapping[str, np.ndarray], *, with_head: bool = True
) -> dict[str, Any]:
    """Makes the variables of `build(config, classes)` from a PyTorch state dict.

    The numbers of classes and of image channels come from the state dict. `num_batches_tracked` and
    the prefix `module.` of DataParallel are ignored.

    Args:
      config: declaration of the network that has these weights.
      state: float32, float16, bfloat16 or float64 arrays by their names in torchvision, timm or
        pytorch_resnet_cifar10.
      with_head: False: the classifier is left out, so that the state dict may have another one or
        none.

    Returns:
      `params` and `batch_stats`, nested dicts of float32 arrays.

    Raises:
      UsageError: if a tensor is missing, surplus, or of the wrong shape or type; if a tensor has
        values that no network can have; if no other library has this network. The message names
        the tensor or the field.
    """
    config = config.resolved()
    family = family_of(config)
    state = _without_counters(state)
    stem, head = family.layer_name("stem_conv"), family.layer_name("head")
    image_channels = _axis_length(state, f"{stem}.weight", axis=1)
    classes = _axis_length(state, f"{head}.weight", axis=0) if with_head else 1
    mappings = _tensor_mappings(config, classes, image_channels)
    if not with_head:
        mappings = [mapping for mapping in mappings if mapping.path[1] != "head"]
        state = {name: state[name] for name in state if not name.startswith(f"{head}.")}
    missing = [mapping.name for mapping in mappings if mapping.name not in state]
    surplus = sorted(state.keys() - {mapping.name for mapping in mappings})
    if missing:
        raise UsageError(_missing_tensor(missing[0]))
    if surplus:
        raise UsageError(f"the network has no place for the tensor {short(surplus[0])}")
    arrays = {}
    for mapping in mappings:
        tensor = _checked(state[mapping.name], mapping)
        arrays[mapping.path] = mapping.to_array(tensor)
    return unflatten_dict(arrays)


@dataclass(frozen=True)
class Names:
    """The names of a network's tensors in the library that has it."""

    stem: str
    """The first layer."""
    head: str
    """The classifier."""
    tensors: frozenset[str]
    """All tensors but `num_batches_tracked`."""

    @property
    def without_head(self) -> frozenset[str]:
        """All tensors but those of the classifier."""
        return frozenset(n for n in self.tensors if not n.startswith(f"{self.head}."))


def names_of(config: Model) -> Names:
    """The names of a network's tensors.

    Raises `UsageError` if no other library has this network. The message names the field.
    """
    config = config.resolved()
    family = family_of(config)
    assert not isinstance(config, Custom), "no other library has it"
    mappings = _tensor_mappings(config, TASKS[config.layout].num_classes, 3)
    return Names(
        stem=family.layer_name("stem_conv"),
        head=family.layer_name("head"),
        tensors=frozenset(mapping.name for mapping in mappings),
    )


def head_features(config: Model, image_channels: int) -> int:
    """The number of features that a network's classifier gets."""
    mappings = _tensor_mappings(config.resolved(), 1, image_channels)
    return next(m.tensor_shape[1] for m in mappings if m.path == ("params", "head", "kernel"))


def to_torch(config: Model, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Makes a state dict that the other library's network loads with `strict=True`.

    Args:
      config: declaration of the network that has these variables.
      variables: `params` and `batch_stats`, as `module.init` returns them.

    Returns:
      float32 arrays by name, and an int64 zero `num_batches_tracked` for every batch norm.

    Raises:
      UsageError: if no other library has this network. The message names the field that differs.
    """
    config = config.resolved()
    family_of(config)  # refuses other networks
    arrays = flatten_dict({key: variables[key] for key in ("params", "batch_stats")})
    classes = arrays["params", "head", "bias"].shape[0]
    image_channels = arrays["params", "stem_conv", "kernel"].shape[2]
    state: dict[str, np.ndarray] = {}
    for mapping in _tensor_mappings(config, classes, image_channels):
        state[mapping.name] = mapping.to_tensor(np.asarray(arrays[mapping.path], np.float32))
        if mapping.path[-1] == "var":
            state[mapping.name.removesuffix(".running_var") + _COUNTER] = np.zeros((), np.int64)
    return state


@lru_cache(maxsize=4)  # tracing a deep network takes seconds
def _tensor_mappings(config: Model, classes: int, image_channels: int) -> list[TensorMapping]:
    """The mappings of all tensors of a resolved network."""
    family = family_of(config)
    assert not isinstance(config, Custom), "no other library has it"
    side = 224 if config.layout == "imagenet" else 32
    image = jax.ShapeDtypeStruct((1, side, side, image_channels), jnp.float32)
    module = build(config, classes)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    channel_orders = _channel_orders(config, family)
    mappings = []
    for path, leaf in flatten_dict(variables).items():
        layer = "/".join(path[1:-1])
        axes = _AXES[leaf.ndim]
        tensor_shape = tuple(leaf.shape[axis] for axis in axes)
        if leaf.ndim == 2 and family.head_is_conv:
            tensor_shape += (1, 1)
        mappings.append(
            TensorMapping(
                path=path,
                name=f"{family.layer_name(layer)}.{_ARRAY_NAMES[path[-1]]}",
                axes=axes,
                tensor_shape=tensor_shape,
                channels=channel_orders.get((layer, leaf.ndim), {}),
            )
        )
    return mappings


def _channel_orders(config: Model, family: Family) -> dict[tuple[str, int], dict[int, np.ndarray]]:
    """The `channels` of the tensor mappings whose channels have another order than ours.

    The keys are our path of a layer and the number of axes of our array. With option A, our
    networks put the zero channels that a stage adds after the other channels; the family may put
    half of them before. Both are the same network, with its channels in another order.
    """
    if not isinstance(config, ResNet) or config.shortcut != "zero_pad":
        return {}
    if not family.zeros_on_both_sides or config.zero_pad_side == "both":
        return {}
    orders = {}
    stream = np.arange(16)
    for stage, units in enumerate(config.units_per_stage, start=1):
        for unit in range(1, units + 1):
            orders[f"stage{stage}_unit{unit}/conv1", 4] = {1: stream}
            if unit == 1:
                added = np.arange(len(stream), 16 * 2 ** (stage - 1))
                before, after = np.split(added, 2)
                stream = np.concatenate((before, stream, after))
            orders[f"stage{stage}_unit{unit}/conv2", 4] = {0: stream}
            orders[f"stage{stage}_unit{unit}/norm2", 1] = {0: stream}
    orders["head", 2] = {1: stream}
    return orders


def _without_counters(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that a network computes with, under their newest names."""
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    tensors: dict[str, np.ndarray] = {}
    for old_name, tensor in state.items():
        name = newest_name(old_name.removeprefix(prefix))
        if name.endswith(_COUNTER):
            continue
        if name in tensors:
            raise UsageError(f"there are two tensors for {short(name)}")
        tensors[name] = tensor
    return tensors


def _axis_length(state: Mapping[str, np.ndarray], name: str, axis: int) -> int:
    """The length of an axis of a weight, which is a size of the network."""
    if name not in state:
        raise UsageError(_missing_tensor(name))
    shape = state[name].shape
    if len(shape) < 2 or shape[axis] == 0:
        raise UsageError(f"the tensor {name} has the shape {shape}, which no network has")
    return shape[axis]


def _missing_tensor(name: str) -> str:
    return f"the tensor {name} is missing, which the network needs"


_FLOATS = ("float32", "float16", "bfloat16", "float64")


def _checked(tensor: np.ndarray, mapping: TensorMapping) -> np.ndarray:
    """The tensor in float32.

    Raises `UsageError` if it cannot be the one of the mapping. Shape and type are checked first,
    because that does not need to read the values.
    """
    if tensor.shape != mapping.tensor_shape:
        raise UsageError(
            f"the tensor {mapping.name} has the shape {tensor.shape}; "
            f"the network needs {mapping.tensor_shape}"
        )
    if tensor.dtype.name not in _FLOATS:
        raise UsageError(f"the tensor {mapping.name} is {tensor.dtype}; it must be float32")
    if not np.isfinite(tensor).all():
        raise UsageError(f"the tensor {mapping.name} has values that are not finite")
    if mapping.path[-1] == "var" and (tensor < 0).any():
        raise UsageError(f"the tensor {mapping.name} has variances below zero")
    with np.errstate(over="ignore"):
        single = tensor.astype(np.float32, copy=False)
    if single is not tensor and not np.isfinite(single).all():
        raise UsageError(f"the tensor {mapping.name} has values beyond the range of float32")
    return single
