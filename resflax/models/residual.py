"""Residual networks: the stem, the units' convolutions, and the stages they form."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from resflax.declarations.models import Block
from resflax.declarations.models import ResNet as ResNetConfig
from resflax.models.layers import Layers, global_average_pool, max_pool
from resflax.models.orders import ORDERS, activate
from resflax.models.shortcuts import SHORTCUTS

Array = jax.Array


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
    survival: float
    """Probability of keeping the branch in a training step."""
    activated: bool
    """Whether the input has already had what the order puts in front of a convolution."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), C')."""
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
        branch = layers.stochastic_depth(self.survival, name="stochastic_depth")(
            branch, train=train
        )
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
            x = nn.relu(layers.norm(name=f"stem_norm{i}")(x, train=train))
        x = layers.conv(config.width, 3, name="stem_conv")(x)
    elif imagenet:
        x = layers.conv(config.width, 7, 2, name="stem_conv")(x)
    else:
        x = layers.conv(config.width, 3, name="stem_conv")(x)
    if config.pool_first:
        x = max_pool(x)
    x = activate(x, order.after + order.before, layers, train=train, name="stem_norm")
    return max_pool(x) if imagenet and not config.pool_first else x


class ResNet(nn.Module):
    """The network of a resolved `ResNet` declaration."""

    config: ResNetConfig
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers
        x = stem(images, config, layers, train=train)
        total, done = sum(config.units_per_stage), 0
        for stage, units in enumerate(config.units_per_stage, start=1):
            for unit in range(1, units + 1):
                done += 1
                stride = 2 if stage > 1 and unit == 1 else 1
                x = Unit(
                    config,
                    layers,
                    UNITS[config.unit](config, 2 ** (stage - 1), stride),
                    stride,
                    survival=1 - config.stochastic_depth * done / total,
                    activated=done == 1,
                    name=f"stage{stage}_unit{unit}",
                )(x, train=train)
        x = activate(x, ORDERS[config.order].before, layers, train=train, name="final_norm")
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
