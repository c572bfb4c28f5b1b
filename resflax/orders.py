"""The orders of BN, ReLU, convolution and addition in a residual unit.

Source: He et al. 2016 (arXiv 1603.05027), Figure 4 and Table 2. A new order is one row in `ORDERS`,
from which the experiment's check, the help texts and the network read it. This file does not
import JAX.
"""

from typing import Literal, NamedTuple

Operation = Literal["norm", "relu"]
Operations = tuple[Operation, ...]


class UnitOrder(NamedTuple):
    """The operations at each place of a unit. The rest of the network follows from them.

    The stem's convolution is followed by `after` and then by `before`, because the first activation
    of the network comes before the first unit splits into two paths (appendix of the paper). The
    end of the network, which feeds no convolution, applies `before` once more.
    """

    before: Operations = ()
    """Before every convolution."""
    after: Operations = ()
    """After every convolution except the unit's last."""
    after_last: Operations = ()
    """After the unit's last convolution."""
    after_addition: Operations = ()
    """After the addition of shortcut and branch."""

    @property
    def normalizes_projection(self) -> bool:
        """Whether BN follows a convolution on the shortcut, as it follows the branch's last one."""
        return "norm" in self.after_last

    @property
    def branch_ends_in_norm(self) -> bool:
        """Whether BN is the last operation of the branch, so that its scale can silence it."""
        return self.after_last[-1:] == ("norm",)


ORDERS: dict[str, UnitOrder] = {
    "post": UnitOrder(after=("norm", "relu"), after_last=("norm",), after_addition=("relu",)),
    "bn_after_addition": UnitOrder(after=("norm", "relu"), after_addition=("norm", "relu")),
    "relu_before_addition": UnitOrder(after=("norm", "relu"), after_last=("norm", "relu")),
    "relu_only_pre": UnitOrder(before=("relu",), after=("norm",), after_last=("norm",)),
    "full_pre": UnitOrder(before=("norm", "relu")),
}
"""The orders, by the names that an experiment uses for them."""
