"""What other libraries call our layers: a table per family of networks.

A row is our path of a layer and their name of it. `{stage}`, `{unit}`, ... stand for our numbers,
which count from 1; `{unit-1}` is such a number counted from 0, as PyTorch's containers do.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from resflax.declarations.models import DenseNet, Model
from resflax.errors import UsageError


class Family(NamedTuple):
    """Networks that another library has too, and its names for their layers."""

    library: str
    """Whose names these are."""
    needs: Mapping[str, tuple[object, ...]]
    """Values that a declaration's fields may have: with others the same tensors would compute
    something else there, or have no name."""
    rows: tuple[tuple[str, str], ...]
    """Our path of a layer, their name of it."""
    head_is_conv: bool = False
    """Whether their classifier is a 1x1 convolution."""
    zeros_on_both_sides: bool = False
    """Whether their option A puts half of its zero channels before the others."""

    def their_name(self, ours: str) -> str:
        """Their name of the layer at our path. Raises `UsageError` if they have no such layer."""
        for path, name in self.rows:
            found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", path), ours)
            if found is not None:
                numbers = {key: int(number) for key, number in found.groupdict().items()}
                from_zero = {f"{key}-1": number - 1 for key, number in numbers.items()}
                return name.format_map(numbers | from_zero)
        raise UsageError(f"{self.library} has no name for this network's layer {ours}")


# torchvision.models.resnet ("v1.5"); timm.models.resnet has the same names.
TORCHVISION_RESNET = Family(
    library="torchvision",
    needs={
        "order": ("post",),
        "shortcut": ("projection",),
        "stride_on": ("3x3",),
        "stem": ("conv",),
        "squeeze_excitation": (None,),
        "stochastic_depth": (0.0,),
    },
    rows=(
        ("stem_conv", "conv1"),
        ("stem_norm", "bn1"),
        ("stage{stage}_unit{unit}/conv{i}", "layer{stage}.{unit-1}.conv{i}"),
        ("stage{stage}_unit{unit}/norm{i}", "layer{stage}.{unit-1}.bn{i}"),
        ("stage{stage}_unit{unit}/shortcut/conv", "layer{stage}.{unit-1}.downsample.0"),
        ("stage{stage}_unit{unit}/shortcut/norm", "layer{stage}.{unit-1}.downsample.1"),
        ("head", "fc"),
    ),
)

# timm.models.resnetv2 with batch norm. The first shortcut of its basic units starts elsewhere.
TIMM_RESNETV2 = Family(
    library="timm",
    needs={
        **TORCHVISION_RESNET.needs,
        "order": ("full_pre",),
        "pool_first": (True,),
        "block": ("bottleneck",),
    },
    rows=(
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
    head_is_conv=True,
)

# github.com/akamaster/pytorch_resnet_cifar10
CIFAR_RESNET = Family(
    library="pytorch_resnet_cifar10",
    needs={
        "order": ("post",),
        "block": ("basic",),
        "shortcut": ("zero_pad", "projection"),
        "squeeze_excitation": (None,),
        "stochastic_depth": (0.0,),
    },
    rows=(
        ("stem_conv", "conv1"),
        ("stem_norm", "bn1"),
        ("stage{stage}_unit{unit}/conv{i}", "layer{stage}.{unit-1}.conv{i}"),
        ("stage{stage}_unit{unit}/norm{i}", "layer{stage}.{unit-1}.bn{i}"),
        ("stage{stage}_unit{unit}/shortcut/conv", "layer{stage}.{unit-1}.shortcut.0"),
        ("stage{stage}_unit{unit}/shortcut/norm", "layer{stage}.{unit-1}.shortcut.1"),
        ("head", "linear"),
    ),
    zeros_on_both_sides=True,
)

# torchvision.models.densenet. Its stem is that of the imagenet layout; the tensors of the cifar
# layout fit one whose conv0 is 3x3 and whose norm0, relu0 and pool0 are taken out.
TORCHVISION_DENSENET = Family(
    library="torchvision",
    needs={"bottleneck": (True,), "compression": (0.5,)},
    rows=(
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
)


def family_of(config: Model) -> Family:
    """The family of a resolved declaration.

    Raises `UsageError` if no other library has this network; the message says what it lacks.
    """
    if isinstance(config, DenseNet):
        family = TORCHVISION_DENSENET
    elif config.layout == "cifar":
        family = CIFAR_RESNET
    else:
        family = TIMM_RESNETV2 if config.order == "full_pre" else TORCHVISION_RESNET
    for field, values in family.needs.items():
        value = getattr(config, field)
        if value not in values:
            raise UsageError(
                f"{type(config).__name__}.{field} is {value!r}, and {family.library} has such "
                f"networks only with {' or '.join(map(repr, values))}"
            )
    return family


def canonical_name(name: str) -> str:
    """Their newest name of a tensor: older torchvision DenseNets say norm.1 for norm1."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
