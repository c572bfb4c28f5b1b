"""Identity units: residual units that return their input, with which a trained network gets deeper.

Source: He et al. 2015 (arXiv 1512.03385), section 1: "There exists a solution by construction to
the deeper model: the added layers are identity mapping, and the other layers are copied from the
learned shallower model."

The units are added at the end of each stage. Where the shortcut passes the input x on unchanged,
the branch F is 0, and its other weights stay as they were drawn. Elsewhere F(x) = c x: the kernels
have a 1 in their centre, from each map to itself, and every batch norm returns what it gets. In
evaluation any batch norm can do that: its scale is the square root of its running variance, and its
bias is its running mean. In training it normalises by the batch, so it does the same only if these
are the moments of its input, which are therefore measured.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.models import ResNet
from resflax.declarations.own import Own
from resflax.errors import UsageError
from resflax.models.layers import BatchNorm, Moments, moments, relu
from resflax.orders import ORDERS
from resflax.shortcuts import SHORTCUTS, ProjectionAll

Variables = dict[str, Any]
"""A network's `params` and `batch_stats`, by module path; equal units are not stacked."""


class Signal(NamedTuple):
    """Mean and variance of each map of a signal: two (C,) float64 arrays."""

    mean: np.ndarray
    variance: np.ndarray


def added_units(shallow: ResNet, deep: ResNet) -> dict[int, range]:
    """The numbers of the added units of each stage that gets any, such as `{1: range(4, 10)}`.

    Raises `UsageError` if a stage has fewer units in the deeper network, or if no stage has more.
    """
    pairs = [*zip(shallow.units_per_stage, deep.units_per_stage, strict=True)]
    if (
        any(there > here for there, here in pairs)
        or shallow.units_per_stage == deep.units_per_stage
    ):
        raise UsageError(
            f"model.depth is {deep.depth}, which makes stages of {_listed(deep)} units; the stages "
            f"of depth {shallow.depth} have {_listed(shallow)}, and none may lose any or all stay"
        )
    return {
        stage: range(there + 1, here + 1)
        for stage, (there, here) in enumerate(pairs, start=1)
        if here > there
    }


def _listed(config: ResNet) -> str:
    return ", ".join(map(str, config.units_per_stage))


