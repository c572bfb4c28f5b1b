"""One split of a data set, opened to be measured. The set's other splits need not exist.

The set may be another one than the network was trained on, and its pictures may have several
labels.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tensorflow_datasets as tfds

from resflax.data.class_matching import numbers_as_names
from resflax.data.encoded import EncodedExamples, PreparedExamples, SplitName, check_label
from resflax.data.image_folder import open_split_folder
from resflax.data.prepared_sets import measured_features, naming_split, open_prepared_set
from resflax.declarations.checks import refuse
from resflax.declarations.data import Data, ImageFolder, Prepared
from resflax.errors import UsageError
from resflax.paths import user_path
from resflax.text import path_text


class LabelledExamples(Protocol):
    """The examples of a split, each with any number of labels. Several threads may read them."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int) -> tuple[bytes, tuple[int, ...]]:
        """An encoded picture and its labels. May raise any exception if it cannot be read."""

    def name(self, index: int) -> str:
        """The name of an example in messages."""


@dataclass(frozen=True)
class OneLabelEach:
    """Examples with one label each."""

    examples: EncodedExamples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[bytes, tuple[int, ...]]:
        encoded, label = self.examples[index]
        return encoded, (label,)

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return self.examples.name(index)


@dataclass(frozen=True)
class SeveralLabels:
    """Examples of a prepared set whose label feature is a sequence of class labels."""

    examples: PreparedExamples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[bytes, tuple[int, ...]]:
        return self.examples.with_all_labels(index)

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return self.examples.name(index)


@dataclass(frozen=True)
class Renumbered:
    """Examples whose classes have other numbers than in their set."""

    examples: LabelledExamples
    numbers: tuple[int, ...]
    """The new number of each class of the set."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[bytes, tuple[int, ...]]:
        encoded, labels = self.examples[index]
        for label in labels:
            check_label(label, len(self.numbers))
        return encoded, tuple(sorted({self.numbers[label] for label in labels}))

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return self.examples.name(index)


@dataclass(frozen=True)
class SplitFacts:
    """Which pictures and labels a split has."""

    name: str
    """Name of the prepared set; for a plain folder of pictures, the path of the split's folder."""
    version: str | None
    """Version of the prepared set; None for a plain folder."""
    folder: str
    """The folder of the set's files."""
    split: str
    """The set's own name of the split."""
    sha256: str
    """Hash of the names and sizes of the split's files, and of its classes, in order."""


@dataclass(frozen=True)
class MeasuredSplit:
    """A split of which examples can be read."""

    examples: LabelledExamples
    class_names: list[str]
    """The names of the set's classes in order; their numbers if they have no names."""
    named: bool
    """Whether the classes have names."""
    several_labels: bool
    """Whether an example may have several labels, or none."""
    declared_shape: tuple[int | None, int | None, int | None]
    """(H, W, C) of the pictures as far as the set declares them."""
    facts: SplitFacts
    notes: tuple[str, ...] = ()
    """Lines for the user about files that were left out."""


def open_measured_split(data: Data, split: SplitName) -> MeasuredSplit:
    """Opens the training or the test split of a set. Raises `UsageError` if it cannot be opened."""
    if split == "validation":
        raise UsageError(
            "only a run's own data has a validation split, because its examples are held out of "
            "the training; measure the train or the test split of other data"
        )
    if isinstance(data, ImageFolder):
        return _open_folder(data, _name_of(data, split))
    builder = open_prepared_set(data)
    field = "train_split" if split == "train" else "test_split"
    picture, label = measured_features(data, builder, field)
    several = isinstance(label, tfds.features.Sequence)
    opened = PreparedExamples(data, builder, getattr(data, field))
    of_class = label.feature if several else label
    names = list(of_class.names)
    # TFDS has no public function that says whether the classes were given names.
    named = names != numbers_as_names(len(names)) or getattr(of_class, "_int2str", None) is not None
    height, width, channels = picture.shape
    return MeasuredSplit(
        examples=SeveralLabels(opened) if several else OneLabelEach(opened),
        class_names=names,
        named=named,
        several_labels=several,
        declared_shape=(height, width, channels),
        facts=_facts_of_set(data, builder, getattr(data, field), names),
    )


def describe_split(data: Data, split: SplitName) -> SplitFacts:
    """Facts about a split of data that can be read. Validation examples are in the training split.

    Raises `UsageError` if there is no such split.
    """
    name = _name_of(data, split)
    if isinstance(data, ImageFolder):
        return _open_folder(data, name).facts
    builder = open_prepared_set(data)
    _, label = measured_features(data, builder, "test_split" if split == "test" else "train_split")
    return _facts_of_set(data, builder, name, label.names)


def _name_of(data: Data, split: SplitName) -> str:
    return data.test_split if split == "test" else data.train_split


def _open_folder(data: ImageFolder, split: str) -> MeasuredSplit:
    if data.data_dir is None:
        refuse(data, "data_dir", "name the folder of the pictures with --data.data-dir")
    if not os.path.isdir(user_path(data.data_dir) / split):
        field = "test_split" if split == data.test_split else "train_split"
        refuse(
            data,
            field,
            f"{data.data_dir} has no such folder; if the folders of the classes lie in "
            f"{data.data_dir} itself, give --data.{field.replace('_', '-')} .",
        )
    opened = open_split_folder(user_path(data.data_dir) / split)
    folder = path_text(opened.examples.root)
    return MeasuredSplit(
        examples=OneLabelEach(opened.examples),
        class_names=opened.classes,
        named=True,
        several_labels=False,
        declared_shape=(None, None, None),
        facts=SplitFacts(
            name=folder,
            version=None,
            folder=folder,
            split=split,
            sha256=_sha256([*opened.classes, *opened.examples.facts()]),
        ),
        notes=opened.notes,
    )


def _facts_of_set(data: Prepared, builder: Any, split: str, classes: Sequence[str]) -> SplitFacts:
    with naming_split(data, split):
        files = [Path(file) for file in builder.info.splits[split].filepaths]
        facts = [f"{file.name} {file.stat().st_size}" for file in files]
    return SplitFacts(
        name=data.name,
        version=str(builder.info.version),
        folder=str(builder.data_path),
        split=split,
        sha256=_sha256([*classes, *facts]),
    )


def _sha256(facts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
