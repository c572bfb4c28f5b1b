"""Reads the pictures of a split in order, and finds the format of the pictures in training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import grain
import numpy as np

from resflax.data.description import describe
from resflax.data.encoded import (
    CHANNELS,
    SplitName,
    check_label,
    open_splits,
)
from resflax.data.faults import read_example, reason_of_damage
from resflax.data.in_memory import Split, first_pictures, load_split
from resflax.data.measured_split import LabelledExamples, OneLabelEach
from resflax.data.pictures.decoding import decode
from resflax.declarations.data import Data, Streamed
from resflax.evaluation.views import PictureFormat, ViewMaker
from resflax.feeding.decoding import default_threads
from resflax.terminal.display import Display


class ExampleImages(NamedTuple):
    """The images that are made from one example of a split."""

    labels: tuple[int, ...] | None
    """The example's classes: one, or any number if pictures may have several; None if the example
    cannot be read."""
    images: list[np.ndarray]
    """Images (h, w, C) uint8 from `ViewMaker.images`; empty if the example cannot be read or has no
    label."""


class SplitReader(Protocol):
    """A split that can be read in order as often as needed."""

    def __len__(self) -> int:
        """The number of examples."""

    def read(self, maker: ViewMaker, numbers: range) -> Iterator[ExampleImages]:
        """Yields the examples with the given consecutive numbers, each once."""


@dataclass(frozen=True)
class MemoryReader:
    """A split that is in the host's memory."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def read(self, maker: ViewMaker, numbers: range) -> Iterator[ExampleImages]:
        """Yields the examples with the given consecutive numbers, each once."""
        for number in numbers:
            images = maker.images(self.split.images[number])
            yield ExampleImages((int(self.split.labels[number]),), images)


@dataclass(frozen=True)
class DiskReader:
    """A split on disk, which threads read and decode. Its memory does not grow with its length."""

    examples: LabelledExamples
    num_classes: int
    say: Callable[[str], None]
    """Shows a line of text; called once for every example that is bad, and by any thread if
    something has to be read once more."""
    channels: int = CHANNELS
    """Number of channels that pictures are converted to."""
    size: tuple[int, int] | None = None
    """Height and width that every picture must have; None: any."""
    _reported: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, maker: ViewMaker, numbers: range) -> Iterator[ExampleImages]:
        """Yields the examples with the given consecutive numbers, each once.

        Raises `SystemFault` if the system cannot read one that may be good.
        """

        def images_of(index: int) -> ExampleImages | str:
            read = read_example(self.examples, index, self.say)
            if isinstance(read, str):
                return read
            encoded, labels = read
            try:
                for label in labels:
                    check_label(label, self.num_classes)
                if not labels:
                    return ExampleImages((), [])
                picture = decode(encoded, self.channels, maker.shorter_side)
                if self.size is not None and picture.shape[:2] != self.size:
                    return "its picture is {}x{}, not {}x{}".format(*picture.shape[:2], *self.size)
                return ExampleImages(labels, maker.images(picture))
            except Exception as error:  # a damaged file can raise anything
                return reason_of_damage(error, self.examples.name(index))

        threads = default_threads()
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
        results = grain.MapDataset.range(numbers.start, numbers.stop).map(images_of)
        for index, result in zip(numbers, results.to_iter_dataset(options), strict=True):
            if not isinstance(result, str):
                yield result
                continue
            if index not in self._reported:
                self._reported.add(index)
                self.say(f"passing over {self.examples.name(index)}: {result}")
            yield ExampleImages(None, [])


def open_split(data: Data, split: SplitName, display: Display) -> SplitReader:
    """Opens a split of streamed data, or reads a split of other data into memory.

    Raises `UsageError` if there is no such split, or if it cannot be read.
    """
    if not isinstance(data, Streamed):
        return MemoryReader(load_split(data, split, display.items))
    splits = open_splits(data)
    for note in splits.notes:
        display.say(note)
    examples = OneLabelEach(splits.split(data, split))
    return DiskReader(examples, splits.num_classes, display.say)


def data_in(data: Data, data_dir: str | None) -> Data:
    """The data with `data_dir` as its folder; unchanged if `data_dir` is None."""
    return data if data_dir is None else replace(data, data_dir=data_dir)


def trained_picture_format(data: Data) -> PictureFormat:
    """The format of the pictures that networks are trained on with this data.

    Raises `UsageError` if the data is not known and cannot be found, or if its test pictures are
    needed and cannot be read.
    """
    facts = describe(data)
    if isinstance(data, Streamed):
        return PictureFormat(facts.image_shape, data.test_shorter_side, 0, data.resize)
    if facts.height is None or facts.width is None:  # one size, but the set omits it
        height, width, channels = first_pictures(data, "test", 1).images.shape[1:]
        return PictureFormat((height, width, channels), None, data.crop_padding)
    return PictureFormat(facts.image_shape, None, data.crop_padding)
