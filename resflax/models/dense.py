"""Dense networks (Huang et al. 2017), in which every layer reads the maps of all layers before it.

The batch moments of a map are the same for every layer that reads it, so they are computed only
once, when the map is made. The work for statistics is then linear in depth and not quadratic.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax

from resflax.declarations.models import DenseNet
from resflax.errors import UsageError
from resflax.models.convolution import runs_by_kernels
from resflax.models.layers import (
    BatchNorm,
    Conv,
    Layers,
    global_average_pool,
    max_pool,
    moments,
)
from resflax.models.maps import Maps, convolve, joined, normalize, rectify
from resflax.models.recomputation import recomputed_activation_and_convolution

Array = jax.Array


def with_moments(maps: Maps, layers: Layers, *, train: bool) -> Maps:
    """Maps on which no work is left, with their moments, which are needed in training only."""
    if not train or maps.moments is not None:
        return maps
    return maps._replace(moments=moments(maps.settled(), layers.statistics_axis))


def dropped(maps: Maps, layers: Layers, rate: float, *, train: bool, name: str) -> Maps:
    """Dropout, after which the moments of the maps are not known."""
    if rate == 0:
        return maps
    return Maps((layers.dropout(rate, name=name)(maps.settled(), train=train),))


def activate_and_convolve(
    norm: BatchNorm,
    conv: Conv,
    maps: Maps,
    layers: Layers,
    *,
    train: bool,
    recompute: bool,
    normalized: bool,
) -> Maps:
    """The convolution of relu(norm(x)).

    With `recompute`, the backward pass computes the activated maps again instead of keeping them,
    as our own kernels always do. The two layers are then not called as modules, so their outputs
    cannot be intercepted.

    Args:
      norm: the batch norm.
      conv: the convolution.
      maps: x (B, H, W, C), with its moments in training.
      layers: those of the network.
      train: whether batch norm uses the moments of x.
      recompute: whether to recompute where our own kernels do not run.
      normalized: whether the next layer is a batch norm, which needs the moments of the result.
    """
    channels = maps.shape[-1]
    fused = layers.fused and runs_by_kernels(maps.shape, conv.kernel_shape(channels))
    if recompute and not fused:
        factor, offset = norm.coefficients(maps.shape, maps.moments)
        kernel, _ = conv.parameters(channels)
        return Maps((recomputed_activation_and_convolution(maps.parts, factor, offset, kernel),))
    maps = rectify(normalize(norm, maps, train=train, fused=fused), fused=fused)
    axis = layers.statistics_axis
    return convolve(conv, maps, fused=fused, with_moments=train and normalized, axis_name=axis)


class DenseLayer(nn.Module):
    """One layer of a block (section 3): BN-ReLU-3x3 to k maps.

    With a bottleneck, BN-ReLU-1x1 to 4k maps comes first.
    """

    config: DenseNet
    layers: Layers
    recompute: bool
    """Whether the gradient recomputes activated maps."""

    def __call__(self, groups: Sequence[Maps], *, train: bool) -> Array:
        """The k new maps (B, H, W, k), computed from all maps of the block so far."""
        return self.new_maps(groups, train=train).settled()

    @nn.compact
    def new_maps(self, groups: Sequence[Maps], *, train: bool) -> Maps:
        """The same with their moments, if these are known. No work is left on the maps."""
        config, layers = self.config, self.layers
        maps, rate = joined(groups), config.dropout_rate

        def run(number: int, conv: Conv, maps: Maps) -> Maps:
            maps = activate_and_convolve(
                layers.norm(name=f"norm{number}"),
                conv,
                maps,
                layers,
                train=train,
                recompute=self.recompute,
                normalized=rate == 0,
            )
            return dropped(maps, layers, rate, train=train, name=f"dropout{number}")

        if config.bottleneck:
            maps = run(1, layers.conv(4 * config.growth_rate, 1, name="conv1"), maps)
            maps = with_moments(maps, layers, train=train)
        return run(2, layers.conv(config.growth_rate, 3, name="conv2"), maps)


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
        maps, layers, rate = joined(groups), self.layers, self.config.dropout_rate
        _, height, width, channels = maps.shape
        if min(height, width) < 2:
            raise UsageError(
                f"the images are too small for this network: {height}x{width} maps reach "
                f"{self.name}, which halves them"
            )
        kept = max(1, math.floor(self.config.compression * channels))
        maps = activate_and_convolve(
            layers.norm(name="norm"),
            layers.conv(kept, 1, name="conv"),
            maps,
            layers,
            train=train,
            recompute=self.recompute,
            normalized=False,
        )
        maps = dropped(maps, layers, rate, train=train, name="dropout")
        return nn.avg_pool(maps.settled(), (2, 2), (2, 2))


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
        maps = self._stem(images, train=train)
        groups: list[Maps] = []
        for block, depth in enumerate(config.layers_per_block, start=1):
            if block > 1:
                transition = Transition(config, layers, recompute, name=f"transition{block - 1}")
                maps = Maps((transition(groups, train=train),))
            groups = [with_moments(maps, layers, train=train)]
            for number in range(1, depth + 1):
                layer = DenseLayer(config, layers, recompute, name=f"block{block}_layer{number}")
                new = (
                    layer.new_maps(groups, train=train)
                    if layers.fused
                    else Maps((layer(groups, train=train),))
                )
                groups.append(with_moments(new, layers, train=train))

        norm = layers.norm(name="final_norm")
        maps = rectify(normalize(norm, joined(groups), train=train, fused=False), fused=False)
        return layers.head(self.num_classes, name="head")(global_average_pool(maps.settled()))

    def _stem(self, images: Array, *, train: bool) -> Maps:
        """The first convolution, which is followed by BN, ReLU and pooling for ImageNet."""
        config, layers = self.config, self.layers
        imagenet = config.layout == "imagenet"
        conv = layers.conv(config.stem_channels, *((7, 2) if imagenet else (3,)), name="stem_conv")
        maps = convolve(
            conv,
            Maps((images,)),
            fused=layers.fused,
            with_moments=train,
            axis_name=layers.statistics_axis,
        )
        if not imagenet:
            return maps
        norm = layers.norm(name="stem_norm")
        maps = rectify(normalize(norm, maps, train=train, fused=layers.fused), fused=layers.fused)
        return Maps((max_pool(maps.settled()),))
