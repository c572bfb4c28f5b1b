"""Standard deviation of the layers' responses (He et al. 2015, Figure 7)."""

import flax.linen as nn
import numpy as np

from resflax.diagnostics.network import Network, outputs
from resflax.models.layers import BatchNorm, Conv


def layer_responses(network: Network) -> dict[str, float]:
    """Standard deviation, over pictures, places and maps, of every 3x3 layer's response.

    The response is taken where the paper takes it: behind BN and before ReLU or addition. Where
    the order of the unit puts no BN directly behind a convolution, it is the convolution's own.
    """
    found = outputs(network, lambda m: _is_3x3(m) or isinstance(m, BatchNorm))
    names = list(found)
    responses = {}
    for name, following in zip(names, [*names[1:], ""], strict=True):
        if "conv" not in name.rpartition(".")[2]:
            continue
        behind = name.replace("conv", "norm") == following
        responses[name] = float(np.std(found[following if behind else name], dtype=np.float64))
    return responses


def _is_3x3(module: nn.Module) -> bool:
    return isinstance(module, Conv) and module.kernel_size == 3
