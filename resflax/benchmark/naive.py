"""CIFAR networks as a linen tutorial would write them.

They show how much faster our own layers are than linen's.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.benchmark.contender import Case, Contender
from resflax.benchmark.module_step import module_contender
from resflax.declarations.models import Custom, DenseNet, ResNet

Array = jax.Array


class NaiveResNet(nn.Module):
    """Basic units with option A (He et al. 2015, section 4.2)."""

    units: int
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        conv = partial(nn.Conv, kernel_size=(3, 3), padding=1, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = nn.relu(norm()(conv(16)(x)))
        for stage, width in enumerate((16, 32, 64)):
            for unit in range(self.units):
                stride = 2 if stage and not unit else 1
                y = nn.relu(norm()(conv(width, strides=stride)(x)))
                y = norm()(conv(width)(y))
                x = x[:, ::stride, ::stride]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])))
                x = nn.relu(x + y)
        return nn.Dense(self.num_classes)(jnp.mean(x.astype(jnp.float32), (1, 2)))


class NaiveDenseNet(nn.Module):
    """DenseNet-BC (Huang et al. 2017, section 3)."""

    layers: int
    growth_rate: int
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (B, H, W, C) images to (B, num_classes) float32 logits."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = conv(2 * self.growth_rate, (3, 3), padding=1)(x)
        for block in range(3):
            if block:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for _ in range(self.layers):
                y = conv(4 * self.growth_rate, (1, 1))(nn.relu(norm()(x)))
                y = conv(self.growth_rate, (3, 3), padding=1)(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(norm()(x))
        return nn.Dense(self.num_classes)(jnp.mean(x.astype(jnp.float32), (1, 2)))


def naive_contender(case: Case) -> Contender | None:
    """The case as a tutorial would write it, compiled with XLA's defaults.

    Returns None unless the network is a `ResNet(6n + 2)` with option A or a `DenseNet(6n + 4, k)`
    for small pictures, with all other fields at their defaults.
    """
    model, dtype = case.model.resolved(), jnp.dtype(case.precision)
    if isinstance(model, Custom) or model.layout != "cifar":
        return None
    if isinstance(model, DenseNet):
        if model != DenseNet(model.depth, model.growth_rate).resolved():
            return None
        layers = model.layers_per_block[0]
        module: nn.Module = NaiveDenseNet(layers, model.growth_rate, case.num_classes, dtype)
    else:
        option_a = ResNet(model.depth, block="basic", shortcut="zero_pad")
        if model != option_a.resolved():
            return None
        module = NaiveResNet(model.units_per_stage[0], case.num_classes, dtype)
    return module_contender("naive linen", module, module, case, tuned=False)
