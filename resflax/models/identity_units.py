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

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.deepening import added_parts, branch_factor, projects_everywhere
from resflax.declarations.models import ResNet
from resflax.models.layers import BatchNorm, Moments, moments, relu
from resflax.orders import ORDERS

Variables = dict[str, Any]
"""A network's `params` and `batch_stats`, by module path; equal units are not stacked."""


class Signal(NamedTuple):
    """Mean and variance of each map of a signal: two (C,) float64 arrays."""

    mean: np.ndarray
    variance: np.ndarray


def needs_signals(config: ResNet) -> bool:
    """Whether identity units of a resolved declaration have a batch norm that returns its input."""
    order = ORDERS[config.order]
    projected = projects_everywhere(config) and order.normalizes_projection
    return branch_factor(config) != 0 or "norm" in order.after_addition or projected


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
      deep: the same declaration with another depth; `check_deeper` accepts them.
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
    for stage, numbers in added_parts(shallow, deep).items():
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
            fill("squeeze_excitation/excite/bias")
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
        fill(f"norm{last}/bias")
    else:
        fill(f"conv{last}/kernel")
    if "norm" in order.after_addition:
        pass_on(f"norm{last}")
    if projects_everywhere(config):
        connect("shortcut/conv")
        if order.normalizes_projection:
            pass_on("shortcut/norm")
    if config.resolved_shortcut == "shortcut_gating":
        assert config.gate_bias is not None, "the declaration is resolved"
        fill("shortcut/gate/kernel")
        fill("shortcut/gate/bias", config.gate_bias)


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
