"""Batches of pictures, read and decoded by threads while the devices work.

Training takes its examples in the order of `data.feed`. What stands at a position of that row
depends on it and the seed alone: not on threads, hosts, or where the reading began. So a run that
is continued in the middle of an epoch sees what it would have seen, and no state has to be kept.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import grain
import numpy as np
from grain import DatasetIterator
from grain.experimental import ThreadPrefetchIterDataset

from resflax.data.crops import central_square, random_square
from resflax.data.feed import Order
from resflax.data.records import CHANNELS, Records
from resflax.declarations.data import Streamed
from resflax.errors import TrainingError

T = TypeVar("T")

AHEAD = 2
"""Batches that are decoded, and as many that are on the devices, before they are asked for."""

_RUN = 8  # pictures that a thread makes one after another, at most: handing over costs time


class Pictures(NamedTuple):
    """A batch, or one example of it without the leading axis."""

    images: np.ndarray
    """(B, side, side, 3) uint8."""
    labels: np.ndarray | np.int32
    """(B,) int32."""
    weights: np.ndarray | np.float32
    """(B,) float32: 0 for an example of a test that cannot be read, or that fills up a batch."""
    bad: dict[int, str]
    """Examples that could not be read, by index, and why."""


@dataclass(frozen=True)
class Share:
    """The rows of each batch that one of several hosts reads."""

    host: int = 0
    hosts: int = 1

    def rows(self, batch_size: int) -> range:
        """Of a batch that all hosts together read; it must be a multiple of `hosts`."""
        size = batch_size // self.hosts
        return range(self.host * size, (self.host + 1) * size)


@dataclass(frozen=True)
class Shuffled:
    """The row of training pictures."""

    records: Records
    data: Streamed
    num_classes: int
    order: Order
    """Of the records, in batches of all hosts together."""
    steps: int
    """Length of the training, over which `training_sizes` are dealt out."""
    share: Share = Share()

    def side(self, step: int) -> int:
        """Height and width of the pictures of a step."""
        sizes = self.data.training_sizes or (self.data.image_size,)
        return sizes[min(step * len(sizes) // self.steps, len(sizes) - 1)]

    def picture(self, position: int) -> Pictures:
        """The picture at a position; instead of one that is bad, that at a later one.

        Raises `TrainingError` if too many in a row are bad.
        """
        side = self.side(position // self.order.batch_size)
        bad: dict[int, str] = {}
        for other in range(position, position + self.data.bad_pictures + 1):
            index = self.order.example(other)
            try:
                encoded, label = self.records[index]
                check_label(label, self.num_classes)
                draw = np.random.Generator(np.random.Philox(key=(self.order.seed, other)))
                image = random_square(encoded, self.data, side, draw)
            except Exception as error:  # of a damaged file anything may come
                bad[index] = " ".join(str(error).split())[:200]
            else:
                return Pictures(image, np.int32(label), np.float32(1), bad)
        raise TrainingError(_too_many(self.records, bad, self.data))

    def batches(
        self, first: int, threads: int, place: Callable[[Pictures], T]
    ) -> DatasetIterator[T]:
        """The batches of steps from `first` on, without end, each given to `place` in advance."""
        rows = self.share.rows(self.order.batch_size)

        def picture(number: int) -> Pictures:
            step, row = divmod(number, len(rows))
            return self.picture(step * self.order.batch_size + rows[row])

        numbers = range(first * len(rows), 2**62)
        return _read(numbers, picture, len(rows), threads, place)


@dataclass(frozen=True)
class InOrder:
    """All pictures of a split, each once."""

    records: Records
    data: Streamed
    num_classes: int

    def picture(self, number: int) -> Pictures:
        """The picture of an example; a black one of weight 0 if it is bad, or there is none."""
        side = self.data.image_size
        bad: dict[int, str] = {}
        if number < len(self.records):
            try:
                encoded, label = self.records[number]
                check_label(label, self.num_classes)
                image = central_square(encoded, self.data, side)
                return Pictures(image, np.int32(label), np.float32(1), bad)
            except Exception as error:
                bad[number] = " ".join(str(error).split())[:200]
        black = np.zeros((side, side, CHANNELS), np.uint8)
        return Pictures(black, np.int32(0), np.float32(0), bad)

    def batches(
        self, batch_size: int, threads: int, place: Callable[[Pictures], T]
    ) -> DatasetIterator[T]:
        """All examples once; the last batch is filled up with black pictures of weight 0."""
        whole = -(-len(self.records) // batch_size) * batch_size
        return _read(range(whole), self.picture, batch_size, threads, place)


def check_label(label: int, num_classes: int) -> None:
    """Raises `ValueError` for a label that is no class."""
    if not 0 <= label < num_classes:
        raise ValueError(f"its label is {label}; it must be at least 0 and below {num_classes}")


def default_threads() -> int:
    """Twice the cores of this process: while one decodes, another waits for the disk."""
    return 2 * len(os.sched_getaffinity(0))


def _read(
    numbers: range,
    picture: Callable[[int], Pictures],
    batch_size: int,
    threads: int,
    place: Callable[[Pictures], T],
) -> DatasetIterator[T]:
    run = max(size for size in range(1, _RUN + 1) if batch_size % size == 0)
    runs = batch_size // run

    def pictures(number: int) -> Pictures:
        return _stack([picture(number * run + i) for i in range(run)])

    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, AHEAD * runs)
    )
    parts = grain.MapDataset.range(numbers.start // run, numbers.stop // run).map(pictures)
    batches = parts.to_iter_dataset(options).batch(runs, batch_fn=_join).map(place)
    return iter(ThreadPrefetchIterDataset(batches, prefetch_buffer_size=AHEAD))


def _stack(pictures: Sequence[Pictures]) -> Pictures:
    """Examples to a batch."""
    images = np.stack([one.images for one in pictures])
    labels = np.array([one.labels for one in pictures], np.int32)
    weights = np.array([one.weights for one in pictures], np.float32)
    return Pictures(images, labels, weights, _all_bad(pictures))


def _join(parts: Sequence[Pictures]) -> Pictures:
    """Parts of a batch to the whole."""
    if len(parts) == 1:
        return parts[0]
    images, labels, weights = (
        np.concatenate(arrays) for arrays in zip(*(part[:3] for part in parts), strict=True)
    )
    return Pictures(images, labels, weights, _all_bad(parts))


def _all_bad(pictures: Sequence[Pictures]) -> dict[int, str]:
    return {index: why for one in pictures for index, why in one.bad.items()}


def _too_many(records: Records, bad: dict[int, str], data: Streamed) -> str:
    index = next(reversed(bad))
    return (
        f"{records.name(index)}: {bad[index]}; that is one more than the {data.bad_pictures} bad "
        "pictures that data.bad_pictures allows"
    )
