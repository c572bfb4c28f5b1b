"""How the signal's size develops with depth (signal propagation plots, Brock et al. 2021,
arXiv 2101.08692, section 3)."""

from dataclasses import dataclass

import numpy as np

from resflax.diagnostics.network import Network, outputs
from resflax.models.dense import DenseLayer, Transition
from resflax.models.layers import StochasticDepth
from resflax.models.residual import Unit


@dataclass(frozen=True)
class Signal:
    """Behind one unit."""

    name: str
    squared_mean: float
    """Mean over maps of the squared mean over pictures and places."""
    variance: float
    """Mean over maps of the variance over pictures and places."""
    branch_variance: float | None
    """The same of the residual branch; None where there is none."""


def signal_propagation(network: Network) -> list[Signal]:
    """Of every unit in order, in training mode (batch norm takes the pictures' statistics).

    Meant for a network before its first step: see `network.untrained`.
    """
    kinds = (Unit, DenseLayer, Transition, StochasticDepth)
    found = outputs(network, lambda m: isinstance(m, kinds), train=True)
    branches = {
        name.rpartition(".")[0]: maps
        for name, maps in found.items()
        if name.endswith(".stochastic_depth")
    }
    signals = []
    for name, maps in found.items():
        if name.endswith(".stochastic_depth"):
            continue
        mean, variance = _moments(maps)
        branch = _moments(branches[name])[1] if name in branches else None
        signals.append(Signal(name, mean, variance, branch))
    return signals


def _moments(maps: np.ndarray) -> tuple[float, float]:
    maps = maps.astype(np.float64)
    return float(np.mean(maps.mean((0, 1, 2)) ** 2)), float(np.mean(maps.var((0, 1, 2))))
