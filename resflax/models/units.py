"""Residual units: a branch of convolutions, which a shortcut joins with the unit's input."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.branches import Branch
from resflax.declarations.own import Own, check_derived
from resflax.declarations.resnet import Block, ResNet
from resflax.errors import UsageError
from resflax.models.layers import Layers
from resflax.models.maps import Maps, convolve, normalize, rectify
from resflax.orders import ORDERS, Operations
from resflax.shortcuts import SHORTCUTS, Shortcut, own_fields

Array = jax.Array


class Convolution(NamedTuple):
    """One convolution of a unit."""

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1


def basic(config: ResNet, factor: int, stride: int) -> tuple[Convolution, ...]:
    """Two 3x3 convolutions (He et al. 2015, Figure 5 left)."""
    width = config.basic_width * factor
    return Convolution(width, 3, stride), Convolution(width, 3)


def bottleneck(config: ResNet, factor: int, stride: int) -> tuple[Convolution, ...]:
    """A narrowing 1x1, a 3x3 and a widening 1x1 convolution (He et al. 2015, Figure 5 right).

    The groups of the 3x3 convolution are those of Xie et al. 2017.
    """
    inner, outer = config.inner_width * factor, 4 * config.width * factor
    first, middle = (stride, 1) if config.stride_on == "1x1" else (1, stride)
    return (
        Convolution(inner, 1, first),
        Convolution(inner, 3, middle, config.groups),
        Convolution(outer, 1),
    )


BLOCKS: dict[Block, Callable[[ResNet, int, int], tuple[Convolution, ...]]] = {
    "basic": basic,
    "bottleneck": bottleneck,
}
"""For each name of a block, a function that returns the convolutions of a unit.

Its arguments are the declaration, the factor by which the stage is wider than the first, and the
stride."""


def activate(
    maps: Maps,
    operations: Operations,
    layers: Layers,
    *,
    train: bool,
    name: str,
    initial_scale: float = 1.0,
) -> Maps:
    """Applies operations of an order to maps (B, H, W, C); a BN among them gets the name `name`."""
    for operation in operations:
        if operation == "norm":
            norm = layers.norm(name=name, initial_scale=initial_scale)
            maps = normalize(norm, maps, train=train, fused=layers.fused)
        else:
            maps = rectify(maps, fused=layers.fused)
    return maps


def activated(
    x: Array, operations: Operations, layers: Layers, *, train: bool, name: str
) -> Array:
    """The same for an array, with all work done."""
    return activate(Maps((x,)), operations, layers, train=train, name=name).settled()


@cache
def linen_class(part: type) -> type[nn.Module]:
    """The linen module class of a shortcut or a branch.

    It is made here and not where the class is defined, so that experiments, sweeps and reports can
    look up the available shortcuts without importing JAX.
    """
    call: Any = part.__call__
    is_ready = hasattr(call, "compact") or "setup" in vars(part)
    return type(
        part.__name__,
        (part, nn.Module),
        {"__call__": call if is_ready else nn.compact(call), "__module__": part.__module__},
    )


def make_shortcut(config: ResNet, layers: Layers, stride: int) -> nn.Module:
    """The shortcut of a unit. The values of its own fields come from the resolved declaration."""
    declared = config.resolved_shortcut
    if isinstance(declared, Own):
        cls = declared.load()
        check_derived(cls, Shortcut, "x", "branch")
        fields = declared.checked(declared.fields)
        given = {**fields, "zero_pad_side": config.zero_pad_side}
    else:
        cls = SHORTCUTS[declared]
        given = {f: getattr(config, f) for f in own_fields(cls)}
    return linen_class(cls)(
        layers=layers,
        stride=stride,
        normalized=ORDERS[config.order].normalizes_projection,
        name="shortcut",
        **given,
    )


def make_branch(own: Own, layers: Layers, features: int, stride: int) -> nn.Module:
    """The branch of a unit that is a class of the user's own."""
    cls = own.load()
    check_derived(cls, Branch, "x")
    return linen_class(cls)(
        layers=layers,
        features=features,
        stride=stride,
        name="branch",
        **own.checked(own.fields),
    )


