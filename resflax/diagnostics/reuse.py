"""Which earlier maps a dense layer reads (Huang et al. 2017, Figure 5)."""

import itertools

import numpy as np

from resflax.declarations.models import DenseNet
from resflax.diagnostics.network import Network, kernels
from resflax.errors import UsageError


def feature_reuse(network: Network) -> list[np.ndarray]:
    """One (n + 1, n + 1) array per block of n layers: mean absolute weight.

    Row s is what gave the maps: 0 the block's input, s its layer s. Column l - 1 is what reads
    them: layer l, and last what follows the block (a transition, or the classifier). NaN where s
    does not come before l. Raises `UsageError` for a network that is not dense.
    """
    config = network.experiment.model
    if not isinstance(config, DenseNet):
        raise UsageError("only dense networks reuse features")
    weights = kernels(network.variables["params"])
    first = "conv1" if config.bottleneck else "conv2"
    count, k = len(config.layers_per_block), config.growth_rate
    blocks = []
    for block, layers in enumerate(config.layers_per_block, start=1):
        readers = [f"block{block}_layer{layer}.{first}" for layer in range(1, layers + 1)]
        readers.append("head" if block == count else f"transition{block}.conv")
        found = np.full((layers + 1, layers + 1), np.nan)
        for column, reader in enumerate(readers):
            # The maps read are the last axis but one, of (kh, kw, in, out) and of (in, out).
            by_map = np.abs(np.moveaxis(weights[reader], -2, 0)).reshape(
                weights[reader].shape[-2], -1
            )
            by_map = by_map.mean(1)
            inputs = len(by_map) - column * k
            ends = [0, *range(inputs, len(by_map) + 1, k)]
            for row, (start, end) in enumerate(itertools.pairwise(ends)):
                found[row, column] = by_map[start:end].mean()
        blocks.append(found)
    return blocks
