"""Prepared TFDS sets, read whole into memory: no TensorFlow, no network."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import read_only_builder

from resflax.cache import cache_folder
from resflax.data import digits
from resflax.declarations.checks import refuse
from resflax.declarations.data import TFDS
from resflax.errors import UsageError

SplitName = Literal["train", "validation", "test"]

Progress = Callable[[Sequence[int], str], Iterable[int]]
"""Wraps a sequence of chunks, described by a text, to show how far its reader is."""

_CHUNK = 1000
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names, by number of channels
_HELD_OUT_SEED = 0  # of the data, not of the run: every run holds out the same examples


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


def describe(data: TFDS) -> Facts:
    """The set's class count and picture shape.

    Sets that every installation knows need not be prepared. Raises `UsageError` if there is no
    such set, or none with a picture and a class label.
    """
    known = _KNOWN.get(data.name)
    if known is not None and data.data_dir is None:
        return known
    builder = _open(data)
    image, label = _features(data, builder)
    height, width, channels = image.shape
    return Facts(data.name, label.num_classes, height, width, channels or 3)


def training_examples(data: TFDS) -> int:
    """Examples to train on. Raises `UsageError` if the set is not prepared, or cannot be used."""
    builder = _open(data)
    _features(data, builder)
    return int(builder.info.splits[data.train_split].num_examples) - data.validation


def load(data: TFDS, progress: Progress = _no_progress) -> Dataset:
    """Reads the splits that `data` declares.

    Raises `UsageError` for a missing or unsuitable set, and for pictures or labels that do not
    fit: the message names the split and the example.
    """
    builder = _open(data)
    _, label = _features(data, builder)
    train, validation = _hold_out(_read(data, builder, "train_split", progress), data.validation)
    test = _read(data, builder, "test_split", progress)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"{data.name}: training pictures are {train.images.shape[1:]} and test pictures "
            f"{test.images.shape[1:]}; they must have one shape"
        )
    return Dataset(train, validation, test, label.num_classes)


def load_split(data: TFDS, split: SplitName, progress: Progress = _no_progress) -> Split:
    """Reads one of the splits that `load` gives. Raises `UsageError` as it does."""
    builder = _open(data)
    _features(data, builder)
    if split == "test":
        return _read(data, builder, "test_split", progress)
    train, validation = _hold_out(_read(data, builder, "train_split", progress), data.validation)
    if split == "train":
        return train
    if validation is None:
        refuse(data, "validation", "there are no held-out examples to read")
    return validation


def _hold_out(train: Split, count: int) -> tuple[Split, Split | None]:
    """The examples to train on and, if `count` is not 0, those to choose by."""
    if count == 0:
        return train, None
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(len(train))
    held_out, kept = np.split(order, [count])
    return train[np.sort(kept)], train[np.sort(held_out)]


def _open(data: TFDS) -> Any:
    """The builder of the prepared set."""
    data_dir = Path(data.data_dir).expanduser() if data.data_dir is not None else None
    embedded = data.name == digits.NAME
    if embedded:
        data_dir = data_dir or cache_folder("datasets")
        try:
            digits.prepare(data_dir)
        except OSError as error:
            raise UsageError(f"cannot prepare the digits in {data_dir}: {error}") from None
    try:
        return read_only_builder.builder_from_files(data.name, data_dir=data_dir)
    except Exception as error:  # TFDS raises many kinds for a name or folder it cannot use
        place = data_dir or tfds.core.constants.DATA_DIR
        kind = type(error).__name__
        detail = "" if "NotFound" in kind else f" ({kind}: {' '.join(str(error).split())[:200]})"
        refuse(
            data,
            "name",
            f"no prepared set of that name in {place}{detail}; name its folder with --data.data-dir"
            f', or prepare it: pip install "resflax[prepare]" && tfds build {data.name} '
            "--file_format=array_record",
        )


def _features(data: TFDS, builder: Any) -> tuple[Any, Any]:
    """The picture's and the label's feature, checked."""
    features, splits = builder.info.features, builder.info.splits
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        refuse(
            data,
            "name",
            f"the set is stored as {builder.info.file_format.value}; it must be array_record",
        )
    for field in ("image_key", "label_key"):
        if getattr(data, field) not in features:
            refuse(data, field, f"{data.name} has the features {', '.join(sorted(features))}")
    image, label = features[data.image_key], features[data.label_key]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        refuse(data, "image_key", "it must name a picture of 8-bit values")
    if image.shape[-1] not in (None, *_MODES):
        refuse(data, "image_key", f"its pictures have {image.shape[-1]} channels, not 1, 3 or 4")
    if not isinstance(label, tfds.features.ClassLabel):
        refuse(data, "label_key", "it must name a class label")
    for field in ("train_split", "test_split"):
        name = getattr(data, field)
        if name not in splits:
            refuse(data, field, f"{data.name} has the splits {', '.join(splits)}")
        if splits[name].num_examples == 0:
            refuse(data, field, f"that split of {data.name} has no examples")
    examples = splits[data.train_split].num_examples
    if data.validation >= examples:
        refuse(
            data, "validation", f"it must be below the {examples} examples of {data.train_split}"
        )
    return image, label


def _read(data: TFDS, builder: Any, field: str, progress: Progress) -> Split:
    split = getattr(data, field)
    encoded = {data.image_key: tfds.decode.SkipDecoding()}
    with _files_of(data, split):
        source = builder.as_data_source(split, decoders=encoded)
        labels = np.empty(len(source), np.int32)
    channels = builder.info.features[data.image_key].shape[-1] or 3
    mode = _MODES[channels]
    images: np.ndarray | None = None
    starts = range(0, len(source), _CHUNK)
    for start in progress(starts, f"reading {data.name} {split}"):
        chosen = range(start, min(start + _CHUNK, len(source)))
        with _files_of(data, split):
            examples = source.__getitems__(list(chosen))
        for index, example in zip(chosen, examples, strict=True):
            where = f"{data.name}, {split}, example {index}"
            image = _decode(example[data.image_key], mode)
            if image is None:
                raise UsageError(f"{where}: its picture cannot be decoded")
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


@contextlib.contextmanager
def _files_of(data: TFDS, split: str) -> Iterator[None]:
    """Names the split whose files are missing or damaged."""
    try:
        yield
    except Exception as error:  # array_record and protobuf raise many kinds
        detail = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{data.name}, {split}: its files cannot be read ({detail}); prepare the set anew"
        ) from None


def _decode(encoded: bytes, mode: str) -> np.ndarray | None:
    """(H, W, C) uint8, or None for bytes that are not a picture."""
    try:
        pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # all that Pillow raises for damaged pictures
    return pixels[..., None] if pixels.ndim == 2 else pixels
