"""Feature maps with the work that is still to be done on them.

Where our own kernels run (`Layers.fused`), batch norm and ReLU are only noted on the maps. The
convolution that reads the maps does this work as it reads them. It also sums the moments of its
result, which the next batch norm needs. Elsewhere each layer does its own work at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from resflax.kernels.convolution import Arguments, Options
from resflax.kernels.convolution import convolve as convolve_by_kernels
from resflax.models.convolution import runs_by_kernels
from resflax.models.layers import BatchNorm, Conv, Moments, moments, relu, scale_and_shift

Array = jax.Array


class Maps(NamedTuple):
    """Feature maps: max(0, factor * x + offset), or a part of it."""

    parts: tuple[Array, ...]
    """Arrays (B, H, W, ...), whose concatenation along the last axis is x (B, H, W, C)."""
    moments: Moments | None = None
    """The batch moments of x, if they are known."""
    factor: Array | None = None
    """(C,) float32, or None if x is not scaled."""
    offset: Array | None = None
    """(C,) float32, or None if x is not scaled."""
    rectified: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, W, C)."""
        batch, height, width, _ = self.parts[0].shape
        return batch, height, width, sum(part.shape[-1] for part in self.parts)

    @property
    def is_settled(self) -> bool:
        """Whether no work is left."""
        return self.factor is None and not self.rectified

    def settled(self) -> Array:
        """The maps (B, H, W, C), with all work done."""
        x = self.parts[0] if len(self.parts) == 1 else jnp.concatenate(self.parts, axis=-1)
        if self.factor is not None and self.offset is not None:
            x = scale_and_shift(x, self.factor, self.offset)
        return relu(x) if self.rectified else x


def joined(groups: Sequence[Maps]) -> Maps:
    """All maps of groups on which no work is left, with their moments if these are known."""
    known = [group.moments for group in groups if group.moments is not None]
    together = None
    if len(known) == len(groups):
        means, mean_squares = zip(*known, strict=True)
        together = Moments(jnp.concatenate(means), jnp.concatenate(mean_squares))
    return Maps(tuple(part for group in groups for part in group.parts), together)


def normalize(norm: BatchNorm, maps: Maps, *, train: bool, fused: bool) -> Maps:
    """Batch norm; with `fused` it is only noted, and its layer is not called as a module."""
    if not fused:
        return Maps((norm(maps.settled(), train=train, batch=maps.moments),))
    if not maps.is_settled:
        maps = Maps((maps.settled(),))
    batch = maps.moments
    if train and batch is None:
        batch = moments(maps.settled(), norm.axis_name)
    factor, offset = norm.coefficients(maps.shape, batch if train else None)
    return maps._replace(factor=factor, offset=offset)


def rectify(maps: Maps, *, fused: bool) -> Maps:
    """ReLU; with `fused` it is only noted."""
    return maps._replace(rectified=True) if fused else Maps((relu(maps.settled()),))


def convolve(
    conv: Conv, maps: Maps, *, fused: bool, with_moments: bool, axis_name: str | None
) -> Maps:
    """Convolves maps by a layer without bias.

    Args:
      conv: the layer. With `fused` it is not called as a module.
      maps: (B, H, W, C).
      fused: whether our own kernels do the work that is left on the maps.
      with_moments: whether the next layer needs the moments of the result.
      axis_name: the axis over which moments are shared, or None.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), C'), with moments if the kernels sum them.
    """
    if not fused:
        return Maps((conv(maps.settled()),))
    kernel, bias = conv.parameters(maps.shape[-1])
    assert bias is None
    if not runs_by_kernels(maps.shape, kernel.shape, conv.stride, conv.groups):
        return Maps((conv(maps.settled()),))
    parts = tuple(part.astype(conv.dtype) for part in maps.parts)
    options = Options(conv.stride, conv.groups, maps.rectified, with_moments)
    y, sums = convolve_by_kernels(options, Arguments(parts, kernel, maps.factor, maps.offset))
    if not with_moments:
        return Maps((y,))
    means = sums / (y.size // y.shape[-1])
    if axis_name is not None:
        means = jax.lax.pmean(means, axis_name)
    return Maps((y,), Moments(means[0], means[1]))
