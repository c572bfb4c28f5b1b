"""Counts the layers of a network: output shapes, parameters, multiply-adds and memory.

Everything is counted from shapes while the module is traced. No array is allocated or computed.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table

from resflax.declarations.models import Model
from resflax.models import build
from resflax.models.layers import BatchNorm, Conv
from resflax.models.own_parts import check_own, own_classes
from resflax.models.program_counts import count_multiply_adds, trace


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
        "layers": [asdict(layer) for layer in summary.layers],
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
    recorder = _Recorder(_macs_by_module(module, image) if own_classes(config) else None)
    with nn.intercept_methods(recorder.record):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    return Summary(tuple(recorder.layers))


class _Recorder:
    """Records the layers of a network, in the order in which their calls return."""

    def __init__(self, macs: dict[tuple[str, ...], int] | None) -> None:
        """`macs` are the multiply-adds that stand in modules themselves, by their paths.

        None: the network has no class of a user's own, so only our layers have any.
        """
        self.layers: list[LayerSummary] = []
        self._all_modules = macs is not None
        self._macs = macs or {}
        self._seen: set[tuple[str, ...]] = set()

    def record(
        self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        """Calls a method of a module, and records the module if it is a layer."""
        output = call(*args, **kwargs)
        module = context.module
        if context.method_name != "__call__":
            return output
        known = isinstance(module, Conv | BatchNorm | nn.Dense)
        params = [
            leaf for leaf in module.variables.get("params", {}).values() if hasattr(leaf, "size")
        ]
        macs = self._macs_of_layer(module, output) if known else self._macs.get(module.path, 0)
        arrays = [leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype")]
        if arrays and (known or macs or (params and self._all_modules)):
            first = module.path not in self._seen  # a module that is called again has no new params
            self._seen.add(module.path)
            self.layers.append(
                LayerSummary(
                    name=".".join(module.path),
                    kind=type(module).__name__,
                    output=tuple(arrays[0].shape[1:]),
                    params=sum(leaf.size for leaf in params) if first else 0,
                    macs=macs,
                    activation_bytes=sum(a.size * a.dtype.itemsize for a in arrays),
                )
            )
            if not known:
                self._macs.pop(module.path, None)  # the program's count covers all of its calls
        return output

    def _macs_of_layer(self, module: nn.Module, output: Any) -> int:
        kernel = module.variables["params"].get("kernel")
        return 0 if kernel is None else math.prod(output.shape[1:-1]) * kernel.size


def _macs_by_module(module: nn.Module, image: Any) -> dict[tuple[str, ...], int]:
    """The multiply-adds of the program that stand in modules themselves, by the modules' paths.

    Layers whose multiply-adds follow from their shapes are left out.
    """
    paths: dict[tuple[str, ...], bool] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        paths[context.module.path] = isinstance(context.module, Conv | BatchNorm | nn.Dense)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    program = trace(lambda v, x: module.apply(v, x, train=False), variables, image)
    counts: dict[tuple[str, ...], int] = dict.fromkeys(paths, 0)
    for scope, macs in count_multiply_adds(program).items():
        path = _module_of(scope, paths)
        if not paths[path]:
            counts[path] += macs
    return counts


def _module_of(scope: str, paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The innermost module whose path is part of a scope's name such as `Net/stage1/conv.apply`."""
    names = [name.partition(".")[0] for name in scope.split("/")]

    def is_part(path: tuple[str, ...]) -> bool:
        left = iter(names)
        return all(name in left for name in path)

    return max(filter(is_part, paths), key=len, default=())
