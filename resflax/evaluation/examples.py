"""The pictures of a split, one after another, and what networks were trained on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from resflax.data.source import Progress, Split, SplitName, describe, load_split
from resflax.declarations.data import Data
from resflax.evaluation.views import Cutting, Frame


class Examples(Protocol):
    """A split, read in order as often as asked."""

    def __len__(self) -> int:
        """How many there are."""

    def cut(self, cutting: Cutting) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Each example's class, and what is cut of its picture."""


@dataclass(frozen=True)
class Resident:
    """A split in memory."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def cut(self, cutting: Cutting) -> Iterator[tuple[int, list[np.ndarray]]]:
        """As `Examples` says."""
        for label, picture in zip(self.split.labels, self.split.images, strict=True):
            yield int(label), cutting.cut(picture)


def load_examples(data: Data, split: SplitName, progress: Progress) -> Examples:
    """The split, read whole where the data is kept in memory. Raises `UsageError` if it cannot."""
    return Resident(load_split(data, split, progress))


def moved(data: Data, data_dir: str | None) -> Data:
    """The same data, where it lies now; None: where it says."""
    return data if data_dir is None else replace(data, data_dir=data_dir)


def frame_of(data: Data) -> Frame:
    """What networks are trained on with this data.

    Raises `UsageError` if nothing is known of it, or its test pictures cannot be read.
    """
    facts = describe(data)
    if facts.height is None or facts.width is None:  # not said, but they have one size
        height, width, channels = load_split(data, "test").images.shape[1:]
        return Frame((height, width, channels), None, data.crop_padding)
    return Frame(facts.image_shape, None, data.crop_padding)
