"""Residual units: a branch of convolutions, which a shortcut joins with the unit's input."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from resflax.declarations.models import Block, ResNet
from resflax.models.layers import Layers, relu
from resflax.orders import ORDERS, Operations
from resflax.shortcuts import SHORTCUTS, own_fields

Array = jax.Array


class Convolution(NamedTuple):
    """One convolution of a unit."""

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1


def basic(config: ResNet, factor: int, stride: int) -> tuple[Convolution, ...]:
    """Two 3x3 convolutions (He et al. 2015, Figure 5 left)."""
    width = config.basic_width * factor
    return Convolution(width, 3, stride), Convolution(width, 3)


def bottleneck(config: ResNet, factor: int, stride: int) -> tuple[Convolution, ...]:
    """A narrowing 1x1, a 3x3 and a widening 1x1 convolution (He et al. 2015, Figure 5 right).

    The groups of the 3x3 convolution are those of Xie et al. 2017.
    """
    inner, outer = config.inner_width * factor, 4 * config.width * factor
    first, middle = (stride, 1) if config.stride_on == "1x1" else (1, stride)
    return (
        Convolution(inner, 1, first),
        Convolution(inner, 3, middle, config.groups),
        Convolution(outer, 1),
    )


BLOCKS: dict[Block, Callable[[ResNet, int, int], tuple[Convolution, ...]]] = {
    "basic": basic,
    "bottleneck": bottleneck,
}
"""For each name of a block, a function that returns the convolutions of a unit.

Its arguments are the declaration, the factor by which the stage is wider than the first, and the
stride."""


def activate(
    x: Array,
    operations: Operations,
    layers: Layers,
    *,
    train: bool,
    name: str,
    initial_scale: float = 1.0,
) -> Array:
    """Applies operations of an order to maps (B, H, W, C); a BN among them gets the name `name`."""
    for operation in operations:
        if operation == "norm":
            x = layers.norm(name=name, initial_scale=initial_scale)(x, train=train)
        else:
            x = relu(x)
    return x


@cache
def linen_class(name: str) -> type[nn.Module]:
    """The linen module class of the shortcut with the given name.

    It is made here and not in `resflax.shortcuts`, so that experiments, sweeps and reports can look
    up the available shortcuts without importing JAX.
    """
    shortcut = SHORTCUTS[name]
    compact_call = nn.compact(shortcut.__call__)
    return type(shortcut.__name__, (shortcut, nn.Module), {"__call__": compact_call})


def make_shortcut(config: ResNet, layers: Layers, stride: int) -> nn.Module:
    """The shortcut of a unit. The values of its own fields come from the resolved declaration."""
    name = config.resolved_shortcut
    given: dict[str, Any] = {f: getattr(config, f) for f in own_fields(SHORTCUTS[name])}
    return linen_class(name)(
        layers=layers,
        stride=stride,
        normalized=ORDERS[config.order].normalizes_projection,
        name="shortcut",
        **given,
    )


class Unit(nn.Module):
    """A residual unit of a resolved declaration."""

    config: ResNet
    layers: Layers
    convolutions: tuple[Convolution, ...]
    stride: int
    activated: bool
    """Whether the operations that come before a convolution were already applied to the input."""

    @nn.compact
    def __call__(self, x: Array, survival: Array | float | None, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), C').

        A training step keeps the branch with probability `survival`; None: always.
        """
        config, layers = self.config, self.layers
        order, count = ORDERS[config.order], len(self.convolutions)
        changes_shape = self.stride > 1 or x.shape[-1] != self.convolutions[-1].features
        branch = x
        for number, convolution in enumerate(self.convolutions, start=1):
            name, last = f"norm{number}", number == count
            if number > 1 or not self.activated:
                branch = activate(branch, order.before, layers, train=train, name=name)
            if number == 1 and changes_shape:
                # The shortcut is pre-activated like the branch (He et al. 2016, appendix).
                x = branch
            if last:
                # Only basic units may have a rate above 0 (Zagoruyko & Komodakis 2016, Figure 1d).
                branch = layers.dropout(config.dropout_rate, name="dropout")(branch, train=train)
            branch = layers.conv(*convolution, name=f"conv{number}")(branch)
            branch = activate(
                branch,
                order.after_last if last else order.after,
                layers,
                train=train,
                name=name,
                initial_scale=0.0 if config.zero_init_last_scale and last else 1.0,
            )
        if config.squeeze_excitation is not None:
            squeezed = branch.shape[-1] // config.squeeze_excitation
            branch = layers.squeeze_excitation(squeezed, name="squeeze_excitation")(branch)
        drop = layers.stochastic_depth(config.stochastic_depth_by, name="stochastic_depth")
        branch = drop(branch, survival, train=train)
        x = make_shortcut(config, layers, self.stride)(x, branch, train=train)
        return activate(x, order.after_addition, layers, train=train, name=f"norm{count}")
