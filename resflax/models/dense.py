"""Dense networks (Huang et al. 2017): every layer reads the maps of all layers before it.

The batch moments of a map are the same for every layer that reads it, so they are computed once,
when the map is made: the statistics cost linear, not quadratic, work in depth.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import DenseNet as DenseNetConfig
from resflax.errors import UsageError
from resflax.models.layers import (
    BatchNorm,
    Conv,
    Layers,
    Moments,
    global_average_pool,
    max_pool,
    moments,
    relu,
)
from resflax.models.recomputation import activate_and_convolve_again

Array = jax.Array


class Maps(NamedTuple):
    """Feature maps (B, H, W, C), and their batch moments (None in evaluation)."""

    x: Array
    moments: Moments | None


def measured(x: Array, layers: Layers, *, train: bool) -> Maps:
    """Maps with their moments, in training."""
    return Maps(x, moments(x, layers.statistics_axis) if train else None)


def joined(maps: Sequence[Maps]) -> Moments | None:
    """The moments of all maps; None in evaluation."""
    known = [group.moments for group in maps if group.moments is not None]
    if not known:
        return None
    return Moments(*(jnp.concatenate(each) for each in zip(*known, strict=True)))


def together(maps: Sequence[Maps]) -> Maps:
    """All maps along the last axis."""
    return Maps(jnp.concatenate([group.x for group in maps], axis=-1), joined(maps))


def convolve_activated(
    norm: BatchNorm, conv: Conv, maps: Sequence[Maps], *, train: bool, again: bool
) -> Array:
    """The convolution of relu(norm(all maps)).

    With `again` the gradient computes the activated maps once more, and its layers are not called
    as modules, so cannot be watched.
    """
    if not again:
        x, batch = together(maps)
        return conv(relu(norm(x, train=train, batch=batch)))
    *places, _ = maps[0].x.shape
    channels = sum(group.x.shape[-1] for group in maps)
    factor, offset = norm.coefficients((*places, channels), joined(maps))
    kernel, _ = conv.parameters(channels)
    return activate_and_convolve_again(tuple(group.x for group in maps), factor, offset, kernel)


class DenseLayer(nn.Module):
    """BN-ReLU-3x3 to k maps, with a bottleneck BN-ReLU-1x1 to 4k maps before it (section 3)."""

    config: DenseNetConfig
    layers: Layers
    again: bool
    """Whether the gradient recomputes activated maps."""

    @nn.compact
    def __call__(self, maps: Sequence[Maps], *, train: bool) -> Array:
        """The k new maps (B, H, W, k) from all maps so far."""
        config, layers = self.config, self.layers
        run = partial(convolve_activated, train=train, again=self.again)
        if config.bottleneck:
            conv = layers.conv(4 * config.growth_rate, 1, name="conv1")
            x = run(layers.norm(name="norm1"), conv, maps)
            x = layers.dropout(config.dropout_rate, name="dropout1")(x, train=train)
            maps = [measured(x, layers, train=train)]
        conv = layers.conv(config.growth_rate, 3, name="conv2")
        x = run(layers.norm(name="norm2"), conv, maps)
        return layers.dropout(config.dropout_rate, name="dropout2")(x, train=train)


class Transition(nn.Module):
    """Between blocks: BN-ReLU-1x1 to floor(compression * m) maps, 2x2 average, stride 2."""

    config: DenseNetConfig
    layers: Layers
    again: bool
    """Whether the gradient recomputes activated maps."""

    @nn.compact
    def __call__(self, maps: Sequence[Maps], *, train: bool) -> Array:
        """Maps m maps (B, H, W, m) to (B, H // 2, W // 2, floor(compression * m))."""
        height, width = maps[0].x.shape[1:3]
        if min(height, width) < 2:
            raise UsageError(
                f"the images are too small for this network: {height}x{width} maps reach "
                f"{self.name}, which halves them"
            )
        channels = sum(group.x.shape[-1] for group in maps)
        kept = max(1, math.floor(self.config.compression * channels))
        norm, conv = self.layers.norm(name="norm"), self.layers.conv(kept, 1, name="conv")
        x = convolve_activated(norm, conv, maps, train=train, again=self.again)
        x = self.layers.dropout(self.config.dropout_rate, name="dropout")(x, train=train)
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNet(nn.Module):
    """The network of a resolved `DenseNet` declaration."""

    config: DenseNetConfig
    num_classes: int
    layers: Layers
    for_training: bool = False
    """Whether to recompute activations: see `models.build`."""

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers
        again = self.for_training and config.remat
        if config.layout == "imagenet":
            x = layers.conv(config.stem_channels, 7, 2, name="stem_conv")(images)
            x = max_pool(relu(layers.norm(name="stem_norm")(x, train=train)))
        else:
            x = layers.conv(config.stem_channels, 3, name="stem_conv")(images)

        maps: list[Maps] = []
        for block, depth in enumerate(config.layers_per_block, start=1):
            if block > 1:
                transition = Transition(config, layers, again, name=f"transition{block - 1}")
                x = transition(maps, train=train)
            maps = [measured(x, layers, train=train)]
            for number in range(1, depth + 1):
                layer = DenseLayer(config, layers, again, name=f"block{block}_layer{number}")
                maps.append(measured(layer(maps, train=train), layers, train=train))

        x, batch = together(maps)
        x = relu(layers.norm(name="final_norm")(x, train=train, batch=batch))
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
