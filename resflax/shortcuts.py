"""Shortcuts: how a unit's input is joined with its residual branch.

A shortcut of your own needs no change of this file: derive a class from `Shortcut` in your own file
and declare it (docs/own.md). A new shortcut of resflax needs one class here and an entry in
`_CLASSES` at the end. The experiment's check and the network read everything else from the class:
its names, its own fields with their defaults, and whether it uses the identity. (A field that no
other shortcut has must also be added to `declarations.resnet.ResNet`, with the default None.)

This file does not import JAX, so that declarations, sweeps and reports can import it quickly.
`models.units` turns the classes into linen modules.

Every shortcut maps the unit's input x (B, H, W, C) and its branch F(x) (B, H', W', C') to their
combination (B, H', W', C').

He et al. 2016 (arXiv 1603.05027) vary the shortcut of a ResNet-110 with option A (section 3). So
the variants of their Table 1 act here on the identity of option A, which is subsampled and
zero-padded where the shape changes. Their 1x1 convolution is "known as option C", so its name
`conv` is another name for `projection_all`. Their figures leave out the BN "right after the weight
layers" (caption of Figure 2).
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resflax.parts.fields import fields_from_annotations

if TYPE_CHECKING:
    import flax.linen as nn
    import jax

    from resflax.models.layers import Layers

    Module = nn.Module
else:
    Module = object  # a linen module once the network is built: see `models.units`


@dataclass(eq=False, repr=False)
class Shortcut(Module):
    """The base of all shortcuts, with the fields that the network sets for every shortcut.

    A subclass has a method `__call__(self, x, branch, *, train)`, in which it may make layers and
    parameters as in a method under `nn.compact`. Annotated names in its body are its fields, as in
    a linen module. They must have defaults.
    """

    layers: "Layers"
    """Makes convolutions, norms and dropout in the dtype of the network."""
    stride: int
    """Stride of the unit."""
    normalized: bool
    """Whether BN follows a convolution on the shortcut. False for orders that put BN after the
    addition or before the convolutions."""
    zero_pad_side: Literal["end", "both"] = "end"
    """Where `identity` adds missing channels: after the others, or half on each side."""

    names: ClassVar[tuple[str, ...]]
    """Names by which an experiment may declare the shortcut."""
    uses_identity: ClassVar[bool] = False
    """Whether the shortcut uses `identity`, so that an experiment may set `zero_pad_side`."""
    probability_fields: ClassVar[tuple[str, ...]] = ()
    """The shortcut's own fields that are probabilities: at least 0 and below 1."""
    set_by_network: ClassVar[tuple[str, ...]] = ("layers", "stride", "normalized", "zero_pad_side")
    """The fields that no experiment sets for a shortcut alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the annotated names of a subclass its fields."""
        super().__init_subclass__(**kwargs)
        fields_from_annotations(cls)

    def identity(self, x: "jax.Array", branch: "jax.Array") -> "jax.Array":
        """x in the shape of the branch: subsampled by the stride, padded with zero channels."""
        import jax.numpy as jnp

        x = x[:, :: self.stride, :: self.stride]
        missing = branch.shape[-1] - x.shape[-1]
        before = missing // 2 if self.zero_pad_side == "both" else 0
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))


class NoShortcut(Shortcut):
    """No shortcut: F(x) alone, as in the plain networks of He et al. 2015."""

    names = ("none",)

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """F(x)."""
        return branch


class ZeroPad(Shortcut):
    """Option A: the identity, zero-padded. It has no parameters (He et al. 2015, section 4.1)."""

    names = ("zero_pad",)
    uses_identity = True

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """x + F(x)."""
        return self.identity(x, branch) + branch


class Projection(Shortcut):
    """Option B: a 1x1 convolution where the shape changes, the identity elsewhere."""

    names: ClassVar[tuple[str, ...]] = ("projection",)

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """x + F(x), or W x + F(x) where the shape changes."""
        if self.stride > 1 or x.shape[-1] != branch.shape[-1]:
            x = self.project(x, branch.shape[-1], train=train)
        return x + branch

    def project(self, x: "jax.Array", channels: int, *, train: bool) -> "jax.Array":
        """W x: x projected to `channels` by a strided 1x1 convolution, then BN if `normalized`."""
        x = self.layers.conv(channels, 1, self.stride, name="conv")(x)
        return self.layers.norm(name="norm")(x, train=train) if self.normalized else x


