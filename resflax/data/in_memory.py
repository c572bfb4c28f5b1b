"""Small data sets, read whole into memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from resflax.data.crops import central_square
from resflax.data.draws import permutation
from resflax.data.encoded import HELD_OUT_SEED, SplitName, check_label, open_splits, parse
from resflax.data.faults import patiently, read_example, reason_of_damage
from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.decoding import decode
from resflax.data.prepared_sets import label_feature, naming_split, open_prepared_set
from resflax.data.progress import ShowProgress, show_nothing
from resflax.data.records import Records
from resflax.declarations.checks import refuse
from resflax.declarations.data import TFDS, Data, Streamed
from resflax.errors import UsageError

_CHUNK = 1000  # number of examples between two reports of the progress


@dataclass(frozen=True)
class Split:
    """The examples of a split in the host's memory."""

    images: np.ndarray
    """(N, H, W, C) uint8."""
    labels: np.ndarray
    """(N,) int32."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: np.ndarray) -> "Split":
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """The splits of an experiment's data in the host's memory."""

    train: Split
    validation: Split | None
    """Examples held out of the training split; None if the declaration holds out none."""
    test: Split
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def load_dataset(data: TFDS, progress: ShowProgress = show_nothing) -> Dataset:
    """Reads the splits that `data` declares.

    Raises `UsageError` if the set is missing or unsuitable, or if a picture or label does not fit;
    the message then names the split and the example.
    """
    builder = open_prepared_set(data)
    num_classes = label_feature(data, builder).num_classes
    all_train = _read(data, builder, data.train_split, progress)
    train, validation = _hold_out(all_train, data.validation)
    test = _read(data, builder, data.test_split, progress)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"{data.name}: training pictures are {train.images.shape[1:]} and test pictures "
            f"{test.images.shape[1:]}; they must have one shape"
        )
    return Dataset(train, validation, test, num_classes)


def load_split(data: Data, split: SplitName, progress: ShowProgress = show_nothing) -> Split:
    """Reads one of the splits that `load_dataset` returns. Raises `UsageError` as it does.

    Streamed data is refused, because it is too large; for it, there is `first_pictures`.
    """
    if isinstance(data, Streamed):
        raise UsageError(f"{data.name} is too large to be read whole")
    builder = open_prepared_set(data)
    label_feature(data, builder)  # checks the set
    if split == "test":
        return _read(data, builder, data.test_split, progress)
    all_train = _read(data, builder, data.train_split, progress)
    train, validation = _hold_out(all_train, data.validation)
    if split == "train":
        return train
    if validation is None:
        refuse(data, "validation", "there are no held-out examples to read")
    return validation


def first_pictures(data: Data, split: SplitName, count: int) -> Split:
    """The first `count` pictures of a split, cropped as in evaluation; all if there are fewer.

    Damaged streamed pictures are left out. Raises `UsageError` if none can be read, and
    `SystemFault` if the system cannot read one.
    """
    return _some_pictures(data, split, lambda length: np.arange(min(count, length)))


def spread_pictures(data: Data, split: SplitName, count: int) -> Split:
    """`count` pictures of a split, or all if there are fewer, taken at even distances.

    So the classes are as frequent as in the split, even if it is sorted by class, as folders are.
    Otherwise this is `first_pictures`.
    """

    def places(length: int) -> np.ndarray:
        return np.arange(min(count, length)) * length // min(count, length)

    return _some_pictures(data, split, places)


def _some_pictures(data: Data, split: SplitName, choose: Callable[[int], np.ndarray]) -> Split:
    """The pictures at the places that are chosen for the length of the split."""
    if not isinstance(data, Streamed):
        loaded = load_split(data, split)
        return loaded[choose(len(loaded))]
    splits = open_splits(data)
    examples = splits.split(data, split)
    images, labels, places = [], [], choose(len(examples)).tolist()
    for index in places:
        read = read_example(examples, index)
        if isinstance(read, str):
            continue
        encoded, label = read
        try:
            check_label(label, splits.num_classes)
            images.append(central_square(encoded, data, data.image_size))
            labels.append(label)
        except Exception as error:  # a damaged file can raise anything
            reason_of_damage(error, examples.name(index))
    if not images:
        raise UsageError(f"none of the {len(places)} pictures of {split} can be read")
    return Split(np.stack(images), np.array(labels, np.int32))


def _hold_out(train: Split, count: int) -> tuple[Split, Split | None]:
    """Divides the training examples into those to train on and `count` held-out ones.

    The held-out ones are None if `count` is 0.
    """
    if count == 0:
        return train, None
    order = permutation(len(train), HELD_OUT_SEED)
    held_out, kept = np.split(order, [count])
    return train[np.sort(kept)], train[np.sort(held_out)]


def _read(data: TFDS, builder: Any, split: str, progress: ShowProgress) -> Split:
    with naming_split(data, split):
        records = Records(builder.info.splits[split].file_instructions)
    labels = np.empty(len(records), np.int32)
    channels = builder.info.features[data.image_key].shape[-1] or 3
    images: np.ndarray | None = None
    starts = range(0, len(records), _CHUNK)
    for start in progress(starts, f"reading {data.name} {split}"):
        for index in range(start, min(start + _CHUNK, len(records))):
            where = f"{data.name}, {split}, example {index}"
            with naming_split(data, split):
                record = patiently(partial(records.__getitem__, index), partial(str, where))
                encoded, label = parse(record, data)
            try:
                image = decode(encoded, channels)
            except BadPicture as error:
                raise UsageError(f"{where}: its picture cannot be decoded ({error})") from None
            if images is None:
                images = np.empty((len(records), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UsageError(
                    f"{where}: its picture is {image.shape}, the first one {images.shape[1:]}; "
                    "a set kept in memory needs one size"
                )
            images[index] = image
            labels[index] = label
    assert images is not None, "empty splits were refused"
    classes = builder.info.features[data.label_key].num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise UsageError(
            f"{data.name}, {split}, example {wrong[0]}: its label is {labels[wrong[0]]}; "
            f"it must be at least 0 and below {classes}"
        )
    return Split(images, labels)
