"""How other libraries prepare the pictures for their networks, where they evaluate them."""

from typing import Literal, NamedTuple


class Pictures(NamedTuple):
    """The preparation of pictures that a family of networks expects.

    A network gets (x - mean) / std for x in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """One number for each channel."""
    interpolation: Literal["bilinear", "bicubic"] | None
    """How Pillow resizes a picture; None: it is not resized."""
    crop_fraction: float
    """The side of the central crop, as a part of the shorter side of the resized picture."""
    source: str
    """It says whose mean and std these are, and who uses them."""


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# torchvision/transforms/_presets.py, ImageClassification: resized to 256, cropped to 224. Its newer
# weights (V2) resize to 232. timm's weights for the same networks have the same mean and std, but
# for resnet34.ra4_e3600_r224_in1k, which has 0.5; their pictures are often resized bicubically and
# cropped to 0.95.
TORCHVISION = Pictures(
    mean=_IMAGENET_MEAN,
    std=_IMAGENET_STD,
    interpolation="bilinear",
    crop_fraction=224 / 256,
    source="ImageNet's, as torchvision has them",
)

# timm/models/resnetv2.py, _cfg and resnetv2_50.a1h_in1k: IMAGENET_INCEPTION_MEAN and _STD.
TIMM_PREACTIVATION = Pictures(
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    crop_fraction=0.95,
    source="Inception's, as timm has them for its pre-activation networks",
)

# trainer.py of github.com/akamaster/pytorch_resnet_cifar10. Other CIFAR networks were often trained
# with the statistics of CIFAR-10: mean (0.4914, 0.4822, 0.4465), std (0.2023, 0.1994, 0.2010).
CIFAR = Pictures(
    mean=_IMAGENET_MEAN,
    std=_IMAGENET_STD,
    interpolation=None,
    crop_fraction=1.0,
    source="ImageNet's, as pytorch_resnet_cifar10 has them (other trainers often have CIFAR's own)",
)
