"""The networks that can be made deeper without a change of what they compute.

Source: He et al. 2015 (arXiv 1512.03385), section 1: "There exists a solution by construction to
the deeper model: the added layers are identity mapping, and the other layers are copied from the
learned shallower model." Here the added layers stand at the end of each stage or block.
`models.identity_units` and `models.unread_layers` make their weights.
"""

import math

from resflax.declarations.models import DenseNet, Model, Published, ResNet
from resflax.declarations.own import Own
from resflax.errors import UsageError
from resflax.orders import ORDERS
from resflax.shortcuts import SHORTCUTS, ProjectionAll


def check_deeper(shallow: Model, deep: Model) -> None:
    """Checks that a network can be made out of another one by adding layers.

    Args:
      shallow: the resolved declaration of the shallower network.
      deep: the same with another depth.

    Raises `UsageError` with the reason if that is impossible.
    """
    if isinstance(shallow, ResNet) and isinstance(deep, ResNet):
        added_parts(shallow, deep)
        _check_identity(deep)
    elif isinstance(shallow, DenseNet) and isinstance(deep, DenseNet):
        added_parts(shallow, deep)
    else:
        raise UsageError(
            "only a ResNet or a DenseNet can be made deeper, because nothing is known about the "
            "layers of a network of your own"
        )


def added_parts(shallow: Published, deep: Published) -> dict[int, range]:
    """The numbers of the units that a deeper ResNet has more, or of the layers of a DenseNet.

    Returns:
      The numbers for each stage or block that gets any, as in `{1: range(4, 10)}`.

    Raises:
      UsageError: if a stage or block gets smaller, or if all stay the same.
    """
    there, here = _sizes(shallow), _sizes(deep)
    if there == here or any(old > new for old, new in zip(there, here, strict=True)):
        parts = "units in its stages" if isinstance(deep, ResNet) else "layers in its blocks"
        raise UsageError(
            f"model.depth is {deep.depth}, which has {_listed(here)} {parts}; depth "
            f"{shallow.depth} has {_listed(there)}, and a deeper network has nowhere fewer and "
            "somewhere more"
        )
    return {
        place: range(old + 1, new + 1)
        for place, (old, new) in enumerate(zip(there, here, strict=True), start=1)
        if new > old
    }


def _sizes(model: Published) -> tuple[int, ...]:
    return model.units_per_stage if isinstance(model, ResNet) else model.layers_per_block


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def branch_factor(config: ResNet) -> float:
    """The number c for which a unit of a resolved declaration returns x if its branch is c x.

    It is 0 if the shortcut passes x on unchanged; a class of a user's own is taken for such a one.

    Raises `UsageError` if there is no such number.
    """
    shortcut = config.resolved_shortcut
    if shortcut in ("none", "exclusive_gating"):  # x = (1 - g) x + g x
        return 1.0
    if shortcut == "shortcut_gating":  # x = (1 - g) x + g x, where g does not depend on x
        assert config.gate_bias is not None, "the declaration is resolved"
        return 1 / (1 + math.exp(-config.gate_bias))
    if shortcut == "constant_scaling":
        kept, scale = config.shortcut_scale, config.branch_scale
        assert kept is not None, "the declaration is resolved"
        assert scale is not None, "the declaration is resolved"
        if kept != 1 and scale == 0:
            raise UsageError(
                f"model.branch_scale is 0, so every unit returns {kept:g} x: none is the identity"
            )
        return 0.0 if kept == 1 else (1 - kept) / scale
    return 0.0


def projects_everywhere(config: ResNet) -> bool:
    """Whether the shortcut convolves also where the shape stays the same."""
    shortcut = config.resolved_shortcut
    return not isinstance(shortcut, Own) and SHORTCUTS[shortcut] is ProjectionAll


def _check_identity(config: ResNet) -> None:
    """Raises `UsageError` if no unit of a resolved declaration is the identity and can learn."""
    if config.unit is not None:
        raise UsageError(
            f"the branch {config.unit} is a class of your own, and nothing is known that makes it 0"
        )
    if config.scales_branches:
        raise UsageError(
            "model.stochastic_depth by batch scales every branch by its probability of survival, "
            "which changes with the depth: the copied units would compute something else"
        )
    order, factor, shortcut = ORDERS[config.order], branch_factor(config), config.resolved_shortcut
    ends_in_relu = order.after_last[-1:] == ("relu",)
    if factor == 0:
        if ends_in_relu:
            raise UsageError(
                f"a branch of order {config.order} ends in ReLU: to add nothing it must be 0 "
                "everywhere, and then so is its gradient, so the added units would never learn"
            )
        return
    if config.resolved_block == "bottleneck" and config.inner_width != 4 * config.width:
        raise UsageError(
            f"the shortcut {shortcut} needs branches that pass all of a unit's maps on, and a "
            f"bottleneck has {config.inner_width} maps inside for {4 * config.width}: no unit is "
            "the identity"
        )
    if order.before and shortcut != "none":
        raise UsageError(
            f"a branch of order {config.order} begins with ReLU and does not see negative inputs, "
            f"of which the shortcut {shortcut} passes on only a part: no unit is the identity"
        )
    if ends_in_relu and min(config.shortcut_scale or 0, config.branch_scale or 0, factor) < 0:
        raise UsageError(
            f"a branch of order {config.order} ends in ReLU and is never negative, as these scales "
            "of shortcut and branch would need it: no unit is the identity"
        )
