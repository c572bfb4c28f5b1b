"""The pictures of a split, one after another, and what networks were trained on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import grain
import numpy as np

from resflax.data.pictures import decode
from resflax.data.records import CHANNELS, Records, SplitName, open_records
from resflax.data.source import Split, describe, first_pictures, load_split
from resflax.data.stream import check_label, default_threads
from resflax.declarations.data import Data, Streamed
from resflax.evaluation.views import Cutting, Frame
from resflax.training.display import Display


class Example(NamedTuple):
    """One example of a split."""

    label: int
    """Its class; -1 if it cannot be read."""
    cuts: list[np.ndarray]
    """What was cut of its picture; nothing if it cannot be read."""


class Examples(Protocol):
    """A split, read in order as often as asked."""

    def __len__(self) -> int:
        """How many there are."""

    def cut(self, cutting: Cutting, numbers: range) -> Iterator[Example]:
        """Those of consecutive numbers, once."""


@dataclass(frozen=True)
class Resident:
    """A split in memory."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def cut(self, cutting: Cutting, numbers: range) -> Iterator[Example]:
        """As `Examples` says."""
        for number in numbers:
            yield Example(int(self.split.labels[number]), cutting.cut(self.split.images[number]))


@dataclass(frozen=True)
class Recorded:
    """A split on the disk, read and decoded by threads; memory does not grow with its length."""

    records: Records
    num_classes: int
    say: Callable[[str], None]
    """Is told once of every example that cannot be read."""
    _told: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.records)

    def cut(self, cutting: Cutting, numbers: range) -> Iterator[Example]:
        """As `Examples` says."""

        def read(index: int) -> Example | str:
            try:
                encoded, label = self.records[index]
                check_label(label, self.num_classes)
                return Example(label, cutting.cut(decode(encoded, CHANNELS, cutting.shorter)))
            except Exception as error:  # of a damaged file anything may come
                return " ".join(str(error).split())[:200]

        threads = default_threads()
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
        found_of = grain.MapDataset.range(numbers.start, numbers.stop).map(read)
        for index, found in zip(numbers, found_of.to_iter_dataset(options), strict=True):
            if not isinstance(found, str):
                yield found
                continue
            if index not in self._told:
                self._told.add(index)
                self.say(f"passing over {self.records.name(index)}: {found}")
            yield Example(-1, [])


def load_examples(data: Data, split: SplitName, display: Display) -> Examples:
    """The split: read whole where the data is kept in memory, else opened.

    Raises `UsageError` if there is no such split, or it cannot be read.
    """
    if not isinstance(data, Streamed):
        return Resident(load_split(data, split, display.items))
    opened = open_records(data)
    return Recorded(opened.split(data, split), opened.num_classes, display.say)


def moved(data: Data, data_dir: str | None) -> Data:
    """The same data, where it lies now; None: where it says."""
    return data if data_dir is None else replace(data, data_dir=data_dir)


def frame_of(data: Data) -> Frame:
    """What networks are trained on with this data.

    Raises `UsageError` if nothing is known of it, or its test pictures cannot be read.
    """
    facts = describe(data)
    if isinstance(data, Streamed):
        return Frame(facts.image_shape, data.test_shorter_side, 0)
    if facts.height is None or facts.width is None:  # not said, but they have one size
        height, width, channels = first_pictures(data, "test", 1).images.shape[1:]
        return Frame((height, width, channels), None, data.crop_padding)
    return Frame(facts.image_shape, None, data.crop_padding)
