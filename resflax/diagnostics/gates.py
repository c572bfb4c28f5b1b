"""How far the gates on the shortcuts are open (He et al. 2016, section 3.1)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from resflax.diagnostics.network import Network, outputs
from resflax.models.layers import Conv


@dataclass(frozen=True)
class Gate:
    """The values g(x) of one unit's gate over pictures, places and maps."""

    name: str
    mean: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""


def gate_values(network: Network) -> list[Gate]:
    """Of every gated unit in order; none in a network without gates."""
    found = outputs(network, lambda m: isinstance(m, Conv) and m.name == "gate")
    gates = []
    for name, before in found.items():
        values = expit(before.astype(np.float64))
        low, high = np.percentile(values, [10, 90])
        unit = name.removesuffix(".shortcut.gate")
        gates.append(Gate(unit, float(values.mean()), float(low), float(high)))
    return gates
