"""The first convolution: its filters, and what it makes of a picture."""

import numpy as np

from resflax.diagnostics.network import Network, kernels, outputs
from resflax.models.layers import Conv


def filters(network: Network) -> np.ndarray:
    """(maps, k, k, C) float32 in 0 to 1: each filter stretched by its own least and greatest."""
    kernel = np.moveaxis(kernels(network.variables["params"])[_name(network)], -1, 0)
    low = kernel.min((1, 2, 3), keepdims=True)
    high = kernel.max((1, 2, 3), keepdims=True)
    return (kernel - low) / np.maximum(high - low, 1e-12)


def feature_maps(network: Network, picture: int) -> np.ndarray:
    """(maps, H, W) float32: the filters' responses to one picture."""
    name = _name(network)
    found = outputs(network, lambda m: isinstance(m, Conv) and ".".join(m.path) == name)
    return np.moveaxis(found[name][picture], -1, 0)


def _name(network: Network) -> str:
    names = kernels(network.variables["params"])
    return "stem_conv1" if "stem_conv1" in names else "stem_conv"
