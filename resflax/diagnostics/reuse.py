"""How much dense layers use the maps of earlier layers (Huang et al. 2017, Figure 5)."""

import itertools

import numpy as np

from resflax.declarations.models import DenseNet
from resflax.diagnostics.inspected import InspectedNetwork, kernels
from resflax.errors import UsageError


def feature_reuse(network: InspectedNetwork) -> list[np.ndarray]:
    """The mean absolute weights with which layers read the maps of earlier layers, in each block.

    Returns:
      For each block of n layers, an array (n + 1, n + 1) with a row for each source of maps and a
      column for each layer that reads them. Row 0 is for the maps that enter the block, and row s
      for those of its layer s. Column l - 1 is for layer l, and the last column for the layer after
      the block (a transition, or the classifier). Entries whose source does not come before the
      reader are NaN.

    Raises:
      UsageError: if the network is not a DenseNet.
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
        reuse = np.full((layers + 1, layers + 1), np.nan)
        for column, reader in enumerate(readers):
            kernel = weights[reader]  # (kh, kw, in, out), or (in, out) for the classifier
            by_map = np.abs(np.moveaxis(kernel, -2, 0)).reshape(kernel.shape[-2], -1).mean(1)
            inputs = len(by_map) - column * k
            ends = [0, *range(inputs, len(by_map) + 1, k)]
            for row, (start, end) in enumerate(itertools.pairwise(ends)):
                reuse[row, column] = by_map[start:end].mean()
        blocks.append(reuse)
    return blocks
