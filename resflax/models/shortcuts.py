"""Shortcuts: how a unit's input meets its residual branch.

Every class here maps the input x (B, H, W, C) and the branch F(x) (B, H', W', C') to their
meeting (B, H', W', C'). A new shortcut is one class and one name in `SHORTCUTS`.

He et al. 2016 vary the shortcut in ResNet-110 with option A (section 3), so what their Table 1
does to the identity is done here to option A's identity: subsampled and zero-padded where the
shape changes. Their 1x1 convolution is "known as option C", so it is `ProjectionAll`: the figures
leave out the BN "right after the weight layers" (caption of Figure 2).
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import ResNet as ResNetConfig
from resflax.declarations.models import Shortcut
from resflax.models.layers import Layers

Array = jax.Array
T = TypeVar("T")


class Connection(nn.Module):
    """What every shortcut is given."""

    config: ResNetConfig
    layers: Layers
    stride: int
    normalized: bool
    """Whether BN follows a convolution on the shortcut: not where the order of the unit puts it
    elsewhere (behind the addition, or in front of the convolutions)."""


class Plain(Connection):
    """No shortcut: the branch alone, which makes the net its plain twin."""

    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """The branch."""
        return branch


class ZeroPad(Connection):
    """Option A: identity, subsampled by the stride, missing channels zero."""

    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """x + F(x), no parameters."""
        return identity(self, x, branch) + branch


class Projection(Connection):
    """Option B: a 1x1 convolution and BN where the shape changes, identity elsewhere."""

    everywhere: bool = False
    """Option C: in every unit."""
    pooled: bool = False
    """Average 2x2 with the stride before the convolution, which then reads every place: ResNet-D
    (He et al. 2018, arXiv 1812.01187). At an odd border the average is over what is there."""

    @nn.compact
    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """x + F(x), or Wx + F(x) where x is projected."""
        if self.everywhere or self.stride > 1 or x.shape[-1] != branch.shape[-1]:
            stride = self.stride
            if self.pooled and stride > 1:
                window = (stride, stride)
                x = nn.avg_pool(x, window, window, "SAME", count_include_pad=False)
                stride = 1
            x = self.layers.conv(branch.shape[-1], 1, stride, name="conv")(x)
            if self.normalized:
                x = self.layers.norm(name="norm")(x, train=train)
        return x + branch


ProjectionAll = partial(Projection, everywhere=True)  # option C
ProjectionPooled = partial(Projection, pooled=True)


class ConstantScaling(Connection):
    """Shortcut and branch each times a constant (Figure 2b)."""

    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """a x + b F(x)."""
        a, b = given(self.config.shortcut_scale), given(self.config.branch_scale)
        return a * identity(self, x, branch) + b * branch


class ExclusiveGating(Connection):
    """What the gate lets through of the branch it holds back of the shortcut (Figure 2c)."""

    @nn.compact
    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """(1 - g(x)) x + g(x) F(x)."""
        g = gate(self, x, branch)
        return ((1 - g) * identity(self, x, branch) + g * branch).astype(branch.dtype)


class ShortcutGating(Connection):
    """The gate holds back the shortcut alone (Figure 2d)."""

    @nn.compact
    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """(1 - g(x)) x + F(x)."""
        g = gate(self, x, branch)
        return ((1 - g) * identity(self, x, branch) + branch).astype(branch.dtype)


class DropoutShortcut(Connection):
    """Dropout on the identity (Figure 2f)."""

    @nn.compact
    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """dropout(x) + F(x)."""
        dropout = self.layers.dropout(given(self.config.shortcut_dropout_rate), name="dropout")
        return dropout(identity(self, x, branch), train=train) + branch


def identity(connection: Connection, x: Array, branch: Array) -> Array:
    """x in the shape of the branch: subsampled by the stride, missing channels zero."""
    x = x[:, :: connection.stride, :: connection.stride]
    missing = branch.shape[-1] - x.shape[-1]
    before = missing // 2 if connection.config.zero_pad_side == "both" else 0
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))


def gate(connection: Connection, x: Array, branch: Array) -> Array:
    """g(x) = sigmoid(W x + b) in the shape of the branch, W a 1x1 convolution; float32.

    Near 0 and 1, where the paper's gates start, bfloat16 would lose 1 - g(x).
    """
    bias, layers = given(connection.config.gate_bias), connection.layers
    conv = layers.conv(branch.shape[-1], 1, connection.stride, initial_bias=bias, name="gate")
    return nn.sigmoid(conv(x).astype(jnp.float32))


def given(field: T | None) -> T:
    """A field of a resolved declaration that its shortcut needs."""
    assert field is not None, "build() resolves the declaration"
    return field


SHORTCUTS: dict[Shortcut, Callable[..., nn.Module]] = {
    "none": Plain,
    "zero_pad": ZeroPad,
    "projection": Projection,
    "projection_all": ProjectionAll,
    "projection_pooled": ProjectionPooled,
    "constant_scaling": ConstantScaling,
    "exclusive_gating": ExclusiveGating,
    "shortcut_gating": ShortcutGating,
    "conv": ProjectionAll,
    "dropout": DropoutShortcut,
}
