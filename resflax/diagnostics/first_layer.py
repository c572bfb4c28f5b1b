"""The first convolution: its filters, and its responses to a picture."""

import numpy as np

from resflax.diagnostics.inspected import InspectedNetwork, kernels, outputs
from resflax.models.layers import Conv


def filters(network: InspectedNetwork) -> np.ndarray:
    """The filters (maps, k, k, C) float32; each is rescaled so that its values span 0 to 1."""
    kernel = np.moveaxis(kernels(network.variables["params"])[_name(network)], -1, 0)
    low = kernel.min((1, 2, 3), keepdims=True)
    high = kernel.max((1, 2, 3), keepdims=True)
    return (kernel - low) / np.maximum(high - low, 1e-12)


def feature_maps(network: InspectedNetwork, picture: int) -> np.ndarray:
    """The filters' responses (maps, H, W) float32 to the picture of the given number."""
    name = _name(network)
    responses = outputs(network, lambda m: isinstance(m, Conv) and ".".join(m.path) == name)
    return np.moveaxis(responses[name][picture], -1, 0)


def _name(network: InspectedNetwork) -> str:
    """The path of the first convolution."""
    names = kernels(network.variables["params"])
    return "stem_conv1" if "stem_conv1" in names else "stem_conv"
