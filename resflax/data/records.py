"""Encoded pictures and their labels, one at a time from the disk: of prepared sets and folders."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import tensorflow_datasets as tfds
from grain.experimental import index_shuffle
from tensorflow_datasets.proto import tf_example_pb2

from resflax.data.folder import FolderRecords, classes_of
from resflax.data.prepared import files_of, open_set, set_features
from resflax.declarations.checks import refuse
from resflax.declarations.data import ImageFolder, Prepared, Streamed

SplitName = Literal["train", "validation", "test"]

CHANNELS = 3
"""Of streamed pictures."""

HELD_OUT_SEED = 0
"""Of the data, not of the run: every run holds out the same examples."""


class Records(Protocol):
    """Examples in an order of their own. Many threads may read at once."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """An encoded picture and its label. May raise anything if it cannot be read."""

    def name(self, index: int) -> str:
        """Which example that is, for people."""


class PreparedRecords:
    """One split of a prepared set."""

    def __init__(self, data: Prepared, builder: Any, split: str) -> None:
        self.data, self.split = data, split
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        with files_of(data, split):
            self._source = builder.as_data_source(split, deserialize_method=raw)
            self._source[0]  # missing files are found now

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        # TFDS's own parser copies each picture three times more.
        features = tf_example_pb2.Example.FromString(self._source[index]).features.feature
        picture, label = features[self.data.image_key], features[self.data.label_key]
        return picture.bytes_list.value[0], label.int64_list.value[0]

    def name(self, index: int) -> str:
        """As `Records` says."""
        return f"{self.data.name}, {self.split}, example {index}"


@dataclass(frozen=True)
class Part:
    """A fixed random sample of records: those at places `places` of a shuffled row of all."""

    records: Records
    places: range

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.records[self._index(index)]

    def name(self, index: int) -> str:
        """As `Records` says."""
        return self.records.name(self._index(index))

    def _index(self, index: int) -> int:
        last = len(self.records) - 1
        return index_shuffle(self.places[index], last, seed=HELD_OUT_SEED, rounds=4)


@dataclass(frozen=True)
class Opened:
    """The splits of a declaration, ready to be read."""

    train: Records
    validation: Records | None
    """Held out of the training split, if the declaration asks for it."""
    test: Records
    num_classes: int
    sha256: str
    """Of the names and sizes of its files: it tells sets apart without reading them whole."""

    def split(self, data: Streamed, name: SplitName) -> Records:
        """One of them. Raises `UsageError` if no examples are held out and these are asked for."""
        records = {"train": self.train, "validation": self.validation, "test": self.test}[name]
        if records is None:
            refuse(data, "validation", "there are no held-out examples to read")
        return records


def open_records(data: Streamed) -> Opened:
    """Opens the splits that `data` declares. Raises `UsageError` if there are none that can be."""
    if isinstance(data, ImageFolder):
        classes = classes_of(data)
        train, test = (
            FolderRecords(data, split, classes) for split in (data.train_split, data.test_split)
        )
        facts = [*classes, *train.facts(), *test.facts()]
        if data.validation >= len(train):
            refuse(data, "validation", f"it must be below the {len(train)} training examples")
        return _opened(data, train, test, len(classes), facts)
    builder = open_set(data)
    _, label = set_features(data, builder)
    of_train, of_test = (
        PreparedRecords(data, builder, split) for split in (data.train_split, data.test_split)
    )
    facts = [
        f"{split} {Path(file).name} {Path(file).stat().st_size}"
        for split in (data.train_split, data.test_split)
        for file in builder.info.splits[split].filepaths
    ]
    return _opened(data, of_train, of_test, label.num_classes, facts)


def count_classes(data: Streamed) -> int:
    """Without opening the pictures' files. Raises `UsageError` as `open_records` does."""
    if isinstance(data, ImageFolder):
        return len(classes_of(data))
    _, label = set_features(data, open_set(data))
    return int(label.num_classes)


def _opened(
    data: Streamed, train: Records, test: Records, num_classes: int, facts: Sequence[str]
) -> Opened:
    held_out, last = data.validation, len(train)
    sha256 = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    if not held_out:
        return Opened(train, None, test, num_classes, sha256)
    kept, out = Part(train, range(held_out, last)), Part(train, range(held_out))
    return Opened(kept, out, test, num_classes, sha256)
