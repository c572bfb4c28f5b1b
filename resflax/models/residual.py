"""Residual networks: the stem, and stages of residual units."""

from collections.abc import Callable
from functools import partial
from itertools import islice

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import ResNet
from resflax.models.layers import Layers, global_average_pool, max_pool
from resflax.models.maps import Maps, convolve
from resflax.models.units import BLOCKS, ResidualUnit, activate, activated
from resflax.orders import ORDERS

Array = jax.Array

UNROLLED = 36
"""The most equal units of a stage that are compiled one by one. A larger number becomes a
loop, which compiles faster but makes steps slower (without it, they are a third faster on CPUs).
No published ImageNet network has more."""


def stem(images: Array, config: ResNet, layers: Layers, *, train: bool) -> Array:
    """Maps images (B, H, W, C) to the input of the first unit, which is already activated."""
    order, imagenet = ORDERS[config.order], config.layout == "imagenet"
    x = images
    conv = partial(
        convolve, fused=layers.fused, with_moments=train, axis_name=layers.statistics_axis
    )
    if config.stem == "deep":
        for number, stride in enumerate((2, 1), start=1):
            first = layers.conv(config.width // 2, 3, stride, name=f"stem_conv{number}")
            maps = conv(first, Maps((x,)))
            norm = f"stem_norm{number}"
            x = activate(maps, ("norm", "relu"), layers, train=train, name=norm).settled()
        last = layers.conv(config.width, 3, name="stem_conv")
    elif imagenet:
        last = layers.conv(config.width, 7, 2, name="stem_conv")
    else:
        last = layers.conv(config.width, 3, name="stem_conv")
    maps = conv(last, Maps((x,)))
    if config.pool_first:
        maps = Maps((max_pool(maps.settled()),))
    operations = order.after + order.before
    x = activate(maps, operations, layers, train=train, name="stem_norm").settled()
    return max_pool(x) if imagenet and not config.pool_first else x


def make_unit(
    config: ResNet, layers: Layers, stage: int, *, first: bool, name: str
) -> ResidualUnit:
    """A unit of a stage. The first unit may change the shape; the others are all alike."""
    stride = 2 if first and stage > 1 else 1
    convolutions = BLOCKS[config.resolved_block](config, 2 ** (stage - 1), stride)
    return ResidualUnit(
        config, layers, convolutions, stride, activated=first and stage == 1, name=name
    )


def survivals(config: ResNet) -> list[list[float | None]]:
    """For each stage, the probabilities of keeping the units' branches; None for no drop."""
    units, drop = sum(config.units_per_stage), config.stochastic_depth
    # The probability of a drop is a straight line: in the paper from 0 at the unit before the
    # first, in timm from 0 at the first.
    before = 0 if config.stochastic_depth_by == "batch" else 1
    one_by_one = iter(
        1 - drop * (number - before) / (units - before) if drop else None
        for number in range(1, units + 1)
    )
    return [list(islice(one_by_one, count)) for count in config.units_per_stage]


def repeat(
    run: Callable[..., Array], unit: ResidualUnit, x: Array, survivals: list[float | None]
) -> Array:
    """Applies a unit once for each entry of `survivals`.

    Each application uses its own slice of the stacked variables.
    """
    repeated = nn.scan(
        lambda unit, x, survival: (run(unit, x, survival), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=len(survivals),
        unroll=len(survivals) <= UNROLLED,
    )
    x, _ = repeated(unit, x, None if None in survivals else jnp.array(survivals))
    return x


class ResNetModule(nn.Module):
    """The network of a resolved `ResNet` declaration."""

    config: ResNet
    num_classes: int
    layers: Layers
    for_training: bool = False
    """Whether to stack equal units and recompute activations: see `models.build`."""

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        config, layers = self.config, self.layers

        def run(unit: ResidualUnit, x: Array, survival: Array | float | None) -> Array:
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
        x = activated(x, ORDERS[config.order].before, layers, train=train, name="final_norm")
        return layers.head(self.num_classes, name="head")(global_average_pool(x))
