"""Counts the layers of a network: output shapes, parameters, multiply-adds and memory.

Everything is counted from shapes while the module is traced. No array is allocated or computed.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table

from resflax.declarations.models import Model
from resflax.models import build
from resflax.models.layers import BatchNorm, Conv


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

    `dtype` is the number format of convolutions and activations. Raises `UsageError` if the network
    cannot take images of that size.
    """
    layers: list[LayerSummary] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        module = context.module
        if isinstance(module, Conv | BatchNorm | nn.Dense) and context.method_name == "__call__":
            params = module.variables["params"]
            kernel = params.get("kernel")
            places = math.prod(output.shape[1:-1])
            layers.append(
                LayerSummary(
                    name=".".join(module.path),
                    kind=type(module).__name__,
                    output=tuple(output.shape[1:]),
                    params=sum(leaf.size for leaf in jax.tree.leaves(params)),
                    macs=0 if kernel is None else places * kernel.size,
                    activation_bytes=output.size * output.dtype.itemsize,
                )
            )
        return output

    module = build(config, num_classes, dtype=dtype)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    return Summary(tuple(layers))
