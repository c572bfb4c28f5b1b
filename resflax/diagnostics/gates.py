"""The values of the gates on the shortcuts (He et al. 2016, section 3.1)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from resflax.diagnostics.inspected import InspectedNetwork, outputs
from resflax.models.layers import Conv


@dataclass(frozen=True)
class Gate:
    """The distribution of one gate's values g(x) over pictures, positions and maps."""

    name: str
    """Path of the unit."""
    mean: float
    low: float
    """10th percentile of the values."""
    high: float
    """90th percentile of the values."""


def gate_values(network: InspectedNetwork) -> list[Gate]:
    """The gates of all gated units, in order of depth; empty for a network without gates."""
    by_path = outputs(network, lambda m: isinstance(m, Conv) and m.name == "gate")
    gates = []
    for name, logits in by_path.items():
        values = expit(logits.astype(np.float64))
        low, high = np.percentile(values, [10, 90])
        unit = name.removesuffix(".shortcut.gate")
        gates.append(Gate(unit, float(values.mean()), float(low), float(high)))
    return gates
