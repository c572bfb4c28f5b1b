"""Dense networks (Huang et al. 2017), in which every layer reads the maps of all layers before it.

The batch moments of a map are the same for every layer that reads it, so they are computed only
once, when the map is made. The work for statistics is then linear in depth and not quadratic.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import DenseNet
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
from resflax.models.recomputation import recomputed_activation_and_convolution

Array = jax.Array


class Maps(NamedTuple):
    """Feature maps (B, H, W, C), and their batch moments (None in evaluation)."""

    x: Array
    moments: Moments | None


def with_moments(x: Array, layers: Layers, *, train: bool) -> Maps:
    """Maps with their moments, which are computed in training only."""
    return Maps(x, moments(x, layers.statistics_axis) if train else None)


def concatenated_moments(groups: Sequence[Maps]) -> Moments | None:
    """The moments of all maps of the groups; None in evaluation."""
    known = [group.moments for group in groups if group.moments is not None]
    if not known:
        return None
    means, mean_squares = zip(*known, strict=True)
    return Moments(jnp.concatenate(means), jnp.concatenate(mean_squares))


def concatenated(groups: Sequence[Maps]) -> Maps:
    """All maps of the groups, concatenated along the last axis."""
    x = jnp.concatenate([group.x for group in groups], axis=-1)
    return Maps(x, concatenated_moments(groups))


def activate_and_convolve(
    norm: BatchNorm, conv: Conv, groups: Sequence[Maps], *, train: bool, recompute: bool
) -> Array:
    """The convolution of relu(norm(x)), where x are all maps of the groups.

    With `recompute`, the backward pass computes the activated maps again instead of keeping them.
    The two layers are then not called as modules, so their outputs cannot be intercepted.
    """
    if not recompute:
        x, batch = concatenated(groups)
        return conv(relu(norm(x, train=train, batch=batch)))
    *places, _ = groups[0].x.shape
    channels = sum(group.x.shape[-1] for group in groups)
    factor, offset = norm.coefficients((*places, channels), concatenated_moments(groups))
    kernel, _ = conv.parameters(channels)
    maps = tuple(group.x for group in groups)
    return recomputed_activation_and_convolution(maps, factor, offset, kernel)


class DenseLayer(nn.Module):
    """One layer of a block (section 3): BN-ReLU-3x3 to k maps.

    With a bottleneck, BN-ReLU-1x1 to 4k maps comes first.
    """

    config: DenseNet
    layers: Layers
    recompute: bool
    """Whether the gradient recomputes activated maps."""

    @nn.compact
    def __call__(self, groups: Sequence[Maps], *, train: bool) -> Array:
        """The k new maps (B, H, W, k), computed from all maps of the block so far."""
        config, layers = self.config, self.layers
        run = partial(activate_and_convolve, train=train, recompute=self.recompute)
        if config.bottleneck:
            conv = layers.conv(4 * config.growth_rate, 1, name="conv1")
            x = run(layers.norm(name="norm1"), conv, groups)
            x = layers.dropout(config.dropout_rate, name="dropout1")(x, train=train)
            groups = [with_moments(x, layers, train=train)]
        conv = layers.conv(config.growth_rate, 3, name="conv2")
        x = run(layers.norm(name="norm2"), conv, groups)
        return layers.dropout(config.dropout_rate, name="dropout2")(x, train=train)


class Transition(nn.Module):
    """The transition between blocks: BN-ReLU-1x1, then 2x2 average pooling with stride 2."""

    config: DenseNet
    layers: Layers
    recompute: bool
    """Whether the gradient recomputes activated maps."""

    @nn.compact
    def __call__(self, groups: Sequence[Maps], *, train: bool) -> Array:
        """From m maps (B, H, W, m), makes (B, H // 2, W // 2, max(1, floor(compression * m))).

        Raises `UsageError` if H or W is below 2.
        """
        height, width = groups[0].x.shape[1:3]
        if min(height, width) < 2:
            raise UsageError(
                f"the images are too small for this network: {height}x{width} maps reach "
                f"{self.name}, which halves them"
            )
        channels = sum(group.x.shape[-1] for group in groups)
        kept = max(1, math.floor(self.config.compression * channels))
        norm, conv = self.layers.norm(name="norm"), self.layers.conv(kept, 1, name="conv")
        x = activate_and_convolve(norm, conv, groups, train=train, recompute=self.recompute)
        x = self.layers.dropout(self.config.dropout_rate, name="dropout")(x, train=train)
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNetModule(nn.Module):
    """The network of a resolved `DenseNet` declaration."""

    config: DenseNet
    num_classes: int
    layers: Layers
    for_training: bool = False
    """Whether to recompute activations: see `models.build`."""

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers
        recompute = self.for_training and config.remat
        if config.layout == "imagenet":
            x = layers.conv(config.stem_channels, 7, 2, name="stem_conv")(images)
            x = max_pool(relu(layers.norm(name="stem_norm")(x, train=train)))
        else:
            x = layers.conv(config.stem_channels, 3, name="stem_conv")(images)

        groups: list[Maps] = []
        for block, depth in enumerate(config.layers_per_block, start=1):
            if block > 1:
                transition = Transition(config, layers, recompute, name=f"transition{block - 1}")
                x = transition(groups, train=train)
            groups = [with_moments(x, layers, train=train)]
            for number in range(1, depth + 1):
                layer = DenseLayer(config, layers, recompute, name=f"block{block}_layer{number}")
                groups.append(with_moments(layer(groups, train=train), layers, train=train))

        x, batch = concatenated(groups)
        x = relu(layers.norm(name="final_norm")(x, train=train, batch=batch))
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
