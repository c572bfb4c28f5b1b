"""Counts the layers of a network: output shapes, parameters, multiply-adds and memory.

Everything is counted from shapes while the module is traced. No array is allocated or computed.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from rich.table import Table

from resflax.declarations.models import Model
from resflax.declarations.own import own_classes
from resflax.models import build
from resflax.models.equal_units import equal_before, skip_later_units
from resflax.models.layers import BatchNorm, Conv
from resflax.models.own_parts import check_own
from resflax.models.program_counts import count_multiply_adds


@dataclass(frozen=True)
class LayerSummary:
    """Counts of one layer."""

    name: str
    """Path of the layer's module."""
    kind: str
    """Class of the layer's module."""
    output: tuple[int, ...]
    """Shape of the output for one image: (H, W, C) or (C,)."""
    params: int
    """Number of trainable parameters."""
    macs: int
    """Multiply-adds for one image, including those on padding. A multiply-add counts as 1."""
    activation_bytes: int
    """Bytes of the output for one image."""


@dataclass(frozen=True)
class Summary:
    """All layers of a network, in the order in which they run."""

    layers: tuple[LayerSummary, ...]

    @property
    def params(self) -> int:
        """Number of trainable parameters: kernels, scales and biases, not running statistics."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image's forward pass. Only convolutions and dense layers count."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes that a training step keeps per image for its backward pass.

        These are the outputs of all convolutions, batch norms and dense layers in their number
        formats. ReLU, addition, pooling and concatenation do not count, because their gradients
        need nothing else or can be computed from these outputs. The count ignores what a compiler
        fuses or recomputes. Parameters, gradients and the optimizer's state do not count.
        """
        return sum(layer.activation_bytes for layer in self.layers)


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """`params`, `macs`, `activation_bytes` and `layers` as plain JSON values."""
    return {
        "params": summary.params,
        "macs": summary.macs,
        "activation_bytes": summary.activation_bytes,
        "layers": [dataclasses.asdict(layer) for layer in summary.layers],
    }


def summary_table(summary: Summary, title: str) -> Table:
    """The summary as a table for a terminal."""
    table = Table(title=title, show_footer=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind")
    table.add_column("output", justify="right")
    totals = (summary.params, summary.macs, summary.activation_bytes)
    for header, total in zip(("parameters", "multiply-adds", "bytes kept"), totals, strict=True):
        table.add_column(header, f"{total:,}", justify="right", no_wrap=True)
    for layer in summary.layers:
        output = " x ".join(map(str, layer.output))
        numbers = (f"{n:,}" for n in (layer.params, layer.macs, layer.activation_bytes))
        table.add_row(layer.name, layer.kind, output, *numbers)
    return table


def summarize(
    config: Model, num_classes: int, image_shape: tuple[int, int, int], *, dtype: Any = "float32"
) -> Summary:
    """Traces the network of `config` for one (H, W, C) image and counts its layers.

    In a user's own classes, every module counts that has parameters of its own, or convolutions or
    matrix products of its own.

    `dtype` is the number format of convolutions and activations. Raises `UsageError` if the network
    cannot take images of that size, or if a user's own class fails or returns what it must not.
    """
    module = build(config, num_classes, dtype=dtype)
    check_own(config, module, num_classes, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    recorder = _Recorder(_count_own(module, image) if own_classes(config) else None)
    with nn.intercept_methods(recorder.record):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    return Summary(tuple(recorder.layers))


class _Recorder:
    """Records the layers of a network, in the order in which their calls return."""

    def __init__(self, own: "_OwnCounts | None") -> None:
        """`own` has the counts of a network with a user's own classes; None: it has none."""
        self.layers: list[LayerSummary] = []
        self._own = own
        self._seen: set[tuple[str, ...]] = set()
        self._of_units: dict[str, list[LayerSummary]] = {}

    def record(
        self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        """Calls a method of a module, and records the module if it is a layer.

        A unit that is equal to an earlier one is not called, because it has the same counts.
        """
        if context.method_name == "__call__" and (equal := equal_before(context.module)):
            self._repeat(equal, str(context.module.name))
            return args[0]
        output = call(*args, **kwargs)
        module = context.module
        if context.method_name != "__call__" or module.path in self._seen:
            return output
        if self._own is not None:
            params, macs = self._own.params.get(module.path, 0), self._own.macs[module.path]
            counts = params > 0 or macs > 0
        else:
            counts = isinstance(module, Conv | BatchNorm | nn.Dense)
            params, macs = _counts_from_shapes(module, output) if counts else (0, 0)
        arrays = [leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype")]
        if counts and arrays:
            self._seen.add(module.path)
            self.layers.append(
                LayerSummary(
                    name=".".join(module.path),
                    kind=type(module).__name__,
                    output=tuple(arrays[0].shape[1:]),
                    params=params,
                    macs=macs,
                    activation_bytes=sum(a.size * a.dtype.itemsize for a in arrays),
                )
            )
        return output

    def _repeat(self, equal: str, name: str) -> None:
        """Records the layers of a unit that is equal to one that is recorded."""
        if equal not in self._of_units:
            inside = [layer for layer in self.layers if layer.name.startswith(f"{equal}.")]
            self._of_units[equal] = inside
        for layer in self._of_units[equal]:
            inner = layer.name.removeprefix(equal)
            self.layers.append(dataclasses.replace(layer, name=name + inner))


def _counts_from_shapes(module: nn.Module, output: Any) -> tuple[int, int]:
    """The parameters and the multiply-adds of one of our layers."""
    params = module.variables["params"]
    kernel = params.get("kernel")
    macs = 0 if kernel is None else math.prod(output.shape[1:-1]) * kernel.size
    return sum(leaf.size for leaf in jax.tree.leaves(params)), macs


@dataclass(frozen=True)
class _OwnCounts:
    """Counts of a network with a user's own classes, by the paths of its modules."""

    params: dict[tuple[str, ...], int]
    """The parameters that stand in modules themselves."""
    macs: dict[tuple[str, ...], int]
    """The multiply-adds of the program that stand in modules themselves."""


def _count_own(module: nn.Module, image: Any) -> _OwnCounts:
    """Counts the variables and the program of a network."""
    paths: dict[tuple[str, ...], None] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        paths[context.module.path] = None
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            return context.module.as_one_convolution(*args)
        return call(*args, **kwargs)

    with nn.intercept_methods(skip_later_units), nn.intercept_methods(note):
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
        program = jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, image)
    macs: dict[tuple[str, ...], int] = dict.fromkeys(paths, 0)
    for scope, count in count_multiply_adds(program).items():
        macs[_module_of(scope, paths)] += count
    params: Counter[tuple[str, ...]] = Counter()
    for path, leaf in flatten_dict(variables["params"]).items():
        owner = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in paths)
        params[owner] += leaf.size
    return _OwnCounts(dict(params), macs)


def _module_of(scope: str, paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The innermost module whose path is part of a scope's name such as `Net/stage1/conv.apply`."""
    names = [name.partition(".")[0] for name in scope.split("/")]

    def is_part(path: tuple[str, ...]) -> bool:
        left = iter(names)
        return all(name in left for name in path)

    return max(filter(is_part, paths), key=len, default=())
