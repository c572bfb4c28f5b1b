"""Residual networks: the stem, the units' convolutions, and the stages they form."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import Block
from resflax.declarations.models import ResNet as ResNetConfig
from resflax.models.layers import Layers, global_average_pool, max_pool, relu
from resflax.models.orders import ORDERS, activate
from resflax.models.shortcuts import SHORTCUTS

Array = jax.Array


UNROLLED = 36
"""Most equal units of a stage that are compiled one by one; published ImageNet nets have no more.
Their steps are faster, on CPUs by a third; more units become a loop, which compiles sooner."""


class Convolution(NamedTuple):
    """One convolution of a unit."""

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1


def basic(config: ResNetConfig, widening: int, stride: int) -> tuple[Convolution, ...]:
    """Two 3x3 convolutions (He et al. 2015, Figure 5 left)."""
    width = config.width * widening
    return Convolution(width, 3, stride), Convolution(width, 3)


def bottleneck(config: ResNetConfig, widening: int, stride: int) -> tuple[Convolution, ...]:
    """1x1 down, 3x3, 1x1 up (He et al. 2015, Figure 5 right; groups: Xie et al. 2017)."""
    inner, outer = config.inner_width * widening, 4 * config.width * widening
    first, middle = (stride, 1) if config.stride_on == "1x1" else (1, stride)
    return (
        Convolution(inner, 1, first),
        Convolution(inner, 3, middle, config.groups),
        Convolution(outer, 1),
    )


UNITS: dict[Block, Callable[[ResNetConfig, int, int], tuple[Convolution, ...]]] = {
    "basic": basic,
    "bottleneck": bottleneck,
}


class Unit(nn.Module):
    """A residual unit: a branch of convolutions, joined by its shortcut."""

    config: ResNetConfig
    layers: Layers
    convolutions: tuple[Convolution, ...]
    stride: int
    activated: bool
    """Whether the input has already had what the order puts in front of a convolution."""

    @nn.compact
    def __call__(self, x: Array, survival: Array | float | None, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), C').

        The branch is kept with probability `survival` in a training step; None: always.
        """
        config, layers = self.config, self.layers
        order, count = ORDERS[config.order], len(self.convolutions)
        changes = self.stride > 1 or x.shape[-1] != self.convolutions[-1].features
        branch = x
        for i, convolution in enumerate(self.convolutions, start=1):
            if i > 1 or not self.activated:
                branch = activate(branch, order.before, layers, train=train, name=f"norm{i}")
            if i == 1 and changes:
                # Pre-activated like the branch (He et al. 2016, appendix).
                x = branch
            branch = layers.conv(*convolution, name=f"conv{i}")(branch)
            branch = activate(
                branch,
                order.after if i < count else order.last,
                layers,
                train=train,
                name=f"norm{i}",
                initial_scale=0.0 if config.zero_init_last_scale and i == count else 1.0,
            )
        if config.squeeze_excitation is not None:
            squeezed = branch.shape[-1] // config.squeeze_excitation
            branch = layers.squeeze_excitation(squeezed, name="squeeze_excitation")(branch)
        drop = layers.stochastic_depth(name="stochastic_depth")
        branch = drop(branch, survival, train=train)
        shortcut = SHORTCUTS[config.connection](
            config, layers, self.stride, order.projection_normalized, name="shortcut"
        )
        x = shortcut(x, branch, train=train)
        return activate(x, order.joined, layers, train=train, name=f"norm{count}")


def stem(images: Array, config: ResNetConfig, layers: Layers, *, train: bool) -> Array:
    """Maps images (B, H, W, C) to the input of the first unit, already activated."""
    order, imagenet = ORDERS[config.order], config.layout == "imagenet"
    x = images
    if config.stem == "deep":
        for i, stride in enumerate((2, 1), start=1):
            x = layers.conv(config.width // 2, 3, stride, name=f"stem_conv{i}")(x)
            x = relu(layers.norm(name=f"stem_norm{i}")(x, train=train))
        x = layers.conv(config.width, 3, name="stem_conv")(x)
    elif imagenet:
        x = layers.conv(config.width, 7, 2, name="stem_conv")(x)
    else:
        x = layers.conv(config.width, 3, name="stem_conv")(x)
    if config.pool_first:
        x = max_pool(x)
    x = activate(x, order.after + order.before, layers, train=train, name="stem_norm")
    return max_pool(x) if imagenet and not config.pool_first else x


def make_unit(config: ResNetConfig, layers: Layers, stage: int, *, first: bool, name: str) -> Unit:
    """A unit of a stage. The first one changes the shape, the others are equal."""
    stride = 2 if first and stage > 1 else 1
    convolutions = UNITS[config.unit](config, 2 ** (stage - 1), stride)
    return Unit(config, layers, convolutions, stride, activated=first and stage == 1, name=name)


def survivals(config: ResNetConfig) -> list[list[float | None]]:
    """For every stage and unit the probability of keeping its branch; None where it is 1."""
    units, drop = sum(config.units_per_stage), config.stochastic_depth
    one_by_one = iter(1 - drop * number / units if drop else None for number in range(1, units + 1))
    return [list(islice(one_by_one, count)) for count in config.units_per_stage]


def repeat(run: Callable[..., Array], unit: Unit, x: Array, survivals: list[float | None]) -> Array:
    """Takes x through a unit again and again, every time with its own of the stacked variables."""
    rolled = nn.scan(
        lambda unit, x, survival: (run(unit, x, survival), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=len(survivals),
        unroll=len(survivals) <= UNROLLED,
    )
    x, _ = rolled(unit, x, None if None in survivals else jnp.array(survivals))
    return x


UNROLL = 1


class ResNet(nn.Module):
    """The network of a resolved `ResNet` declaration."""

    config: ResNetConfig
    num_classes: int
    layers: Layers
    for_training: bool = False
    """Whether to stack equal units and recompute activations: see `models.build`."""

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers

        def run(unit: Unit, x: Array, survival: Array | float | None) -> Array:
            return unit(x, survival, train=train)

        if self.for_training and config.remat:
            run = nn.remat(run)
        x = stem(images, config, layers, train=train)
        for stage, (survival, *others) in enumerate(survivals(config), start=1):
            first = make_unit(config, layers, stage, first=True, name=f"stage{stage}_unit1")
            x = run(first, x, survival)
            equal = partial(make_unit, config, layers, stage, first=False)
            if self.for_training and len(others) > 1:
                x = repeat(run, equal(name=f"stage{stage}_units"), x, others)
            else:
                for number, survival in enumerate(others, start=2):
                    x = run(equal(name=f"stage{stage}_unit{number}"), x, survival)
        x = activate(x, ORDERS[config.order].before, layers, train=train, name="final_norm")
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
