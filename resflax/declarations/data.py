"""Data sets as declarations: where the pictures are, and what is done to them."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import check_types, refuse

LARGEST_SIZE = 4096
"""Of pictures, in pixels a side."""


@dataclass(frozen=True)
class Prepared:
    """What names a prepared TensorFlow Datasets set (array_record) with an image and a label."""

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


@dataclass(frozen=True)
class TFDS(Prepared):
    """Any prepared set whose pictures have one size and fit into the devices' memory."""

    normalization: Literal["channel", "pixel"] = "channel"
    """channel: subtract each channel's mean, divide by its standard deviation (Huang et al. 2017);
    pixel: subtract the mean picture (He et al. 2015). Statistics of the training examples."""

    crop_padding: int = 0
    """Training: pad each side by this many pixels, then crop back at a random place. 0: no crop."""

    flip: bool = False
    """Training: mirror each picture left to right with probability 1/2."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
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


@dataclass(frozen=True)
class Streamed(Prepared):
    """Any prepared set, of any size, read and decoded while the training goes.

    Pictures may differ in size; gray ones become RGB. Channels are normalised by the constants of
    ImageNet (mean 0.485, 0.456, 0.406 and standard deviation 0.229, 0.224, 0.225 of 1), as for the
    networks that torchvision and timm publish, so that nothing has to be read in advance.
    """

    image_size: int = 224
    """Height and width of what the network sees."""

    training_sizes: tuple[int, ...] = ()
    """Progressive resizing: the sizes in equal parts of the training, one after another. Empty:
    `image_size` throughout. Tests are made at `image_size`."""

    crop: Literal["random_resized", "scale", "center"] = "random_resized"
    """Training. random_resized: 8 to 100 % of the picture's area in proportions of 3/4 to 4/3,
    resized (Szegedy et al. 2015, section 6); scale: shorter side drawn from `shorter_side`, then a
    crop at a random place (He et al. 2015, section 3.4); center: as in tests."""

    shorter_side: tuple[int, ...] = (256, 480)
    """The least and the largest shorter side of `crop="scale"` at `image_size`."""

    flip: bool = True
    """Training: mirror each picture left to right with probability 1/2."""

    test_shorter_side: int = 256
    """Tests: the shorter side is resized to this, and the centre cropped."""

    bad_pictures: int = 10
    """Examples of a split that may be passed over because they cannot be read or decoded: in
    training others take their places, tests leave them out. One more ends the run."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if not 1 <= self.image_size <= LARGEST_SIZE:
            refuse(self, "image_size", f"it must be at least 1 and at most {LARGEST_SIZE}")
        if any(not 1 <= size <= LARGEST_SIZE for size in self.training_sizes):
            refuse(self, "training_sizes", f"each must be at least 1 and at most {LARGEST_SIZE}")
        for field in ("shorter_side", "test_shorter_side"):
            found = getattr(self, field)
            sides = found if isinstance(found, tuple) else (found,)
            if any(not self.image_size <= side <= LARGEST_SIZE for side in sides):
                refuse(
                    self,
                    field,
                    f"it must be at least image_size, {self.image_size}, and at most "
                    f"{LARGEST_SIZE}",
                )
        if len(self.shorter_side) != 2 or self.shorter_side[0] > self.shorter_side[1]:
            refuse(self, "shorter_side", "it must be two sizes, the smaller one first")
        if not 0 <= self.bad_pictures < 2**31:
            refuse(self, "bad_pictures", "it must be at least 0 and below 2**31")


@dataclass(frozen=True)
class ImageNet(Streamed):
    """ImageNet's 1,000 classes (ILSVRC 2012), tested on its 50,000 validation pictures."""

    name: str = "imagenet2012"
    test_split: str = "validation"


@dataclass(frozen=True)
class ImageFolder(Streamed):
    """A folder of pictures, a folder for each class: DATA_DIR/train/CLASS/*.jpg, DATA_DIR/val/...

    Classes are numbered in the order of their names in the training split. The two keys mean
    nothing here.
    """

    name: str = "folder"
    test_split: str = "val"


Data = Digits | CIFAR10 | CIFAR100 | TFDS | ImageNet | ImageFolder | Streamed
