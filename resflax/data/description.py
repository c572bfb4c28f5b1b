"""Facts about a data set that are known before any picture is read."""

from dataclasses import dataclass

from resflax.data.encoded import CHANNELS, count_classes, open_splits
from resflax.data.prepared_sets import label_feature, open_prepared_set, picture_feature
from resflax.declarations.data import Data, Streamed
from resflax.errors import UsageError


@dataclass(frozen=True)
class DataFacts:
    """Number of classes and picture shape of a data set."""

    name: str
    num_classes: int
    height: int | None
    """Height of all pictures; height and width are None if the pictures may differ in size."""
    width: int | None
    channels: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (H, W, C). Raises `UsageError` if the pictures may differ in size."""
        if self.height is None or self.width is None:
            raise UsageError(f"the pictures of {self.name} do not have one declared size")
        return self.height, self.width, self.channels


# Sets whose facts are known even if they are not prepared.
_KNOWN = {
    "digits": DataFacts("digits", 10, 8, 8, 1),
    "cifar10": DataFacts("cifar10", 10, 32, 32, 3),
    "cifar100": DataFacts("cifar100", 100, 32, 32, 3),
    "imagenet2012": DataFacts("imagenet2012", 1000, None, None, 3),
}


def describe(data: Data) -> DataFacts:
    """The number of classes and the picture shape of a set.

    Well-known sets, such as CIFAR-10 and ImageNet, need not be prepared. Raises `UsageError` if
    another set is not prepared, or if it has no pictures with class labels.
    """
    known = _KNOWN.get(data.name) if data.data_dir is None else None
    if isinstance(data, Streamed):
        classes = known.num_classes if known is not None else count_classes(data)
        return DataFacts(data.name, classes, data.image_size, data.image_size, CHANNELS)
    if known is not None:
        return known
    builder = open_prepared_set(data)
    height, width, channels = picture_feature(data, builder).shape
    num_classes = label_feature(data, builder).num_classes
    return DataFacts(data.name, num_classes, height, width, channels or 3)


def training_examples(data: Data) -> int:
    """The number of examples to train on.

    Raises `UsageError` if the set is not prepared or cannot be used.
    """
    if isinstance(data, Streamed):
        return len(open_splits(data).train)
    builder = open_prepared_set(data)
    picture_feature(data, builder)  # checks the set
    return int(builder.info.splits[data.train_split].num_examples) - data.validation
