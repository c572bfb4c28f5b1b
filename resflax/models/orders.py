"""Orders of BN, ReLU, convolution and addition in a unit (He et al. 2016, Figure 4).

A new order is one row in `ORDERS` and one name in the declaration.
"""

from typing import Literal, NamedTuple

import jax

from resflax.declarations import models as declarations
from resflax.models.layers import Layers, relu

Array = jax.Array

Step = Literal["norm", "relu"]
Steps = tuple[Step, ...]


class Order(NamedTuple):
    """What stands where in a unit; the stem and the end of the net follow from it.

    The stem's convolution has behind it what the others have, then `before`: the first activation
    of the net stands before the first unit splits into two paths (appendix of the paper). The end
    of the net, which is no convolution's input, has `before` once more.
    """

    before: Steps = ()
    """In front of every convolution."""
    after: Steps = ()
    """Behind every convolution but a unit's last."""
    last: Steps = ()
    """Behind a unit's last convolution."""
    joined: Steps = ()
    """Behind the addition."""

    @property
    def projection_normalized(self) -> bool:
        """Whether a shortcut's convolution has BN: as the branch's last convolution has."""
        return "norm" in self.last


ORDERS: dict[declarations.Order, Order] = {
    "post": Order(after=("norm", "relu"), last=("norm",), joined=("relu",)),
    "bn_after_addition": Order(after=("norm", "relu"), joined=("norm", "relu")),
    "relu_before_addition": Order(after=("norm", "relu"), last=("norm", "relu")),
    "relu_only_pre": Order(before=("relu",), after=("norm",), last=("norm",)),
    "full_pre": Order(before=("norm", "relu")),
}


def activate(
    x: Array, steps: Steps, layers: Layers, *, train: bool, name: str, initial_scale: float = 1.0
) -> Array:
    """Takes maps (B, H, W, C) through `steps`; a BN among them is called `name`."""
    for step in steps:
        if step == "norm":
            x = layers.norm(name=name, initial_scale=initial_scale)(x, train=train)
        else:
            x = relu(x)
    return x
