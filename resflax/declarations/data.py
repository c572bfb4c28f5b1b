"""Declarations of data sets: where the pictures are, and how they are normalised and cropped."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import added, check_types, refuse

LARGEST_SIZE = 4096
"""Largest declared height or width of pictures, in pixels."""


Resizing = Literal["opencv", "pillow_bilinear", "pillow_bicubic"]
"""Ways of resizing pictures."""


@dataclass(frozen=True)
class Prepared:
    """A prepared set of TensorFlow Datasets (TFDS) whose examples have an image and a label.

    The set must be stored in the array_record format.
    """

    name: str
    """Name of the set, as in the TFDS catalogue: `name`, `name/config` or `name:version`."""

    data_dir: str | None = None
    """Folder that holds NAME/VERSION/. None: the folder in which TFDS keeps its sets
    (TFDS_DATA_DIR)."""

    train_split: str = "train"
    """Split to train on."""

    test_split: str = "test"
    """Split to test on. It is never used to choose anything."""

    image_key: str = "image"
    """Feature that holds the picture."""

    label_key: str = "label"
    """Feature that holds the class."""

    validation: int = 0
    """Number of training examples that are held out, so that choices can be based on the error on
    them. They are a fixed random sample. The CIFAR papers hold out 5,000. 0: none."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        for field in ("name", "train_split", "test_split", "image_key", "label_key"):
            if not getattr(self, field).strip():
                refuse(self, field, "it must not be empty")
        if self.data_dir is not None and not self.data_dir.strip():
            refuse(self, "data_dir", "it must be a folder, or None for the default folder")
        if self.train_split == self.test_split:
            refuse(self, "test_split", "it must differ from train_split")
        if self.validation < 0:
            refuse(self, "validation", "it must be at least 0")


@dataclass(frozen=True)
class TFDS(Prepared):
    """Any prepared set whose pictures have the same size and fit into the memory of each device."""

    normalization: Literal["channel", "pixel"] = "channel"
    """Normalisation by statistics of the training examples. channel: subtract each channel's mean
    and divide by its standard deviation (Huang et al. 2017); pixel: subtract the mean picture
    (He et al. 2015)."""

    crop_padding: int = 0
    """In training, pad each side by this many pixels, then crop a box of the picture's own size at
    a random place. 0: no crop."""

    flip: bool = False
    """In training, mirror each picture left to right with probability 1/2."""

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
    """CIFAR-10 with the standard augmentation: pad by 4 pixels, crop and mirror."""

    name: str = "cifar10"
    crop_padding: int = 4
    flip: bool = True


@dataclass(frozen=True)
class CIFAR100(TFDS):
    """CIFAR-100 with the standard augmentation: pad by 4 pixels, crop and mirror."""

    name: str = "cifar100"
    crop_padding: int = 4
    flip: bool = True


@dataclass(frozen=True)
class Streamed(Prepared):
    """Any prepared set, however large, which is read and decoded while the network trains.

    Pictures may differ in size, and gray ones become RGB. Channels are normalised by ImageNet's
    constants, as in torchvision and timm, so that the set need not be read in advance: mean 0.485,
    0.456, 0.406 and standard deviation 0.229, 0.224, 0.225 of values from 0 to 1.
    """

    image_size: int = 224
    """Height and width of the pictures that the network sees."""

    training_sizes: tuple[int, ...] = ()
    """Progressive resizing: the training is divided into as many equal parts as there are sizes,
    and each part uses pictures of one size, in order. Tests use `image_size`. Empty: training uses
    `image_size` too."""

    crop: Literal["random_resized", "scale", "center"] = "random_resized"
    """Crop in training. random_resized: a box of 8 to 100 % of the picture's area with proportions
    of 3/4 to 4/3, resized (Szegedy et al. 2015, section 6); scale: the picture is resized to a
    random shorter side and cropped at a random place (He et al. 2015, section 3.4); center: the
    centre, as in tests."""

    shorter_side: tuple[int, ...] = (256, 480)
    """Smallest and largest shorter side for `crop="scale"`, at `image_size`."""

    flip: bool = True
    """In training, mirror each picture left to right with probability 1/2."""

    test_shorter_side: int = 256
    """In tests, the picture is resized to this shorter side and its centre is cropped."""

    bad_pictures: int = 10
    """Number of examples of a split that may be unreadable or damaged. In training, other examples
    take their places; tests leave them out. One more bad example ends the run."""

    resize: Resizing = added("opencv")
    """How pictures are resized, in training and in tests. opencv: fast; a new pixel is the mean of
    its area, or linear between its neighbours, and large JPEGs are decoded at a reduced scale.
    pillow_bilinear, pillow_bicubic: by Pillow, with antialiasing and from the whole picture; the
    crops of tests are then, to the bit, those of torchvision and timm, whose published weights
    expect them."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if not 1 <= self.image_size <= LARGEST_SIZE:
            refuse(self, "image_size", f"it must be at least 1 and at most {LARGEST_SIZE}")
        if any(not 1 <= size <= LARGEST_SIZE for size in self.training_sizes):
            refuse(self, "training_sizes", f"each must be at least 1 and at most {LARGEST_SIZE}")
        for field in ("shorter_side", "test_shorter_side"):
            value = getattr(self, field)
            sides = value if isinstance(value, tuple) else (value,)
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
    """A folder of pictures for each class: DATA_DIR/train/CLASS/*.jpg, DATA_DIR/val/CLASS/*.jpg.

    Classes are numbered in the order of their folders' names in the training split.
    `image_key` and `label_key` are not used.
    """

    name: str = "folder"
    """A name for the folder, which is part of what the run is."""
    data_dir: str | None = None
    """The folder that holds the folders of both splits."""
    test_split: str = "val"
    """Folder of the test pictures. They are never used to choose anything."""


Data = Digits | CIFAR10 | CIFAR100 | TFDS | ImageNet | ImageFolder | Streamed
