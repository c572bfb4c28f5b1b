"""Standard deviations of the layers' responses (He et al. 2015, Figure 7)."""

import flax.linen as nn
import numpy as np

from resflax.diagnostics.inspected import InspectedNetwork, outputs
from resflax.models.layers import BatchNorm, Conv


def layer_responses(network: InspectedNetwork) -> dict[str, float]:
    """Standard deviation of each 3x3 layer's response over pictures, positions and maps, by path.

    As in the paper, the response is taken after BN and before ReLU or addition. Where no BN
    directly follows the convolution, the response is the output of the convolution.
    """
    by_path = outputs(network, lambda m: _is_3x3(m) or isinstance(m, BatchNorm))
    names = list(by_path)
    responses = {}
    for name, following in zip(names, [*names[1:], ""], strict=True):
        if "conv" not in name.rpartition(".")[2]:
            continue
        bn_follows = name.replace("conv", "norm") == following
        response = by_path[following if bn_follows else name]
        responses[name] = float(np.std(response, dtype=np.float64))
    return responses


def _is_3x3(module: nn.Module) -> bool:
    return isinstance(module, Conv) and module.kernel_size == 3
