"""The names of our layers in other libraries, with one table for each family of networks.

A row of a table has our path of a layer, and the layer's name in the other library. `{stage}`,
`{unit}`, ... stand for our numbers, which count from 1; `{unit-1}` is the same number counted from
0, as in PyTorch's containers.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from resflax.declarations.models import Custom, DenseNet, Model
from resflax.errors import UsageError
from resflax.weights.pictures import CIFAR, TIMM_PREACTIVATION, TORCHVISION, Pictures


class Family(NamedTuple):
    """A kind of network that another library has too, and its names for the layers."""

    library: str
    """The library that gives these names."""
    allowed: Mapping[str, tuple[object, ...]]
    """The values that fields of a declaration may have. With other values, the same tensors would
    compute something else in the library, or would have no name there."""
    layer_names: tuple[tuple[str, str], ...]
    """Pairs of patterns: our path of a layer, and its name in the library."""
    pictures: Pictures
    """How the library prepares pictures for these networks."""
    head_is_conv: bool = False
    """Whether the library's classifier is a 1x1 convolution."""
    zeros_on_both_sides: bool = False
    """Whether the library's option A puts half of its zero channels before the other channels."""

    def layer_name(self, path: str) -> str:
        """The library's name for the layer at our path.

        Raises `UsageError` if the library's networks have no such layer.
        """
        for path_pattern, name_pattern in self.layer_names:
            match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", path_pattern), path)
            if match is not None:
                numbers = {key: int(number) for key, number in match.groupdict().items()}
                from_zero = {f"{key}-1": number - 1 for key, number in numbers.items()}
                return name_pattern.format_map(numbers | from_zero)
        raise UsageError(f"{self.library} has no name for this network's layer {path}")


# torchvision.models.resnet ("v1.5"); timm.models.resnet has the same names.
TORCHVISION_RESNET = Family(
    library="torchvision",
    allowed={
        "order": ("post",),
        "shortcut": ("projection",),
        "stride_on": ("3x3",),
        "stem": ("conv",),
        "squeeze_excitation": (None,),
        "stochastic_depth": (0.0,),
    },
    layer_names=(
        ("stem_conv", "conv1"),
        ("stem_norm", "bn1"),
        ("stage{stage}_unit{unit}/conv{i}", "layer{stage}.{unit-1}.conv{i}"),
        ("stage{stage}_unit{unit}/norm{i}", "layer{stage}.{unit-1}.bn{i}"),
        ("stage{stage}_unit{unit}/shortcut/conv", "layer{stage}.{unit-1}.downsample.0"),
        ("stage{stage}_unit{unit}/shortcut/norm", "layer{stage}.{unit-1}.downsample.1"),
        ("head", "fc"),
    ),
    pictures=TORCHVISION,
)

# timm.models.resnetv2 with batch norm. Only its bottleneck units are the same as ours, because the
# first shortcut of its basic units starts at another place.
TIMM_RESNETV2 = Family(
    library="timm",
    allowed={
        **TORCHVISION_RESNET.allowed,
        "order": ("full_pre",),
        "pool_first": (True,),
        "block": ("bottleneck",),
    },
    layer_names=(
        ("stem_conv", "stem.conv"),
        ("stem_norm", "stages.0.blocks.0.norm1"),
        ("stage{stage}_unit{unit}/conv{i}", "stages.{stage-1}.blocks.{unit-1}.conv{i}"),
        ("stage{stage}_unit{unit}/norm{i}", "stages.{stage-1}.blocks.{unit-1}.norm{i}"),
        (
            "stage{stage}_unit{unit}/shortcut/conv",
            "stages.{stage-1}.blocks.{unit-1}.downsample.conv",
        ),
        ("final_norm", "norm"),
        ("head", "head.fc"),
    ),
    pictures=TIMM_PREACTIVATION,
    head_is_conv=True,
)

# github.com/akamaster/pytorch_resnet_cifar10
CIFAR_RESNET = Family(
    library="pytorch_resnet_cifar10",
    allowed={
        "order": ("post",),
        "block": ("basic",),
        "shortcut": ("zero_pad", "projection"),
        "widening": (1,),
        "squeeze_excitation": (None,),
        "stochastic_depth": (0.0,),
    },
    layer_names=(
        ("stem_conv", "conv1"),
        ("stem_norm", "bn1"),
        ("stage{stage}_unit{unit}/conv{i}", "layer{stage}.{unit-1}.conv{i}"),
        ("stage{stage}_unit{unit}/norm{i}", "layer{stage}.{unit-1}.bn{i}"),
        ("stage{stage}_unit{unit}/shortcut/conv", "layer{stage}.{unit-1}.shortcut.0"),
        ("stage{stage}_unit{unit}/shortcut/norm", "layer{stage}.{unit-1}.shortcut.1"),
        ("head", "linear"),
    ),
    pictures=CIFAR,
    zeros_on_both_sides=True,
)

# torchvision.models.densenet. Its stem is that of our imagenet layout. Tensors of our cifar layout
# fit such a network if its conv0 is made 3x3 and its norm0, relu0 and pool0 are removed.
TORCHVISION_DENSENET = Family(
    library="torchvision",
    allowed={"bottleneck": (True,), "compression": (0.5,)},
    layer_names=(
        ("stem_conv", "features.conv0"),
        ("stem_norm", "features.norm0"),
        (
            "block{block}_layer{layer}/conv{i}",
            "features.denseblock{block}.denselayer{layer}.conv{i}",
        ),
        (
            "block{block}_layer{layer}/norm{i}",
            "features.denseblock{block}.denselayer{layer}.norm{i}",
        ),
        ("transition{i}/conv", "features.transition{i}.conv"),
        ("transition{i}/norm", "features.transition{i}.norm"),
        ("final_norm", "features.norm5"),
        ("head", "classifier"),
    ),
    pictures=TORCHVISION,
)


def family_of(config: Model) -> Family:
    """The family of a resolved declaration.

    Raises `UsageError` if no other library has this network; the message names the field.
    """
    if isinstance(config, Custom) or getattr(config, "unit", None) is not None:
        raise UsageError("no other library has a network with classes of your own")
    if isinstance(config, DenseNet):
        family = TORCHVISION_DENSENET
    elif config.layout == "cifar":
        family = CIFAR_RESNET
    else:
        family = TIMM_RESNETV2 if config.order == "full_pre" else TORCHVISION_RESNET
    for field, allowed in family.allowed.items():
        value = getattr(config, field)
        if field == "stochastic_depth" and not getattr(config, "scales_branches", False):
            continue  # by picture, the trained network computes the same without it
        if value not in allowed:
            raise UsageError(
                f"{type(config).__name__}.{field} is {value!r}, and {family.library} has these "
                f"networks only with {' or '.join(map(repr, allowed))}"
            )
    return family


def newest_name(name: str) -> str:
    """The newest name of a tensor; older files of torchvision's DenseNets have norm.1 for norm1."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
