"""Branches of a user's own: what a residual unit computes beside its shortcut.

The branches of the papers, which consist of convolutions alone, are in `models.units`.

This file does not import JAX. `models.units` turns the classes into linen modules.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from resflax.parts.fields import fields_from_annotations

if TYPE_CHECKING:
    import flax.linen as nn

    from resflax.models.layers import Layers

    Module = nn.Module
else:
    Module = object  # a linen module once the network is built: see `models.units`


@dataclass(eq=False, repr=False)
class Branch(Module):
    """The base of branches, with the fields that the network sets.

    A subclass has a method `__call__(self, x, *, train)`, in which it may make layers and
    parameters as in a method under `nn.compact`. It maps the unit's input x (B, H, W, C) to F(x)
    (B, ceil(H / stride), ceil(W / stride), features). Annotated names in its body are its fields,
    as in a linen module. They must have defaults.

    The network applies the operations that the order has before a unit's first convolution and
    after the addition. All others are the branch's own.
    """

    layers: "Layers"
    """Makes convolutions, norms and dropout in the dtype of the network."""
    features: int
    """Number of feature maps that the branch must return."""
    stride: int
    """Stride of the unit: 2 in the first unit of each stage but the first, else 1."""

    set_by_network: ClassVar[tuple[str, ...]] = ("layers", "features", "stride")
    """The fields that no experiment sets."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the annotated names of a subclass its fields."""
        super().__init_subclass__(**kwargs)
        fields_from_annotations(cls)
