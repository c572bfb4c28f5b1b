"""Dense networks (Huang et al. 2017): every layer reads the maps of all layers before it.

The batch moments of a map are the same for every layer that reads it, so they are computed once,
when the map is made: the statistics cost linear, not quadratic, work in depth.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import DenseNet as DenseNetConfig
from resflax.errors import UsageError
from resflax.models.layers import Layers, Moments, global_average_pool, max_pool, moments

Array = jax.Array


class Maps(list[tuple[Array, Moments | None]]):
    """The feature maps of a block so far, each with its batch moments (None in evaluation)."""

    def __init__(self, layers: Layers, *, train: bool) -> None:
        super().__init__()
        self.layers, self.train = layers, train

    def add(self, x: Array) -> None:
        """Appends (B, H, W, C) maps."""
        found = moments(x, self.layers.statistics_axis) if self.train else None
        self.append((x, found))

    def together(self) -> tuple[Array, Moments | None]:
        """All maps along the last axis, and their moments."""
        x = jnp.concatenate([maps for maps, _ in self], axis=-1)
        known = [found for _, found in self if found is not None]
        if not known:
            return x, None
        return x, Moments(
            jnp.concatenate([found.mean for found in known]),
            jnp.concatenate([found.mean_square for found in known]),
        )


class DenseLayer(nn.Module):
    """BN-ReLU-3x3 to k maps, with a bottleneck BN-ReLU-1x1 to 4k maps before it (section 3)."""

    config: DenseNetConfig
    layers: Layers

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Array:
        """The k new maps (B, H, W, k) from all maps so far."""
        config, layers = self.config, self.layers
        x, batch = maps.together()
        if config.bottleneck:
            x = nn.relu(layers.norm(name="norm1")(x, train=train, batch=batch))
            x = layers.conv(4 * config.growth_rate, 1, name="conv1")(x)
            x = layers.dropout(config.dropout_rate, name="dropout1")(x, train=train)
            batch = None
        x = nn.relu(layers.norm(name="norm2")(x, train=train, batch=batch))
        x = layers.conv(config.growth_rate, 3, name="conv2")(x)
        return layers.dropout(config.dropout_rate, name="dropout2")(x, train=train)


class Transition(nn.Module):
    """Between blocks: BN-ReLU-1x1 to floor(compression * m) maps, 2x2 average, stride 2."""

    config: DenseNetConfig
    layers: Layers

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Array:
        """Maps m maps (B, H, W, m) to (B, H // 2, W // 2, floor(compression * m))."""
        x, batch = maps.together()
        if min(x.shape[1:3]) < 2:
            raise UsageError(
                f"the images are too small for this network: {x.shape[1]}x{x.shape[2]} maps reach "
                f"{self.name}, which halves them"
            )
        kept = max(1, math.floor(self.config.compression * x.shape[-1]))
        x = nn.relu(self.layers.norm(name="norm")(x, train=train, batch=batch))
        x = self.layers.conv(kept, 1, name="conv")(x)
        x = self.layers.dropout(self.config.dropout_rate, name="dropout")(x, train=train)
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNet(nn.Module):
    """The network of a resolved `DenseNet` declaration."""

    config: DenseNetConfig
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers
        if config.layout == "imagenet":
            x = layers.conv(config.stem_channels, 7, 2, name="stem_conv")(images)
            x = max_pool(nn.relu(layers.norm(name="stem_norm")(x, train=train)))
        else:
            x = layers.conv(config.stem_channels, 3, name="stem_conv")(images)

        maps = Maps(layers, train=train)
        for block, depth in enumerate(config.layers_per_block, start=1):
            if block > 1:
                x = Transition(config, layers, name=f"transition{block - 1}")(maps, train=train)
            maps = Maps(layers, train=train)
            maps.add(x)
            for layer in range(1, depth + 1):
                unit = DenseLayer(config, layers, name=f"block{block}_layer{layer}")
                maps.add(unit(maps, train=train))

        x, batch = maps.together()
        x = nn.relu(layers.norm(name="final_norm")(x, train=train, batch=batch))
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
