"""Mean and variance of the signal at every depth.

These are the numbers of a signal propagation plot (Brock et al. 2021, arXiv 2101.08692, section 3).
"""

from dataclasses import dataclass

import numpy as np

from resflax.diagnostics.inspected import InspectedNetwork, outputs
from resflax.models.dense import DenseLayer, Transition
from resflax.models.layers import StochasticDepth
from resflax.models.units import ResidualUnit


@dataclass(frozen=True)
class Signal:
    """The size of the signal after one unit."""

    name: str
    """Path of the unit."""
    squared_mean: float
    """The squared mean of a map over pictures and positions, averaged over the maps."""
    variance: float
    """The variance of a map over pictures and positions, averaged over the maps."""
    branch_variance: float | None
    """The same variance for the output of the residual branch; None for units without a branch."""


def signal_propagation(network: InspectedNetwork) -> list[Signal]:
    """The signal after each unit, in order.

    Batch norm uses the statistics of the pictures, as in training. The paper plots networks before
    their first step, which `inspected.untrained` makes.
    """
    # The StochasticDepth module of a residual unit returns the output of the branch.
    watched = (ResidualUnit, DenseLayer, Transition, StochasticDepth)
    by_path = outputs(network, lambda m: isinstance(m, watched), train=True)
    branches = {
        name.rpartition(".")[0]: maps
        for name, maps in by_path.items()
        if name.endswith(".stochastic_depth")
    }
    signals = []
    for name, maps in by_path.items():
        if name.endswith(".stochastic_depth"):
            continue
        mean, variance = _moments(maps)
        branch = _moments(branches[name])[1] if name in branches else None
        signals.append(Signal(name, mean, variance, branch))
    return signals


def _moments(maps: np.ndarray) -> tuple[float, float]:
    """The squared mean and the variance of maps (B, H, W, C), each averaged over the maps."""
    maps = maps.astype(np.float64)
    return float(np.mean(maps.mean((0, 1, 2)) ** 2)), float(np.mean(maps.var((0, 1, 2))))
