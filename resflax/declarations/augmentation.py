"""The declaration of how training pictures and labels are changed on the device."""

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
    """Random changes to training pictures and labels; the default changes nothing.

    The order is: the policy, colour jitter, lighting, the changes that the data set declares
    (normalisation, crop, mirror), random erasing, and mixup or cutmix. What is random for an
    example depends on the seed, the step and the example's place in the global batch, not on the
    devices.
    """

    policy: Policy = "none"
    """Random operations on each picture. none: no operations; rand_augment: operations drawn from
    the 14 of RandAugment (Cubuk et al. 2020, arXiv 1909.13719, section 3), with AutoAugment's
    ranges (Cubuk et al. 2019, arXiv 1805.09501, Table 6); rand_augment_increasing: operations drawn
    from timm's 15, all of which become stronger with the magnitude (timm: `inc1`)."""

    policy_layers: int = 2
    """N, the number of operations for each picture, which are drawn with replacement."""

    policy_magnitude: float = 9.0
    """M, the strength of the operations, from 0 to 10."""

    policy_magnitude_std: float = 0.0
    """Standard deviation of the magnitude, which is drawn for each operation (timm: `mstd`)."""

    policy_probability: float = 1.0
    """Probability that a drawn operation is applied (paper: 1, timm: 0.5)."""

    brightness: float = 0.0
    """Strength of the brightness jitter. A picture x becomes a x + (1 - a) y, where y is black and
    a is drawn uniformly from 1 - brightness to 1 + brightness. Brightness, contrast and saturation
    are changed in random order, as in fb.resnet.torch."""

    contrast: float = 0.0
    """Strength of the contrast jitter: as for brightness, but y is the picture's mean gray."""

    saturation: float = 0.0
    """Strength of the saturation jitter: as for brightness, but y is the picture in gray. For
    pictures of 3 channels."""

    lighting: float = 0.0
    """Standard deviation of the noise along the principal components of ImageNet's colours
    (Krizhevsky et al. 2012, section 4.1: 0.1). For pictures of 3 channels."""

    random_erasing: float = 0.0
    """Probability that a random rectangle of 2 % to 1/3 of the picture is set to the mean colour
    (Zhong et al. 2020, arXiv 1708.04896; timm)."""

    mixup: float = 0.0
    """Alpha of mixup (Zhang et al. 2018, arXiv 1710.09412). The pictures at places 2i and 2i + 1 of
    a batch are partners and are averaged, with a weight from Beta(alpha, alpha) that is drawn once
    for the whole batch. 0: no mixup."""

    cutmix: float = 0.0
    """Alpha of cutmix (Yun et al. 2019, arXiv 1905.04899). A rectangle of each picture is replaced
    by that of its partner, and the weight is the share of the picture that is left. 0: no
    cutmix."""

    mix_probability: float = 1.0
    """Probability that a batch is mixed."""

    mix_switch_probability: float = 0.5
    """Probability of cutmix in a mixed batch, if both mixup and cutmix are declared."""

    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes
    (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""

    target_threshold: float | None = None
    """Targets above this value become 1 and others 0, after mixing and smoothing. Each class of a
    mixed picture then counts in full (ResNet Strikes Back: 0.2, with binary cross-entropy). None:
    targets are not changed."""

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
        """Whether pictures are mixed in pairs."""
        return bool(self.mixup or self.cutmix)

    @property
    def softens(self) -> bool:
        """Whether targets can be anything other than 1 for one class and 0 for the others."""
        return self.mixes or self.label_smoothing > 0 or self.target_threshold is not None

    def check_channels(self, channels: int) -> None:
        """Raises `UsageError` if a declared change is not possible for this number of channels."""
        for field in ("saturation", "lighting"):
            if getattr(self, field) and channels != 3:
                refuse(self, field, f"it needs 3 channels, and the pictures have {channels}")
        for field in ("policy", "contrast"):
            if getattr(self, field) not in ("none", 0) and channels not in (1, 3):
                refuse(self, field, f"it needs 1 or 3 channels, and the pictures have {channels}")
