"""Data sets described, and small ones read whole into memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from resflax.data.pictures import BadPicture, decode
from resflax.data.prepared import files_of, open_set, set_features
from resflax.data.records import CHANNELS, HELD_OUT_SEED, SplitName, count_classes, open_records
from resflax.data.stream import InOrder
from resflax.declarations.checks import refuse
from resflax.declarations.data import TFDS, Data, Streamed
from resflax.errors import UsageError

Progress = Callable[[Sequence[int], str], Iterable[int]]
"""Wraps a sequence of chunks, described by a text, to show how far its reader is."""

_CHUNK = 1000


@dataclass(frozen=True)
class Split:
    """Examples in memory."""

    images: np.ndarray
    """(N, H, W, C) uint8."""
    labels: np.ndarray
    """(N,) int32."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: np.ndarray) -> "Split":
        return Split(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """What an experiment learns from and is measured on."""

    train: Split
    validation: Split | None
    """Held out of the training split, if the declaration asks for it."""
    test: Split
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


@dataclass(frozen=True)
class Facts:
    """What a set's own description says, before any picture is read."""

    name: str
    num_classes: int
    height: int | None
    """None where the pictures may differ in size; so `width`."""
    width: int | None
    channels: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C). Raises `UsageError` where the pictures may differ in size."""
        if self.height is None or self.width is None:
            raise UsageError(f"the pictures of {self.name} have no one size that is declared")
        return self.height, self.width, self.channels


# Of sets that need not be at hand to be described.
_KNOWN = {
    "digits": Facts("digits", 10, 8, 8, 1),
    "cifar10": Facts("cifar10", 10, 32, 32, 3),
    "cifar100": Facts("cifar100", 100, 32, 32, 3),
    "imagenet2012": Facts("imagenet2012", 1000, None, None, 3),
}


def _no_progress(chunks: Sequence[int], text: str) -> Iterable[int]:
    return chunks


def describe(data: Data) -> Facts:
    """The set's class count and picture shape.

    Sets that every installation knows need not be prepared. Raises `UsageError` if there is no
    such set, or none with a picture and a class label.
    """
    if isinstance(data, Streamed):
        classes = _known_classes(data) or count_classes(data)
        return Facts(data.name, classes, data.image_size, data.image_size, CHANNELS)
    known = _KNOWN.get(data.name)
    if known is not None and data.data_dir is None:
        return known
    builder = open_set(data)
    image, label = set_features(data, builder)
    height, width, channels = image.shape
    return Facts(data.name, label.num_classes, height, width, channels or 3)


def _known_classes(data: Data) -> int | None:
    known = _KNOWN.get(data.name)
    return known.num_classes if known is not None and data.data_dir is None else None


def training_examples(data: Data) -> int:
    """Examples to train on. Raises `UsageError` if the set is not prepared, or cannot be used."""
    if isinstance(data, Streamed):
        return len(open_records(data).train)
    builder = open_set(data)
    set_features(data, builder)
    return int(builder.info.splits[data.train_split].num_examples) - data.validation


def load(data: TFDS, progress: Progress = _no_progress) -> Dataset:
    """Reads the splits that `data` declares.

    Raises `UsageError` for a missing or unsuitable set, and for pictures or labels that do not
    fit: the message names the split and the example.
    """
    builder = open_set(data)
    _, label = set_features(data, builder)
    train, validation = _hold_out(_read(data, builder, "train_split", progress), data.validation)
    test = _read(data, builder, "test_split", progress)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"{data.name}: training pictures are {train.images.shape[1:]} and test pictures "
            f"{test.images.shape[1:]}; they must have one shape"
        )
    return Dataset(train, validation, test, label.num_classes)


def load_split(data: Data, split: SplitName, progress: Progress = _no_progress) -> Split:
    """Reads one of the splits that `load` gives. Raises `UsageError` as it does.

    Of streamed data there is too much to be read whole: see `first_pictures`.
    """
    if isinstance(data, Streamed):
        raise UsageError(f"{data.name} is too large to be read whole")
    builder = open_set(data)
    set_features(data, builder)
    if split == "test":
        return _read(data, builder, "test_split", progress)
    train, validation = _hold_out(_read(data, builder, "train_split", progress), data.validation)
    if split == "train":
        return train
    if validation is None:
        refuse(data, "validation", "there are no held-out examples to read")
    return validation


def first_pictures(data: Data, split: SplitName, count: int) -> Split:
    """The first pictures of a split, as tests show them; all if there are fewer.

    Raises `UsageError` if they cannot be read.
    """
    if not isinstance(data, Streamed):
        whole = load_split(data, split)
        return whole[np.arange(min(count, len(whole)))]
    opened = open_records(data)
    test = InOrder(opened.split(data, split), data, opened.num_classes)
    numbers = range(min(count, len(test.records)))
    found = [test.picture(number, test.read(number)) for number in numbers]
    good = [one for one in found if not one.bad]
    if not good:
        raise UsageError(f"none of the first {len(found)} pictures of {split} can be read")
    labels = np.array([one.labels for one in good], np.int32)
    return Split(np.stack([one.images for one in good]), labels)


def _hold_out(train: Split, count: int) -> tuple[Split, Split | None]:
    """The examples to train on and, if `count` is not 0, those to choose by."""
    if count == 0:
        return train, None
    order = np.random.default_rng(HELD_OUT_SEED).permutation(len(train))
    held_out, kept = np.split(order, [count])
    return train[np.sort(kept)], train[np.sort(held_out)]


def _read(data: TFDS, builder: Any, field: str, progress: Progress) -> Split:
    split = getattr(data, field)
    encoded = {data.image_key: tfds.decode.SkipDecoding()}
    with files_of(data, split):
        source = builder.as_data_source(split, decoders=encoded)
        labels = np.empty(len(source), np.int32)
    channels = builder.info.features[data.image_key].shape[-1] or 3
    images: np.ndarray | None = None
    starts = range(0, len(source), _CHUNK)
    for start in progress(starts, f"reading {data.name} {split}"):
        chosen = range(start, min(start + _CHUNK, len(source)))
        with files_of(data, split):
            examples = source.__getitems__(list(chosen))
        for index, example in zip(chosen, examples, strict=True):
            where = f"{data.name}, {split}, example {index}"
            try:
                image = decode(example[data.image_key], channels)
            except BadPicture as error:
                raise UsageError(f"{where}: its picture cannot be decoded ({error})") from None
            if images is None:
                images = np.empty((len(source), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UsageError(
                    f"{where}: its picture is {image.shape}, the first one {images.shape[1:]}; "
                    "a set kept in memory needs one size"
                )
            images[index] = image
            labels[index] = example[data.label_key]
    assert images is not None  # empty splits were refused
    classes = builder.info.features[data.label_key].num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise UsageError(
            f"{data.name}, {split}, example {wrong[0]}: its label is {labels[wrong[0]]}; "
            f"it must be at least 0 and below {classes}"
        )
    return Split(images, labels)