def branch_factor(config: ResNet) -> float:
    """The number c for which a unit of a resolved declaration returns x if its branch is c x.

    Raises `UsageError` if there is none.
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


def check_identity(config: ResNet) -> None:
    """Raises `UsageError` if no unit of a resolved declaration is the identity and can learn."""
    order, factor = ORDERS[config.order], branch_factor(config)
    if isinstance(config.unit, Own):
        raise UsageError(f"the branch {config.unit} is a class of your own: nothing makes it 0")
    if config.scales_branches:
        raise UsageError(
            "model.stochastic_depth by batch scales every branch by its probability of survival, "
            "which changes with the depth: the old units would no longer compute the same"
        )
    if factor == 0:
        if order.after_last[-1:] == ("relu",):
            raise UsageError(
                f"a branch of order {config.order} ends in ReLU: to add 0 it must be 0 everywhere, "
                "and then so is its gradient, so the added units would never learn"
            )
        return
    shortcut = config.resolved_shortcut
    if config.resolved_block == "bottleneck" and config.inner_width != 4 * config.width:
        raise UsageError(
            f"the shortcut {shortcut} needs branches that pass all {4 * config.width} maps of the "
            f"first stage on, and these bottlenecks have {config.inner_width} inside"
        )
    if order.before and shortcut != "none":
        raise UsageError(
            f"a branch of order {config.order} begins with ReLU and does not see negative inputs, "
            f"of which the shortcut {shortcut} passes only a part on: no unit is the identity"
        )
    scales = (config.shortcut_scale or 0, config.branch_scale or 0, factor)
    if order.after_last[-1:] == ("relu",) and min(scales) < 0:
        raise UsageError(
            f"a branch of order {config.order} ends in ReLU and is never negative, which these "
            "scales of shortcut and branch would need: no unit is the identity"
        )


def needs_signals(config: ResNet) -> bool:
    """Whether identity units of a resolved declaration have a batch norm that returns its input."""
    order = ORDERS[config.order]
    projected = _projects(config) and order.normalizes_projection
    return branch_factor(config) != 0 or "norm" in order.after_addition or projected


def _projects(config: ResNet) -> bool:
    """Whether the shortcut convolves where the shape stays the same."""
    shortcut = config.resolved_shortcut
    return not isinstance(shortcut, Own) and SHORTCUTS[shortcut] is ProjectionAll


def signal_moments(
    config: ResNet, module: nn.Module, stages: tuple[int, ...]
) -> Callable[[Variables, jax.Array], dict[int, Moments]]:
    """Makes a function that measures what the batch norms of added units will get.

    Args:
      config: the resolved declaration of the shallower network.
      module: its module, whose units have names of their own.
      stages: the stages to which units are added.

    Returns:
      (variables, normalised images) -> for each stage, the moments of the input of an added unit,
      after the operations with which its branch begins.
    """
    end = _reader if _moves_norm(config) else _last_unit
    ends = {end(config, stage): stage for stage in stages}
    rectified = bool(ORDERS[config.order].before) and branch_factor(config) != 0

    def measure(variables: Variables, images: jax.Array) -> dict[int, Moments]:
        measured: dict[int, Moments] = {}

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = call(*args, **kwargs)
            path = "/".join(context.module.path)
            if context.method_name == "__call__" and path in ends:
                seen = relu(output) if rectified else output
                measured[ends[path]] = moments(seen, None)
            return output

        with nn.intercept_methods(note):
            module.apply(variables, images, train=False)
        return measured

    return measure


def _last_unit(config: ResNet, stage: int) -> str:
    return f"stage{stage}_unit{config.units_per_stage[stage - 1]}"


def _moves_norm(config: ResNet) -> bool:
    """Whether a stage is read only through a batch norm, which moves into the first added unit."""
    return ORDERS[config.order].before[:1] == ("norm",) and branch_factor(config) != 0


def _reader(config: ResNet, stage: int) -> str:
    """The batch norm that reads the output of a stage where there is no shortcut."""
    last = stage == len(config.units_per_stage)
    return "final_norm" if last else f"stage{stage + 1}_unit1/norm1"


def deepened(
    shallow: ResNet,
    deep: ResNet,
    trained: Variables,
    drawn: Variables,
    signals: dict[int, Signal],
) -> Variables:
    """The variables with which the deeper network computes what the shallower one does.

    Args:
      shallow: the resolved declaration of the trained network.
      deep: the same declaration with another depth; see `added_units` and `check_identity`.
      trained: the variables of the trained network.
      drawn: variables of the deeper network as drawn from a seed.
      signals: for each stage with added units, the signal of `signal_moments`; may be empty if
        `needs_signals` is False.

    Returns:
      Variables in which those of the trained network keep their names. With neither shortcut nor
      identity (plain networks of order full_pre), the batch norm that read a stage moves into the
      first unit that is added to it.
    """
    flat = {
        name: flatten_dict(dict(drawn[name]), sep="/") | flatten_dict(dict(trained[name]), sep="/")
        for name in ("params", "batch_stats")
    }
    for stage, numbers in added_units(shallow, deep).items():
        for number in numbers:
            _make_identity(deep, flat, f"stage{stage}_unit{number}", signals.get(stage))
        if _moves_norm(deep):
            reader, first = _reader(deep, stage), f"stage{stage}_unit{numbers[0]}/norm1"
            for collection, leaf in _NORM_LEAVES:
                flat[collection][f"{first}/{leaf}"] = flat[collection][f"{reader}/{leaf}"]
            _set_norm(flat, reader, signals[stage])
    return {name: unflatten_dict(arrays, sep="/") for name, arrays in flat.items()}


_NORM_LEAVES = (
    ("params", "scale"),
    ("params", "bias"),
    ("batch_stats", "mean"),
    ("batch_stats", "var"),
)


def _make_identity(config: ResNet, flat: Variables, unit: str, signal: Signal | None) -> None:
    """Changes the drawn variables of one unit, by full path, so that it returns its input."""
    params, order, factor = flat["params"], ORDERS[config.order], branch_factor(config)
    last = 2 if config.resolved_block == "basic" else 3

    def fill(name: str, value: float = 0) -> None:
        params[f"{unit}/{name}"] = np.full_like(params[f"{unit}/{name}"], value)

    def connect(name: str, factor: float = 1) -> None:
        params[f"{unit}/{name}/kernel"] = factor * dirac(params[f"{unit}/{name}/kernel"].shape)

    def pass_on(name: str, factor: float = 1) -> None:
        assert signal is not None, "needs_signals says so"
        mean, variance = signal
        _set_norm(flat, f"{unit}/{name}", Signal(factor * mean, factor**2 * variance))

    if factor:
        if config.squeeze_excitation is not None:
            fill("squeeze_excitation/excite/kernel")  # every gate is sigmoid(0)
            factor /= 0.5
        for number in range(1, last):
            connect(f"conv{number}")
            pass_on(f"norm{number}")
        connect(f"conv{last}", factor)
        if order.branch_ends_in_norm or order.after_last:
            pass_on(f"norm{last}", factor)
        elif order.before:
            pass_on(f"norm{last}")
    elif order.branch_ends_in_norm:
        fill(f"norm{last}/scale")
    else:
        fill(f"conv{last}/kernel")
    if "norm" in order.after_addition:
        pass_on(f"norm{last}")
    if _projects(config):
        connect("shortcut/conv")
        if order.normalizes_projection:
            pass_on("shortcut/norm")
    if config.resolved_shortcut == "shortcut_gating":
        fill("shortcut/gate/kernel")


def _set_norm(flat: Variables, name: str, signal: Signal) -> None:
    """Makes a batch norm return a signal of these moments, also one that is constant."""
    mean, variance = (np.asarray(array, np.float32) for array in signal)
    values = {
        "scale": np.sqrt(variance + np.float32(BatchNorm.epsilon)),
        "bias": mean,
        "mean": mean,
        "var": variance,
    }
    for collection, leaf in _NORM_LEAVES:
        flat[collection][f"{name}/{leaf}"] = values[leaf]


def dirac(shape: tuple[int, ...]) -> np.ndarray:
    """The kernel (k, k, C / groups, C) float32 that maps every map to itself."""
    size, _, of_group, maps = shape
    kernel, places = np.zeros(shape, np.float32), np.arange(maps)
    kernel[size // 2, size // 2, places % of_group, places] = 1
    return kernel
