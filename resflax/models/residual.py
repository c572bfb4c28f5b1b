"""Residual networks: units, their orders of BN, ReLU and convolution, and the stages they form."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from resflax.declarations.models import Block
from resflax.declarations.models import ResNet as ResNetConfig
from resflax.models.layers import Layers, global_average_pool, max_pool
from resflax.models.shortcuts import SHORTCUTS

Array = jax.Array


class Convolution(NamedTuple):
    """One convolution of a unit."""

    features: int
    kernel_size: int
    stride: int = 1


def basic(width: int, stride: int, config: ResNetConfig) -> tuple[Convolution, ...]:
    """Two 3x3 convolutions (He et al. 2015, Figure 5 left)."""
    return Convolution(width, 3, stride), Convolution(width, 3)


def bottleneck(width: int, stride: int, config: ResNetConfig) -> tuple[Convolution, ...]:
    """1x1 down, 3x3, 1x1 up to 4 * width (He et al. 2015, Figure 5 right)."""
    first, middle = (stride, 1) if config.stride_on == "1x1" else (1, stride)
    return Convolution(width, 1, first), Convolution(width, 3, middle), Convolution(4 * width, 1)


UNITS: dict[Block, Callable[[int, int, ResNetConfig], tuple[Convolution, ...]]] = {
    "basic": basic,
    "bottleneck": bottleneck,
}


class PostActivation(nn.Module):
    """A unit of He et al. 2015: relu(x + F(x)), each convolution of F followed by BN."""

    convolutions: tuple[Convolution, ...]
    shortcut: nn.Module
    layers: Layers
    first: bool

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, C')."""
        branch = x
        for i, convolution in enumerate(self.convolutions, start=1):
            branch = self.layers.conv(*convolution, name=f"conv{i}")(branch)
            branch = self.layers.norm(name=f"norm{i}")(branch, train=train)
            if i < len(self.convolutions):
                branch = nn.relu(branch)
        return nn.relu(self.shortcut(x, branch, train=train))


class FullPreActivation(nn.Module):
    """A unit of He et al. 2016, Figure 4e: x + F(x), each convolution of F behind BN and ReLU.

    Where the shape changes, and in the net's first unit, the shortcut too starts behind the
    first BN and ReLU (appendix).
    """

    convolutions: tuple[Convolution, ...]
    shortcut: nn.Module
    layers: Layers
    first: bool

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, C')."""
        changes = x.shape[-1] != self.convolutions[-1].features or any(
            convolution.stride > 1 for convolution in self.convolutions
        )
        branch = x
        for i, convolution in enumerate(self.convolutions, start=1):
            branch = nn.relu(self.layers.norm(name=f"norm{i}")(branch, train=train))
            if i == 1 and (changes or self.first):
                x = branch
            branch = self.layers.conv(*convolution, name=f"conv{i}")(branch)
        return self.shortcut(x, branch, train=train)


ORDERS: dict[str, Callable[..., nn.Module]] = {
    "post": PostActivation,
    "full_pre": FullPreActivation,
}


class ResNet(nn.Module):
    """The network of a resolved `ResNet` declaration."""

    config: ResNetConfig
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers
        assert config.shortcut is not None, "build() resolves the declaration"
        pre_activated = config.order == "full_pre"
        imagenet = config.layout == "imagenet"
        width = 64 if imagenet else 16

        x = layers.conv(width, 7 if imagenet else 3, 2 if imagenet else 1, name="stem_conv")(images)
        # A pre-activation net has its stem's BN and ReLU in its first unit, unless it pools first.
        if imagenet or not pre_activated:
            x = nn.relu(layers.norm(name="stem_norm")(x, train=train))
        if imagenet:
            x = max_pool(x)

        for stage, units in enumerate(config.units_per_stage, start=1):
            for unit in range(1, units + 1):
                stride = 2 if stage > 1 and unit == 1 else 1
                x = ORDERS[config.order](
                    convolutions=UNITS[config.unit](width, stride, config),
                    shortcut=SHORTCUTS[config.shortcut](layers, stride, pre_activated),
                    layers=layers,
                    first=stage == 1 and unit == 1,
                    name=f"stage{stage}_unit{unit}",
                )(x, train=train)
            width *= 2

        if pre_activated:
            x = nn.relu(layers.norm(name="final_norm")(x, train=train))
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
