"""Batches of pictures, read and decoded by threads while the devices work.

Training takes its examples in the order of `data.feed`. What stands at a position of that row
depends on it and the seed alone: not on threads, hosts, or where the reading began. So a run that
is continued in the middle of an epoch sees what it would have seen, and no state has to be kept.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

import grain
import numpy as np
from grain import DatasetIterator
from grain.experimental import ThreadPrefetchIterDataset

from resflax.data.crops import central_square, random_square
from resflax.data.feed import Order
from resflax.data.memory import Memory
from resflax.data.pictures import BadPicture, place
from resflax.data.records import CHANNELS, Records
from resflax.declarations.data import Streamed
from resflax.errors import TrainingError

T = TypeVar("T")

AHEAD = 2
"""Batches that are decoded, and as many that are on the devices, before they are asked for."""

_RUN = 32  # pictures that a thread makes one after another, at most: handing over costs time

_of_thread = threading.local()

Read = tuple[bytes, int] | str
"""An encoded picture and its label, or why they cannot be had."""


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


def rows_of(rows: range, batch_size: int) -> Callable[[int], int]:
    """From the number of a picture among those of a host to its position among all."""

    def position(number: int) -> int:
        batch, row = divmod(number, len(rows))
        return batch * batch_size + rows[row]

    return position


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

    def read(self, position: int) -> Read:
        """The example at a position."""
        return _read(self.records, self.order.example(position))

    def picture(self, position: int, read: Read, into: np.ndarray | None = None) -> Pictures:
        """The picture of what was read at a position; if that is bad, the one at a later position.

        Its pixels are `into` if that is given. Raises `TrainingError` if too many in a row are bad.
        """
        side = self.side(position // self.order.batch_size)
        bad: dict[int, str] = {}
        for other in range(position, position + self.data.bad_pictures + 1):
            index = self.order.example(other)
            try:
                encoded, label = _good(read if other == position else _read(self.records, index))
                check_label(label, self.num_classes)
                draw = draws(self.order.seed, other)
                image = random_square(encoded, self.data, side, draw, into)
            except Exception as error:  # of a damaged file anything may come
                bad[index] = _in_words(error)
            else:
                return Pictures(image, np.int32(label), np.float32(1), bad)
        raise TrainingError(_too_many(self.records, bad, self.data))

    def batches(self, first: int, threads: int, put: Callable[[Pictures], T]) -> DatasetIterator[T]:
        """The batches of steps from `first` on, without end, each given to `put` in advance."""
        rows = self.share.rows(self.order.batch_size)
        position = rows_of(rows, self.order.batch_size)
        numbers = range(first * len(rows), 2**62)
        return _batches(self, numbers, position, _Arriving(len(rows), self.side), threads, put)


@dataclass(frozen=True)
class InOrder:
    """All pictures of a split, each once."""

    records: Records
    data: Streamed
    num_classes: int
    share: Share = Share()

    def read(self, number: int) -> Read:
        """An example."""
        return _read(self.records, number)

    def picture(self, number: int, read: Read, into: np.ndarray | None = None) -> Pictures:
        """The picture of an example; a black one of weight 0 if it is bad, or there is none.

        Its pixels are `into` if that is given.
        """
        side = self.data.image_size
        bad: dict[int, str] = {}
        if number < len(self.records):
            try:
                encoded, label = _good(read)
                check_label(label, self.num_classes)
                image = central_square(encoded, self.data, side, into)
                return Pictures(image, np.int32(label), np.float32(1), bad)
            except Exception as error:
                bad[number] = _in_words(error)
        black = np.zeros((side, side, CHANNELS), np.uint8)
        return Pictures(place(black, into), np.int32(0), np.float32(0), bad)

    def batches(
        self, batch_size: int, threads: int, put: Callable[[Pictures], T]
    ) -> DatasetIterator[T]:
        """All examples once; the last batch is filled up with black pictures of weight 0."""
        rows = self.share.rows(batch_size)
        numbers = range(-(-len(self.records) // batch_size) * len(rows))
        arriving = _Arriving(len(rows), lambda _: self.data.image_size)
        return _batches(self, numbers, rows_of(rows, batch_size), arriving, threads, put)


def draws(seed: int, position: int) -> np.random.Generator:
    """What is random at a position: as of a new Philox with these two as its key.

    It is this thread's generator, set anew at each call: a new one would ask the system for a seed.
    """
    generator: np.random.Generator | None = getattr(_of_thread, "generator", None)
    if generator is None:
        generator = _of_thread.generator = np.random.Generator(np.random.Philox())
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.zeros(4, np.uint64),
            "key": np.array([seed, position], np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator


def check_label(label: int, num_classes: int) -> None:
    """Raises `ValueError` for a label that is no class."""
    if not 0 <= label < num_classes:
        raise ValueError(f"its label is {label}; it must be at least 0 and below {num_classes}")


def default_threads() -> int:
    """Twice the cores of this process: while one decodes, another waits for the disk."""
    return 2 * len(os.sched_getaffinity(0))


class _Arriving:
    """The pixels of batches that threads are filling: each picture is written to its place."""

    def __init__(self, batch_size: int, side: Callable[[int], int]) -> None:
        self.batch_size, self._side = batch_size, side
        self._lock, self._memory = threading.Lock(), Memory()
        # Whoever has made or will join a part of a batch keeps it alive.
        self._images: WeakValueDictionary[int, np.ndarray] = WeakValueDictionary()

    def images(self, batch: int) -> np.ndarray:
        """(B, side, side, 3) uint8 of a batch: the same array at each call while it is in use."""
        with self._lock:
            found = self._images.get(batch)
            if found is None:
                side = self._side(batch)
                found = self._memory.array(self.batch_size, side, side, CHANNELS)
                self._images[batch] = found
            return found


class _Row(Protocol):
    """Pictures by position. Any thread may ask for any."""

    def read(self, position: int, /) -> Read:
        """What is there, still encoded."""

    def picture(self, position: int, read: Read, into: np.ndarray, /) -> Pictures:
        """That as a picture, its pixels written to `into`."""


def _read(records: Records, index: int) -> Read:
    try:
        return records[index]
    except Exception as error:  # of a damaged file anything may come
        return _in_words(error)  # the error itself would keep frames, and these a batch, alive


def _good(read: Read) -> tuple[bytes, int]:
    if isinstance(read, str):
        raise BadPicture(read)
    return read


def _in_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _batches(
    row: _Row,
    numbers: range,
    position: Callable[[int], int],
    arriving: _Arriving,
    threads: int,
    put: Callable[[Pictures], T],
) -> DatasetIterator[T]:
    most = min(_RUN, max(AHEAD * arriving.batch_size // threads, 1))  # every thread has a part
    run = max(size for size in range(1, most + 1) if arriving.batch_size % size == 0)
    runs = arriving.batch_size // run

    def part(number: int) -> Pictures:
        batch, which = divmod(number, runs)
        images = arriving.images(batch)
        # All are read before the first is decoded: in turns, both find the caches cold.
        positions = [position(number * run + i) for i in range(run)]
        read = [row.read(at) for at in positions]
        found = [
            row.picture(at, read[i], images[which * run + i]) for i, at in enumerate(positions)
        ]
        labels = np.array([one.labels for one in found], np.int32)
        weights = np.array([one.weights for one in found], np.float32)
        return Pictures(images, labels, weights, _all_bad(found))

    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, AHEAD * runs)
    )
    parts = grain.MapDataset.range(numbers.start // run, numbers.stop // run).map(part)
    batches = parts.to_iter_dataset(options).batch(runs, batch_fn=_join).map(put)
    return iter(ThreadPrefetchIterDataset(batches, prefetch_buffer_size=AHEAD))


def _join(parts: Sequence[Pictures]) -> Pictures:
    """Parts of a batch, which have its pixels in common, to the whole."""
    labels = np.concatenate([part.labels for part in parts])
    weights = np.concatenate([part.weights for part in parts])
    return Pictures(parts[0].images, labels, weights, _all_bad(parts))


def _all_bad(pictures: Sequence[Pictures]) -> dict[int, str]:
    return {index: why for one in pictures for index, why in one.bad.items()}


def _too_many(records: Records, bad: dict[int, str], data: Streamed) -> str:
    index = next(reversed(bad))
    return (
        f"{records.name(index)}: {bad[index]}; that is one more than the {data.bad_pictures} bad "
        "pictures that data.bad_pictures allows"
    )
