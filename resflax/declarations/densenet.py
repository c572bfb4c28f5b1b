"""Dense networks as declarations: depth, layout, growth rate, compression."""

import dataclasses
from dataclasses import dataclass

from resflax.declarations.checks import check_types, refuse
from resflax.declarations.layouts import DEEPEST, Layout

# Dense layers per block: Huang et al. 2017, Table 1. Depth 161 is from an earlier version of the
# paper and the authors' code. 264 is the paper's name, although its rule of counting gives 265.
IMAGENET_DENSENETS: dict[int, tuple[int, ...]] = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


@dataclass(frozen=True)
class DenseNet:
    """A densely connected network. Source: Huang et al. 2017 (arXiv 1608.06993).

    `DenseNet(100, 12)` is DenseNet-BC (L=100, k=12) of the paper; with `bottleneck=False,
    compression=1.0` it is the plain DenseNet.
    """

    depth: int
    """L. cifar: 6n+4 with bottlenecks, 3n+4 without; imagenet: 121, 161, 169, 201, 264."""

    growth_rate: int
    """k: feature maps that each layer adds."""

    layout: Layout = "cifar"
    """cifar: 3x3 stem, three blocks of equal length. imagenet: 7x7 stem, pooling, four blocks."""

    bottleneck: bool = True
    """B: a 1x1 convolution to 4k maps before each 3x3 convolution."""

    compression: float = 0.5
    """C: a transition after m maps keeps floor(compression * m) of them."""

    dropout_rate: float = 0.0
    """Probability of dropping an activation; dropout follows each convolution except the first (0.2
    in the paper's runs without augmentation)."""

    initial_channels: int | None = None
    """Feature maps of the stem. None: 2k in the imagenet layout and with both bottlenecks and
    compression, else 16, as in the paper (the authors' code has 2k everywhere, which does not give
    the paper's counts)."""

    remat: bool = True
    """Keep only the results of each layer's convolutions and recompute the normalised maps in the
    backward pass. Memory then grows linearly with depth, not quadratically (Pleiss et al. 2017,
    arXiv 1707.06990); the numbers stay the same."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value, or a depth that the layout cannot have."""
        check_types(self)
        if self.growth_rate < 1:
            refuse(self, "growth_rate", "it must be at least 1")
        if not 0 < self.compression <= 1:
            refuse(self, "compression", "it must be above 0 and at most 1")
        if not 0 <= self.dropout_rate < 1:
            refuse(self, "dropout_rate", "it must be at least 0 and below 1")
        if self.initial_channels is not None and self.initial_channels < 1:
            refuse(self, "initial_channels", "it must be at least 1")
        if self.layout == "imagenet":
            if self.depth not in IMAGENET_DENSENETS:
                known = ", ".join(map(str, IMAGENET_DENSENETS))
                refuse(self, "depth", f"the imagenet layout has {known}")
            if not self.bottleneck:
                refuse(self, "bottleneck", "the depths of the imagenet layout count bottlenecks")
        elif self.depth > DEEPEST:
            refuse(self, "depth", f"it must be at most {DEEPEST:,}")
        else:
            per_layer = 2 if self.bottleneck else 1
            layers, remainder = divmod(self.depth - 4, 3 * per_layer)
            if remainder or layers < 1:
                kind = "with" if self.bottleneck else "without"
                form = f"{3 * per_layer}n+4, n >= 1"
                refuse(self, "depth", f"the cifar layout {kind} bottlenecks needs {form}")

    @property
    def layers_per_block(self) -> tuple[int, ...]:
        """Dense layers in each block."""
        if self.layout == "imagenet":
            return IMAGENET_DENSENETS[self.depth]
        return ((self.depth - 4) // (6 if self.bottleneck else 3),) * 3

    @property
    def stem_channels(self) -> int:
        """`initial_channels`, or the paper's value if it was left out."""
        if self.initial_channels is not None:
            return self.initial_channels
        doubled = self.layout == "imagenet" or (self.bottleneck and self.compression < 1)
        return 2 * self.growth_rate if doubled else 16

    def resolved(self) -> "DenseNet":
        """The same network with every derived field written out."""
        return dataclasses.replace(self, initial_channels=self.stem_channels)
