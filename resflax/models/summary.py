"""What a network is made of: its layers with output shapes, parameters and multiply-adds.

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
        """Multiply-adds of one forward pass of one image; convolutions and classifier only."""
        return sum(row.macs for row in self.rows)


def to_json(summary: Summary) -> dict[str, Any]:
    """`params`, `macs` and `layers` as plain JSON values."""
    layers = [asdict(row) for row in summary.rows]
    return {"params": summary.params, "macs": summary.macs, "layers": layers}


def table(summary: Summary, title: str) -> Table:
    """The summary for a terminal."""
    found = Table(title=title, show_footer=True)
    found.add_column("layer", "total", overflow="fold")
    found.add_column("kind")
    found.add_column("output", justify="right")
    found.add_column("parameters", f"{summary.params:,}", justify="right")
    found.add_column("multiply-adds", f"{summary.macs:,}", justify="right")
    for row in summary.rows:
        output = " x ".join(map(str, row.output))
        found.add_row(row.name, row.kind, output, f"{row.params:,}", f"{row.macs:,}")
    return found


def summarize(config: Model, num_classes: int, image_shape: tuple[int, int, int]) -> Summary:
    """Traces the network of `config` for one (H, W, C) image and counts its layers.

    Raises `UsageError` where the network cannot take images of that size.
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
                )
            )
        return output

    module = build(config, num_classes)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    return Summary(tuple(rows))
