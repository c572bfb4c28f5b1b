"""Published networks by name, with their declarations. This file does not import JAX."""

import difflib
from typing import NamedTuple

from resflax.declarations.checks import short
from resflax.declarations.layouts import Layout
from resflax.declarations.models import DenseNet, Published, ResNet
from resflax.errors import UsageError

_NETS: dict[str, Published] = {
    # He et al. 2015 (arXiv 1512.03385), Tables 1 and 6, and the plain nets of Figure 6.
    **{f"resnet{depth}": ResNet(depth, layout="imagenet") for depth in (18, 34, 50, 101, 152)},
    **{f"resnet{depth}": ResNet(depth) for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"plain{depth}": ResNet(depth, shortcut="none") for depth in (20, 32, 44, 56, 110)},
    # He et al. 2016 (arXiv 1603.05027), Tables 3 and 5.
    "preact_resnet110": ResNet(110, block="basic", order="full_pre"),
    "preact_resnet164": ResNet(164, block="bottleneck", order="full_pre"),
    "preact_resnet1001": ResNet(1001, block="bottleneck", order="full_pre"),
    "resnet200": ResNet(200, layout="imagenet", order="full_pre"),
    # Zagoruyko & Komodakis 2016 (arXiv 1605.07146), Table 5, and its wide bottlenecks; Xie et
    # al. 2017 (arXiv 1611.05431).
    "wrn_40_4": ResNet(40, widening=4, order="full_pre"),
    "wrn_16_8": ResNet(16, widening=8, order="full_pre"),
    "wrn_28_10": ResNet(28, widening=10, order="full_pre"),
    "wide_resnet50_2": ResNet(50, layout="imagenet", bottleneck_width=128),
    "resnext50_32x4d": ResNet(50, layout="imagenet", bottleneck_width=128, groups=32),
    # Huang et al. 2017 (arXiv 1608.06993), Tables 1 and 2; 161 from its earlier version.
    "densenet121": DenseNet(121, 32, layout="imagenet"),
    "densenet161": DenseNet(161, 48, layout="imagenet"),
    "densenet169": DenseNet(169, 32, layout="imagenet"),
    "densenet201": DenseNet(201, 32, layout="imagenet"),
    "densenet264": DenseNet(264, 32, layout="imagenet"),
    "densenet_40_12": DenseNet(40, 12, bottleneck=False, compression=1.0),
    "densenet_100_12": DenseNet(100, 12, bottleneck=False, compression=1.0),
    "densenet_100_24": DenseNet(100, 24, bottleneck=False, compression=1.0),
    "densenet_bc_100_12": DenseNet(100, 12),
    "densenet_bc_250_24": DenseNet(250, 24),
    "densenet_bc_190_40": DenseNet(190, 40),
}

NAMES: tuple[str, ...] = tuple(_NETS)
"""Names of all published networks."""


class Task(NamedTuple):
    """The pictures and classes that a network was published for."""

    image_shape: tuple[int, int, int]
    """(H, W, C)."""
    num_classes: int


TASKS: dict[Layout, Task] = {
    "cifar": Task((32, 32, 3), 10),
    "imagenet": Task((224, 224, 3), 1000),
}
"""The task of the networks of each layout: CIFAR-10 or ImageNet."""


def named(name: str) -> Published:
    """The declaration of a published network. Raises `UsageError` for an unknown name."""
    if name not in _NETS:
        close = difflib.get_close_matches(name, NAMES)
        advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(NAMES)}"
        raise UsageError(f"no network is named {short(name)}; {advice}")
    return _NETS[name]
