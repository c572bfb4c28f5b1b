"""Encoded pictures and their labels, read one by one from prepared sets and from folders."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from resflax.data.image_folder import FolderExamples, classes_of
from resflax.data.prepared_sets import label_feature, naming_split, open_prepared_set
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
        """An encoded picture and its label. May raise any exception if it cannot be read."""

    def name(self, index: int) -> str:
        """The name of an example in messages."""


class PreparedExamples:
    """One split of a prepared set."""

    def __init__(self, data: Prepared, builder: Any, split: str) -> None:
        """Opens the split. Raises `UsageError` if its files are missing or damaged."""
        self.data, self.split = data, split
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        with naming_split(data, split):
            self._source = builder.as_data_source(split, deserialize_method=raw)
            self._source[0]  # so that a missing file is noticed now

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        picture, labels = self.with_all_labels(index)
        return picture, labels[0]

    def with_all_labels(self, index: int) -> tuple[bytes, tuple[int, ...]]:
        """An encoded picture and its labels: several or none if the feature is a sequence."""
        # TFDS's own parser copies each picture three more times.
        features = tf_example_pb2.Example.FromString(self._source[index]).features.feature
        picture, label = features[self.data.image_key], features[self.data.label_key]
        return picture.bytes_list.value[0], tuple(label.int64_list.value)

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return f"{self.data.name}, {self.split}, example {index}"


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
        from grain.experimental import index_shuffle  # imports JAX

        last = len(self.examples) - 1
        return index_shuffle(self.places[index], last, seed=HELD_OUT_SEED, rounds=4)


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
        classes = classes_of(data)
        of_train, of_test = (
            FolderExamples(data, split, classes) for split in (data.train_split, data.test_split)
        )
        facts = [*classes, *of_train.facts(), *of_test.facts()]
        if data.validation >= len(of_train):
            refuse(data, "validation", f"it must be below the {len(of_train)} training examples")
        return _hold_out(data, of_train, of_test, len(classes), facts)
    builder = open_prepared_set(data)
    label = label_feature(data, builder)
    train, test = (
        PreparedExamples(data, builder, split) for split in (data.train_split, data.test_split)
    )
    facts = [
        f"{split} {Path(file).name} {Path(file).stat().st_size}"
        for split in (data.train_split, data.test_split)
        for file in builder.info.splits[split].filepaths
    ]
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
