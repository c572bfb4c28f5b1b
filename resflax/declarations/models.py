"""Networks as declarations: depth, layout, unit, shortcut, growth rate."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import check_types, refuse

Layout = Literal["cifar", "imagenet"]
Block = Literal["basic", "bottleneck"]
Shortcut = Literal["none", "zero_pad", "projection", "projection_all"]
Order = Literal["post", "full_pre"]

# He et al. 2015, Table 1; 200 layers: He et al. 2016, appendix. (block, units per stage)
IMAGENET_RESNETS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}

# Huang et al. 2017, Table 1; 161 from its earlier version and the authors' code.
# The name 264 is the paper's, though the rule that names the others gives 265.
IMAGENET_DENSENETS: dict[int, tuple[int, ...]] = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}

_CONVS_PER_UNIT: dict[Block, int] = {"basic": 2, "bottleneck": 3}


@dataclass(frozen=True)
class ResNet:
    """A residual network, or with `shortcut="none"` its plain twin.

    Sources: He et al. 2015 (arXiv 1512.03385), Table 1 and section 4.2; He et al. 2016
    (arXiv 1603.05027) for `order="full_pre"` and the bottleneck units of CIFAR nets.
    """

    depth: int
    """Weighted layers. cifar: 6n+2 (basic) or 9n+2 (bottleneck); imagenet: 18, 34, ... 200."""

    layout: Layout = "cifar"
    """cifar: 3x3 stem, three stages (16, 32, 64 maps). imagenet: 7x7 stem, pooling, four stages."""

    block: Block | None = None
    """basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1). None: derived from depth."""

    shortcut: Shortcut | None = None
    """none: plain net; zero_pad, projection, projection_all: options A, B, C of He et al. 2015.
    None: zero_pad for basic units of the cifar layout, else projection."""

    order: Order = "post"
    """post: BN and ReLU after each convolution and addition; full_pre: before (He et al. 2016)."""

    stride_on: Literal["1x1", "3x3"] | None = None
    """Which convolution of a bottleneck has the stride: the first 1x1 (the papers) or the 3x3
    (fb.resnet.torch, torchvision). None: 1x1 for bottlenecks of the cifar layout, else 3x3."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or a depth that the layout cannot have."""
        check_types(self)
        if self.layout == "imagenet":
            if self.depth not in IMAGENET_RESNETS:
                known = ", ".join(map(str, IMAGENET_RESNETS))
                refuse(self, "depth", f"the imagenet layout has {known}")
            block = IMAGENET_RESNETS[self.depth][0]
            if self.block not in (None, block):
                refuse(self, "block", f"the imagenet layout of depth {self.depth} is {block}")
        elif not any(_units(self.depth, block) for block in self._possible_blocks()):
            forms = " or ".join(
                f"{3 * _CONVS_PER_UNIT[block]}n+2 ({block} units)"
                for block in self._possible_blocks()
            )
            refuse(self, "depth", f"the cifar layout needs {forms} with n >= 1")
        if self.stride_on == "1x1" and self.unit == "basic":
            refuse(self, "stride_on", "basic units have no 1x1 convolution")

    def _possible_blocks(self) -> tuple[Block, ...]:
        return (self.block,) if self.block else ("basic", "bottleneck")

    @property
    def unit(self) -> Block:
        """`block`, or what the depth says where it was left out."""
        if self.layout == "imagenet":
            return IMAGENET_RESNETS[self.depth][0]
        return next(block for block in self._possible_blocks() if _units(self.depth, block))

    @property
    def units_per_stage(self) -> tuple[int, ...]:
        """Residual units in each stage."""
        if self.layout == "imagenet":
            return IMAGENET_RESNETS[self.depth][1]
        return (_units(self.depth, self.unit),) * 3

    def resolved(self) -> "ResNet":
        """The same network with every derived field written out."""
        unit: Block = self.unit
        cifar = self.layout == "cifar"
        papers_a = cifar and unit == "basic"
        papers_stride: Literal["1x1", "3x3"] = "1x1" if cifar and unit == "bottleneck" else "3x3"
        return ResNet(
            depth=self.depth,
            layout=self.layout,
            block=unit,
            shortcut=self.shortcut or ("zero_pad" if papers_a else "projection"),
            order=self.order,
            stride_on=self.stride_on or papers_stride,
        )


def _units(depth: int, block: Block) -> int:
    """Units per stage of a CIFAR net of this depth; 0 if there is no such net."""
    units, remainder = divmod(depth - 2, 3 * _CONVS_PER_UNIT[block])
    return units if remainder == 0 and units > 0 else 0


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
    """Probability of dropping an activation after each convolution but the first
    (0.2 for the paper's runs without augmentation)."""

    initial_channels: int | None = None
    """Maps of the stem. None: 2k with bottlenecks and compression or the imagenet layout, else 16
    (as printed; the authors' code has 2k everywhere, which does not give their counts)."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value, or a depth the layout cannot have."""
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
        """`initial_channels`, or the paper's where it was left out."""
        if self.initial_channels is not None:
            return self.initial_channels
        doubled = self.layout == "imagenet" or (self.bottleneck and self.compression < 1)
        return 2 * self.growth_rate if doubled else 16

    def resolved(self) -> "DenseNet":
        """The same network with every derived field written out."""
        return DenseNet(
            depth=self.depth,
            growth_rate=self.growth_rate,
            layout=self.layout,
            bottleneck=self.bottleneck,
            compression=self.compression,
            dropout_rate=self.dropout_rate,
            initial_channels=self.stem_channels,
        )


Model = ResNet | DenseNet
