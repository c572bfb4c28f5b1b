"""Shortcuts: how a unit's input meets its residual branch.

Every class here maps the input x (B, H, W, C) and the branch F(x) (B, H', W', C') to their
meeting (B, H', W', C'). A new shortcut is one class and one name in `SHORTCUTS`.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.declarations.models import Shortcut
from resflax.models.layers import Layers

Array = jax.Array


class Plain(nn.Module):
    """No shortcut: the branch alone, which makes the net its plain twin."""

    layers: Layers
    stride: int
    pre_activated: bool

    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """The branch."""
        return branch


class ZeroPad(nn.Module):
    """Option A: identity, subsampled by the stride, missing channels zero (appended)."""

    layers: Layers
    stride: int
    pre_activated: bool

    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """x + F(x), no parameters."""
        x = x[:, :: self.stride, :: self.stride]
        missing = branch.shape[-1] - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))) + branch


class Projection(nn.Module):
    """Option B: a 1x1 convolution and BN where the shape changes, identity elsewhere.

    In pre-activation nets the convolution is bare and its input pre-activated (He et al. 2016).
    """

    layers: Layers
    stride: int
    pre_activated: bool
    everywhere: bool = False

    @nn.compact
    def __call__(self, x: Array, branch: Array, *, train: bool) -> Array:
        """x + F(x), or Wx + F(x) where x and F(x) differ in shape."""
        if self.everywhere or self.stride > 1 or x.shape[-1] != branch.shape[-1]:
            x = self.layers.conv(branch.shape[-1], 1, self.stride, name="conv")(x)
            if not self.pre_activated:
                x = self.layers.norm(name="norm")(x, train=train)
        return x + branch


ProjectionAll = partial(Projection, everywhere=True)  # option C

SHORTCUTS: dict[Shortcut, Callable[..., nn.Module]] = {
    "none": Plain,
    "zero_pad": ZeroPad,
    "projection": Projection,
    "projection_all": ProjectionAll,
}