class ProjectionAll(Projection):
    """Option C: a 1x1 convolution in every unit; "conv" in He et al. 2016, Figure 2e."""

    names = ("projection_all", "conv")

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """W x + F(x)."""
        return self.project(x, branch.shape[-1], train=train) + branch


class ProjectionPooled(Projection):
    """Option B with average pooling in place of the stride, so that every pixel is used.

    This is the shortcut of ResNet-D (He et al. 2018, arXiv 1812.01187), with a 2x2 average for a
    stride of 2. At the border of pictures of odd size, the average covers only the pixels that
    exist.
    """

    names = ("projection_pooled",)

    def project(self, x: "jax.Array", channels: int, *, train: bool) -> "jax.Array":
        """W average(x)."""
        import flax.linen as nn

        window = (self.stride, self.stride)
        if self.stride > 1:
            x = nn.avg_pool(x, window, window, "SAME", count_include_pad=False)
        x = self.layers.conv(channels, 1, name="conv")(x)
        return self.layers.norm(name="norm")(x, train=train) if self.normalized else x


class ConstantScaling(Shortcut):
    """Shortcut and branch are each multiplied by a constant (He et al. 2016, Figure 2b)."""

    names = ("constant_scaling",)
    uses_identity = True

    shortcut_scale: float = 0.5
    branch_scale: float = 0.5

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """a x + b F(x)."""
        return self.shortcut_scale * self.identity(x, branch) + self.branch_scale * branch


class Gated(Shortcut):
    """The base of shortcuts with a learned gate (He et al. 2016, section 3.1)."""

    uses_identity = True

    gate_bias: float = -6.0
    """Initial bias of the gate. The default is the best one of the paper's Table 1."""

    def gate(self, x: "jax.Array", branch: "jax.Array") -> "jax.Array":
        """g(x) = sigmoid(W x + b) in the shape of the branch, where W is a 1x1 convolution.

        It is float32, because the paper's gates start near 0 or 1, where bfloat16 would round
        1 - g(x) to 1 or 0.
        """
        import jax
        import jax.numpy as jnp

        conv = self.layers.conv(
            branch.shape[-1], 1, self.stride, initial_bias=self.gate_bias, name="gate"
        )
        return jax.nn.sigmoid(conv(x).astype(jnp.float32))


class ExclusiveGating(Gated):
    """A gate g scales the branch by g and the shortcut by 1 - g (He et al. 2016, Figure 2c)."""

    names = ("exclusive_gating",)

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """(1 - g(x)) x + g(x) F(x)."""
        gate = self.gate(x, branch)
        joined = (1 - gate) * self.identity(x, branch) + gate * branch
        return joined.astype(branch.dtype)


class ShortcutGating(Gated):
    """A gate g scales only the shortcut, by 1 - g (He et al. 2016, Figure 2d)."""

    names = ("shortcut_gating",)

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """(1 - g(x)) x + F(x)."""
        joined = (1 - self.gate(x, branch)) * self.identity(x, branch) + branch
        return joined.astype(branch.dtype)


class DropoutShortcut(Shortcut):
    """Dropout on the identity (He et al. 2016, Figure 2f)."""

    names = ("dropout",)
    uses_identity = True
    probability_fields = ("shortcut_dropout_rate",)

    shortcut_dropout_rate: float = 0.5
    """Probability of dropping an activation of the shortcut."""

    def __call__(self, x: "jax.Array", branch: "jax.Array", *, train: bool) -> "jax.Array":
        """dropout(x) + F(x)."""
        dropout = self.layers.dropout(self.shortcut_dropout_rate, name="dropout")
        return dropout(self.identity(x, branch), train=train) + branch


_CLASSES: tuple[type[Shortcut], ...] = (
    NoShortcut,
    ZeroPad,
    Projection,
    ProjectionAll,
    ProjectionPooled,
    ConstantScaling,
    ExclusiveGating,
    ShortcutGating,
    DropoutShortcut,
)

SHORTCUTS: dict[str, type[Shortcut]] = {name: cls for cls in _CLASSES for name in cls.names}
"""The shortcut class for every name that an experiment may give, including alternative names."""


def own_fields(shortcut: type[Shortcut]) -> dict[str, Any]:
    """The fields of a shortcut that an experiment may set, with their defaults."""
    set_by_network = set(shortcut.set_by_network)
    if shortcut.uses_identity:
        set_by_network -= {"zero_pad_side"}
    fields = dataclasses.fields(shortcut)
    return {field.name: field.default for field in fields if field.name not in set_by_network}