def checked(own: Own, result: Any, expected: jax.ShapeDtypeStruct) -> Array:
    """The result of a class of the user's own, in the number format that is expected.

    A float32 result is rounded to bfloat16 where the network computes in bfloat16, because
    parameters are float32.

    Raises `UsageError` for any other difference in shape or number format.
    """
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape == expected.shape and dtype == jnp.float32:
        return result.astype(expected.dtype)
    if (shape, dtype) != (expected.shape, expected.dtype):
        returned = type(result).__name__ if shape is None else f"{dtype}{list(shape)}"
        raise UsageError(
            f"{own.name} of {own.file} returns {returned}; it must return "
            f"{expected.dtype}{list(expected.shape)} (B, H, W, C)"
        )
    return result


class ResidualUnit(nn.Module):
    """A residual unit of a resolved declaration."""

    config: ResNet
    layers: Layers
    convolutions: tuple[Convolution, ...]
    """The convolutions of the branch. A branch of the user's own has as many feature maps, and the
    same stride."""
    stride: int
    activated: bool
    """Whether the operations that come before a convolution were already applied to the input."""

    @nn.compact
    def __call__(self, x: Array, survival: Array | float | None, *, train: bool) -> Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), C').

        A training step keeps the branch with probability `survival`; None: always.
        """
        config, layers = self.config, self.layers
        order, features = ORDERS[config.order], self.convolutions[-1].features
        maps = Maps((x,))
        if not self.activated:
            maps = activate(maps, order.before, layers, train=train, name="norm1")
        if self.stride > 1 or x.shape[-1] != features:
            # The shortcut is pre-activated like the branch (He et al. 2016, appendix).
            x = maps.settled()
            maps = Maps((x,))
        branch = self._branch(maps, train=train).settled()
        if config.squeeze_excitation is not None:
            squeezed = branch.shape[-1] // config.squeeze_excitation
            branch = layers.squeeze_excitation(squeezed, name="squeeze_excitation")(branch)
        drop = layers.stochastic_depth(config.stochastic_depth_by, name="stochastic_depth")
        branch = drop(branch, survival, train=train)
        joined = make_shortcut(config, layers, self.stride)(x, branch, train=train)
        if isinstance(config.shortcut, Own):
            joined = checked(
                config.shortcut, joined, jax.ShapeDtypeStruct(branch.shape, branch.dtype)
            )
        last = f"norm{len(self.convolutions)}"
        return activated(joined, order.after_addition, layers, train=train, name=last)

    def _branch(self, maps: Maps, *, train: bool) -> Maps:
        """The branch of the activated input, before it is dropped or joined."""
        config, layers = self.config, self.layers
        if isinstance(config.unit, Own):
            features = self.convolutions[-1].features
            x = maps.settled()
            sides = (-(-side // self.stride) for side in x.shape[1:3])
            expected = jax.ShapeDtypeStruct((x.shape[0], *sides, features), layers.dtype)
            result = make_branch(config.unit, layers, features, self.stride)(x, train=train)
            return Maps((checked(config.unit, result, expected),))
        order, count = ORDERS[config.order], len(self.convolutions)
        for number, convolution in enumerate(self.convolutions, start=1):
            name, last = f"norm{number}", number == count
            if number > 1:
                maps = activate(maps, order.before, layers, train=train, name=name)
            if last and config.dropout_rate:
                # Only basic units may have a rate above 0 (Zagoruyko & Komodakis 2016, Figure 1d).
                dropout = layers.dropout(config.dropout_rate, name="dropout")
                maps = Maps((dropout(maps.settled(), train=train),))
            following = order.after_last if last else order.after + order.before
            maps = convolve(
                layers.conv(*convolution, name=f"conv{number}"),
                maps,
                fused=layers.fused,
                with_moments=train and following[:1] == ("norm",),
                axis_name=layers.statistics_axis,
            )
            maps = activate(
                maps,
                order.after_last if last else order.after,
                layers,
                train=train,
                name=name,
                initial_scale=0.0 if config.zero_init_last_scale and last else 1.0,
            )
        return maps
