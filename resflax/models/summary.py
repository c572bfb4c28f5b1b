"""What a network is made of: its layers with output shapes, parameters, multiply-adds, memory.

Counted from shapes while the module is traced; nothing is allocated or computed.
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
class Row:
    """One layer."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of the output for one image: (H, W, C) or (C,)."""
    params: int
    """Trainable parameters."""
    macs: int
    """Multiply-adds for one image, padding included; 1 multiply-add counts 1."""
    activation_bytes: int
    """Bytes of the output for one image."""


@dataclass(frozen=True)
class Summary:
    """All layers of a network, in the order in which they run."""

    rows: tuple[Row, ...]

    @property
    def params(self) -> int:
        """Trainable parameters: kernels, scales, biases; no running statistics."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass of one image; convolutions and dense layers only."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes that a training step keeps per image for its backward pass.

        Counted is the output of every convolution, batch norm and dense layer, in the type it is
        computed in. ReLU, addition, pooling and concatenation are not: their gradients need no
        more than that, or can be computed from it. What a compiler fuses away or recomputes, and
        parameters, gradients and the optimizer's state, are not known here.
        """
        return sum(row.activation_bytes for row in self.rows)


def to_json(summary: Summary) -> dict[str, Any]:
    """`params`, `macs`, `activation_bytes` and `layers` as plain JSON values."""
    return {
        "params": summary.params,
        "macs": summary.macs,
        "activation_bytes": summary.activation_bytes,
        "layers": [asdict(row) for row in summary.rows],
    }


def table(summary: Summary, title: str) -> Table:
    """The summary for a terminal."""
    found = Table(title=title, show_footer=True)
    found.add_column("layer", "total", overflow="fold")
    found.add_column("kind")
    found.add_column("output", justify="right")
    totals = (summary.params, summary.macs, summary.activation_bytes)
    for header, total in zip(("parameters", "multiply-adds", "bytes kept"), totals, strict=True):
        found.add_column(header, f"{total:,}", justify="right", no_wrap=True)
    for row in summary.rows:
        output = " x ".join(map(str, row.output))
        numbers = (f"{n:,}" for n in (row.params, row.macs, row.activation_bytes))
        found.add_row(row.name, row.kind, output, *numbers)
    return found


def summarize(
    config: Model, num_classes: int, image_shape: tuple[int, int, int], *, dtype: Any = "float32"
) -> Summary:
    """Traces the network of `config` for one (H, W, C) image and counts its layers.

    `dtype` is that of convolutions and activations. Raises `UsageError` where the network cannot
    take images of that size.
    """
    rows: list[Row] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        module = context.module
        if isinstance(module, Conv | BatchNorm | nn.Dense) and context.method_name == "__call__":
            params = module.variables["params"]
            kernel = params.get("kernel")
            places = math.prod(output.shape[1:-1])
            rows.append(
                Row(
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
    return Summary(tuple(rows))
