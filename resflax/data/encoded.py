"""Encoded pictures and their labels, read one by one from prepared sets and from folders."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from tensorflow_datasets.proto import tf_example_pb2

from resflax.data.cipher import shuffled
from resflax.data.faults import patiently
from resflax.data.image_folder import classes_of, open_folder
from resflax.data.prepared_sets import label_feature, naming_split, open_prepared_set
from resflax.data.records import Records
from resflax.declarations.checks import refuse
from resflax.declarations.data import ImageFolder, Prepared, Streamed

SplitName = Literal["train", "validation", "test"]

CHANNELS = 3
"""Number of channels of streamed pictures."""

HELD_OUT_SEED = 0
"""Seed that chooses the held-out examples. All runs use it, so they hold out the same examples."""


class EncodedExamples(Protocol):
    """The examples of a split in a fixed order. Several threads may read them at the same time."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """An encoded picture and its label.

        May raise any exception if it cannot be read; `data.faults` tells what it means.
        """

    def name(self, index: int) -> str:
        """The name of an example in messages."""


class PreparedExamples:
    """One split of a prepared set."""

    def __init__(self, data: Prepared, builder: Any, split: str) -> None:
        """Opens the split. Raises `UsageError` if its files are missing or damaged."""
        self.data, self.split = data, split
        with naming_split(data, split):
            info = builder.info.splits[split]
            self.facts = [
                f"{split} {Path(file).name} {Path(file).stat().st_size}" for file in info.filepaths
            ]
            """Names and sizes of the files, which identify the pictures without reading them."""
            self._records = Records(info.file_instructions)
            # A file that is not what it should be is noticed now.
            patiently(partial(self._records.__getitem__, 0), partial(self.name, 0))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return parse(self._records[index], self.data)

    def with_all_labels(self, index: int) -> tuple[bytes, tuple[int, ...]]:
        """An encoded picture and its labels: several or none if the feature is a sequence."""
        return parse_all_labels(self._records[index], self.data)

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return f"{self.data.name}, {self.split}, example {index}"


def parse(record: bytes, data: Prepared) -> tuple[bytes, int]:
    """The encoded picture and the label in a record. Raises any exception if it is damaged."""
    picture, labels = parse_all_labels(record, data)
    return picture, labels[0]


def parse_all_labels(record: bytes, data: Prepared) -> tuple[bytes, tuple[int, ...]]:
    """The encoded picture in a record and its labels, of which a sequence may have any number.

    Raises any exception if the record is damaged.
    """
    # TFDS's own parser copies each picture three more times.
    features = tf_example_pb2.Example.FromString(record).features.feature
    picture, label = features[data.image_key], features[data.label_key]
    return picture.bytes_list.value[0], tuple(label.int64_list.value)


@dataclass(frozen=True)
class ExampleSubset:
    """A fixed random sample of examples: those at the given places of a shuffled order of all."""

    examples: EncodedExamples
    places: range

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.examples[self._index(index)]

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return self.examples.name(self._index(index))

    def _index(self, index: int) -> int:
        return shuffled(self.places[index], len(self.examples), HELD_OUT_SEED)


@dataclass(frozen=True)
class EncodedSplits:
    """The splits of a data declaration, ready to be read."""

    train: EncodedExamples
    validation: EncodedExamples | None
    """Examples held out of the training split; None if the declaration holds out none."""
    test: EncodedExamples
    num_classes: int
    sha256: str
    """Hash of the names and sizes of all files, which identifies a set without reading pictures."""
    notes: tuple[str, ...] = ()
    """Lines for the user about files that were left out."""

    def split(self, data: Streamed, name: SplitName) -> EncodedExamples:
        """One of the splits. Raises `UsageError` for `validation` if no examples are held out."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        examples = splits[name]
        if examples is None:
            refuse(data, "validation", "there are no held-out examples to read")
        return examples


def open_splits(data: Streamed) -> EncodedSplits:
    """Opens the splits that `data` declares. Raises `UsageError` if they cannot be opened."""
    if isinstance(data, ImageFolder):
        folder = open_folder(data)
        if data.validation >= len(folder.train):
            refuse(
                data, "validation", f"it must be below the {len(folder.train)} training examples"
            )
        classes, facts = len(folder.classes), folder.facts()
        splits = _hold_out(data, folder.train, folder.test, classes, facts)
        return replace(splits, notes=folder.notes)
    builder = open_prepared_set(data)
    label = label_feature(data, builder)
    train, test = (
        PreparedExamples(data, builder, split) for split in (data.train_split, data.test_split)
    )
    facts = [*train.facts, *test.facts]
    return _hold_out(data, train, test, label.num_classes, facts)


def count_classes(data: Streamed) -> int:
    """The number of classes, found without opening a split.

    Raises `UsageError` if there is no such set.
    """
    if isinstance(data, ImageFolder):
        return len(classes_of(data))
    return int(label_feature(data, open_prepared_set(data)).num_classes)


def check_label(label: int, num_classes: int) -> None:
    """Raises `ValueError` unless the label is the number of a class."""
    if not 0 <= label < num_classes:
        raise ValueError(f"its label is {label}; it must be at least 0 and below {num_classes}")


def _hold_out(
    data: Streamed,
    train: EncodedExamples,
    test: EncodedExamples,
    num_classes: int,
    facts: Sequence[str],
) -> EncodedSplits:
    count, last = data.validation, len(train)
    sha256 = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    if not count:
        return EncodedSplits(train, None, test, num_classes, sha256)
    kept, held_out = ExampleSubset(train, range(count, last)), ExampleSubset(train, range(count))
    return EncodedSplits(kept, held_out, test, num_classes, sha256)
