"""What is done to training pictures and labels on the device, as a declaration."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import check_types, refuse

Policy = Literal["none", "rand_augment", "rand_augment_increasing"]

_FRACTIONS = (
    "policy_probability",
    "brightness",
    "contrast",
    "saturation",
    "random_erasing",
    "mix_probability",
    "mix_switch_probability",
)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training pictures and labels; the default changes nothing.

    They come in this order: the policy, colour jitter, lighting, then what the data set declares
    (normalisation, crop, mirror), random erasing, and mixup or cutmix. An example's part of chance
    depends on the seed, the step and its place in the global batch, not on the devices.
    """

    policy: Policy = "none"
    """Operations drawn from a table. rand_augment: the 14 of RandAugment (Cubuk et al. 2020,
    arXiv 1909.13719, section 3), with AutoAugment's ranges (Cubuk et al. 2019, arXiv 1805.09501,
    Table 6); rand_augment_increasing: timm's 15, all stronger with magnitude (its `inc1`)."""

    policy_layers: int = 2
    """N: operations for each picture, drawn with replacement."""

    policy_magnitude: float = 9.0
    """M: strength of the operations, from 0 to 10."""

    policy_magnitude_std: float = 0.0
    """Standard deviation of the magnitude, which is drawn for each operation (timm: `mstd`)."""

    policy_probability: float = 1.0
    """Probability that a drawn operation is done (the paper: 1, timm: 0.5)."""

    brightness: float = 0.0
    """Colour jitter as in fb.resnet.torch, in random order: blend with black,
    x a + (1 - a) black, a uniform in 1 - brightness to 1 + brightness."""

    contrast: float = 0.0
    """Blend with the picture's mean gray, likewise."""

    saturation: float = 0.0
    """Blend with the gray picture, likewise. For pictures of 3 channels."""

    lighting: float = 0.0
    """Standard deviation of the noise along the principal components of ImageNet's colours
    (Krizhevsky et al. 2012, section 4.1: 0.1). For pictures of 3 channels."""

    random_erasing: float = 0.0
    """Probability of erasing a random rectangle, 2 % to 1/3 of the picture, to the mean colour
    (Zhong et al. 2020, arXiv 1708.04896; timm)."""

    mixup: float = 0.0
    """Alpha of mixup (Zhang et al. 2018, arXiv 1710.09412): one weight for each batch, drawn from
    Beta(alpha, alpha); places 2i and 2i + 1 of the batch are mixed with each other. 0: none."""

    cutmix: float = 0.0
    """Alpha of cutmix (Yun et al. 2019, arXiv 1905.04899), likewise: a rectangle comes from the
    partner, and the weight is the share of the picture that is left. 0: none."""

    mix_probability: float = 1.0
    """Probability that a batch is mixed."""

    mix_switch_probability: float = 0.5
    """Of cutmix in a mixed batch, where there is mixup too."""

    label_smoothing: float = 0.0
    """Share of the label that is spread evenly over all classes
    (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""

    target_threshold: float | None = None
    """Targets above it become 1 and others 0, after mixing and smoothing, so that each class of a
    mixed picture counts in full (ResNet Strikes Back: 0.2, with binary cross-entropy). None: left
    as they are."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if not 1 <= self.policy_layers <= 10:
            refuse(self, "policy_layers", "it must be at least 1 and at most 10")
        if not 0 <= self.policy_magnitude <= 10:
            refuse(self, "policy_magnitude", "it must be at least 0 and at most 10")
        for field in ("policy_magnitude_std", "lighting", "mixup", "cutmix"):
            if getattr(self, field) < 0:
                refuse(self, field, "it must be at least 0")
        for field in _FRACTIONS:
            if not 0 <= getattr(self, field) <= 1:
                refuse(self, field, "it must be at least 0 and at most 1")
        if not 0 <= self.label_smoothing < 1:
            refuse(self, "label_smoothing", "it must be at least 0 and below 1")
        if self.target_threshold is not None and not 0 <= self.target_threshold < 1:
            refuse(self, "target_threshold", "it must be at least 0 and below 1, or None")

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with each other, and so come in pairs."""
        return bool(self.mixup or self.cutmix)

    @property
    def softens(self) -> bool:
        """Whether a target can be anything but one class."""
        return self.mixes or self.label_smoothing > 0 or self.target_threshold is not None

    def check_channels(self, channels: int) -> None:
        """Raises `UsageError` if pictures of so many channels cannot have what is declared."""
        for field in ("saturation", "lighting"):
            if getattr(self, field) and channels != 3:
                refuse(self, field, f"it is for pictures of 3 channels, and these have {channels}")
        for field in ("policy", "contrast"):
            if getattr(self, field) not in ("none", 0) and channels not in (1, 3):
                refuse(self, field, f"it needs 1 or 3 channels, and the pictures have {channels}")
