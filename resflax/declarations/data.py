"""Data sets as declarations: which prepared TFDS set, and what is done to its pictures."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import check_types, refuse


@dataclass(frozen=True)
class TFDS:
    """Any prepared TensorFlow Datasets set (array_record) with an image and a label."""

    name: str
    """The set's name, as in the TFDS catalogue: `name`, `name/config` or `name:version`."""

    data_dir: str | None = None
    """Folder that holds NAME/VERSION/. None: where TFDS keeps its sets (TFDS_DATA_DIR)."""

    train_split: str = "train"
    """Split to train on."""

    test_split: str = "test"
    """Split to test on; never used to choose anything."""

    image_key: str = "image"
    """Feature that holds the picture."""

    label_key: str = "label"
    """Feature that holds the class."""

    validation: int = 0
    """Examples held out of the training split for choosing (a fixed random sample;
    the CIFAR papers hold out 5,000). 0: none."""

    normalization: Literal["channel", "pixel"] = "channel"
    """channel: subtract each channel's mean, divide by its standard deviation (Huang et al. 2017);
    pixel: subtract the mean picture (He et al. 2015). Statistics of the training examples."""

    crop_padding: int = 0
    """Training: pad each side by this many pixels, then crop back at a random place. 0: no crop."""

    flip: bool = False
    """Training: mirror each picture left to right with probability 1/2."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        for field in ("name", "train_split", "test_split", "image_key", "label_key"):
            if not getattr(self, field).strip():
                refuse(self, field, "it must not be empty")
        if self.data_dir is not None and not self.data_dir.strip():
            refuse(self, "data_dir", "it must be a folder, or None for the default one")
        if self.train_split == self.test_split:
            refuse(self, "test_split", "it must differ from train_split")
        if self.validation < 0:
            refuse(self, "validation", "it must be at least 0")
        if not 0 <= self.crop_padding < 2**16:
            refuse(self, "crop_padding", "it must be at least 0 and below 2**16")


@dataclass(frozen=True)
class Digits(TFDS):
    """scikit-learn's 1,797 handwritten digits (8x8, gray, 10 classes), prepared on first use."""

    name: str = "digits"
    crop_padding: int = 1


@dataclass(frozen=True)
class CIFAR10(TFDS):
    """CIFAR-10 with the standard augmentation: 4-pixel pad and crop, mirror."""

    name: str = "cifar10"
    crop_padding: int = 4
    flip: bool = True


@dataclass(frozen=True)
class CIFAR100(TFDS):
    """CIFAR-100 with the standard augmentation: 4-pixel pad and crop, mirror."""

    name: str = "cifar100"
    crop_padding: int = 4
    flip: bool = True


Data = Digits | CIFAR10 | CIFAR100 | TFDS
