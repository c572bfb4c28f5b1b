"""Dense layers that nobody reads yet, with which a trained dense network gets deeper.

The layers are added at the end of each block. Whatever reads a block, which is the transition or
the classifier, has zeros in its kernel for the new maps, so the network computes what it did, in
training too. A transition then also makes more maps, because it keeps a part of all it reads, and
the layers of the next block have zeros for those. The zeros have gradients, so the new layers are
read after the first step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax.declarations.models import DenseNet

Variables = dict[str, Any]
"""A network's `params` and `batch_stats`, by module path."""


def deepened(
    shallow: DenseNet, deep: DenseNet, trained: Mapping[str, Any], drawn: Mapping[str, Any]
) -> Variables:
    """The variables with which the deeper network computes what the shallower one does.

    Args:
      shallow: the resolved declaration of the trained network.
      deep: the same declaration with another depth; see `check_deeper`.
      trained: the variables of the trained network.
      drawn: variables of the deeper network as drawn from a seed.
    """
    old, new = (
        {name: flatten_dict(dict(tree[name]), sep="/") for name in ("params", "batch_stats")}
        for tree in (trained, drawn)
    )
    widened = _Widened(old, new)
    widened.copy("stem_conv")
    widened.copy("stem_norm")
    first = "norm1", "conv1"
    places, width = np.arange(deep.stem_channels), deep.stem_channels
    for block, (kept, layers) in enumerate(
        zip(shallow.layers_per_block, deep.layers_per_block, strict=True), start=1
    ):
        for number in range(1, kept + 1):
            layer = f"block{block}_layer{number}"
            norm, conv = first if deep.bottleneck else ("norm2", "conv2")
            widened.read(f"{layer}/{norm}", f"{layer}/{conv}", places)
            if deep.bottleneck:
                widened.copy(f"{layer}/norm2")
                widened.copy(f"{layer}/conv2")
            places = np.append(places, width + np.arange(deep.growth_rate))
            width += deep.growth_rate
        width += (layers - kept) * deep.growth_rate
        if block < len(deep.layers_per_block):
            transition = f"transition{block}"
            widened.read(f"{transition}/norm", f"{transition}/conv", places)
            kernels = (tree["params"][f"{transition}/conv/kernel"] for tree in (old, new))
            kept_maps, width = (kernel.shape[-1] for kernel in kernels)
            places = np.arange(kept_maps)
    widened.read("final_norm", "head", places)
    return {name: unflatten_dict(arrays, sep="/") for name, arrays in new.items()}


class _Widened:
    """The variables of a deeper network, which take over those of a trained one part by part."""

    def __init__(self, old: Variables, new: Variables) -> None:
        """`old` and `new` have a dict by path for each collection; `new` is changed."""
        self._old, self._new = old, new

    def copy(self, layer: str) -> None:
        """Takes over the variables of a layer of unchanged shape, if the network has the layer."""
        for name, arrays in self._old.items():
            self._new[name] |= {p: a for p, a in arrays.items() if p.startswith(f"{layer}/")}

    def read(self, norm: str, layer: str, places: np.ndarray) -> None:
        """Takes over a batch norm and the layer after it, where both read more maps than before.

        Args:
          norm: the path of the batch norm.
          layer: the path of the convolution, or of the classifier, that reads its result.
          places: the places (C,) of the old maps among the new ones. Kernels get zeros elsewhere.
        """
        for name, arrays in self._old.items():
            for path in (path for path in arrays if path.startswith(f"{norm}/")):
                array = np.array(self._new[name][path])
                array[places] = arrays[path]
                self._new[name][path] = array
        path = f"{layer}/kernel"
        kernel, before = np.array(self._new["params"][path]), self._old["params"][path]
        outputs = before.shape[-1]
        kernel[..., :outputs] = 0
        kernel[..., places, :outputs] = before
        self.copy(layer)  # a classifier has a bias
        self._new["params"][path] = kernel
