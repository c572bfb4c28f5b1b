"""Batches of streamed pictures, read and decoded by threads while the devices work.

Training takes its examples in the order of `feeding.order`. The picture at a position of that
order depends only on the position and the seed, not on threads, hosts, or where the reading began.
So a run that is continued in the middle of an epoch gets the same batches, and no state of the
reader has to be saved.
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
from resflax.data.draws import Doubles
from resflax.data.encoded import CHANNELS, EncodedExamples, check_label
from resflax.data.faults import EncodedOrFault, read_example, reason_of_damage, say_nothing
from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.resizing import copy_into
from resflax.declarations.data import Streamed
from resflax.errors import TrainingError
from resflax.feeding.buffers import BufferPool
from resflax.feeding.order import ExampleOrder

T = TypeVar("T")

AHEAD = 2
"""Number of batches that are decoded before they are asked for. As many more are already on the
devices."""

# The most pictures that a thread decodes before it hands them over; each hand-over takes time.
_MOST_IN_A_ROW = 32

_of_thread = threading.local()


class DecodedPictures(NamedTuple):
    """A batch of pictures, or a single one without the leading axis."""

    images: np.ndarray
    """(B, side, side, 3) uint8."""
    labels: np.ndarray | np.int32
    """(B,) int32."""
    weights: np.ndarray | np.float32
    """(B,) float32: 0 for pictures of an evaluation that cannot be read or only fill up a batch."""
    bad: dict[int, str]
    """The reason why each bad example could not be read, by the example's index."""


@dataclass(frozen=True)
class HostRows:
    """The rows of each batch that one of several hosts reads."""

    host: int = 0
    hosts: int = 1

    def rows(self, batch_size: int) -> range:
        """The host's rows of a batch of `batch_size` examples, which must be a multiple of `hosts`.

        The batch is that of all hosts together.
        """
        size = batch_size // self.hosts
        return range(self.host * size, (self.host + 1) * size)


def position_of(rows: range, batch_size: int) -> Callable[[int], int]:
    """A function that maps the number of a picture on a host to its position among all pictures.

    `rows` are the host's rows of each batch.
    """

    def position(number: int) -> int:
        batch, row = divmod(number, len(rows))
        return batch * batch_size + rows[row]

    return position


@dataclass(frozen=True)
class ShuffledPictures:
    """The training pictures in the order in which steps take them."""

    examples: EncodedExamples
    data: Streamed
    num_classes: int
    order: ExampleOrder
    """The order of the examples, in batches of all hosts together."""
    steps: int
    """Number of steps of the training, which are divided among the `training_sizes`."""
    host: HostRows = HostRows()
    say: Callable[[str], None] = say_nothing
    """Shows a line of text if something has to be read once more. Threads may call it."""

    def side(self, step: int) -> int:
        """Height and width of the pictures of a step."""
        sizes = self.data.training_sizes or (self.data.image_size,)
        return sizes[min(step * len(sizes) // self.steps, len(sizes) - 1)]

    def read(self, position: int) -> EncodedOrFault:
        """Reads the encoded picture at a position. Raises `SystemFault` if the system cannot."""
        return self._read(self.order.example(position))

    def _read(self, index: int) -> EncodedOrFault:
        return read_example(self.examples, index, self.say)

    def picture(
        self, position: int, encoded: EncodedOrFault, into: np.ndarray | None = None
    ) -> DecodedPictures:
        """Decodes the picture that was read at a position.

        If it is bad, the next good picture at a later position takes its place. The pixels are
        written to `into` if it is given. Raises `TrainingError` if too many in a row are bad, and
        `SystemFault` if one cannot be read although it may be good.
        """
        side = self.side(position // self.order.batch_size)
        bad: dict[int, str] = {}
        for other in range(position, position + self.data.bad_pictures + 1):
            index = self.order.example(other)
            try:
                picture, label = _readable(encoded if other == position else self._read(index))
                check_label(label, self.num_classes)
                doubles = doubles_at(self.order.seed, other)
                image = random_square(picture, self.data, side, doubles, into)
            except Exception as error:  # a damaged file may raise any error
                bad[index] = reason_of_damage(error, self.examples.name(index))
            else:
                return DecodedPictures(image, np.int32(label), np.float32(1), bad)
        raise TrainingError(_too_many(self.examples, bad, self.data))

    def batches(
        self, first: int, threads: int, put: Callable[[DecodedPictures], T]
    ) -> DatasetIterator[T]:
        """An endless iterator over `put(batch)` for the steps from `first` on.

        Batches are decoded, and `put` is called, in advance.
        """
        rows = self.host.rows(self.order.batch_size)
        position = position_of(rows, self.order.batch_size)
        numbers = range(first * len(rows), 2**62)
        filling = _BatchesInProgress(len(rows), self.side)
        return _batches(self, numbers, position, filling, threads, put)


@dataclass(frozen=True)
class OrderedPictures:
    """All pictures of a split, each once, for an evaluation."""

    examples: EncodedExamples
    data: Streamed
    num_classes: int
    host: HostRows = HostRows()
    say: Callable[[str], None] = say_nothing
    """Shows a line of text if something has to be read once more. Threads may call it."""

    def read(self, number: int) -> EncodedOrFault:
        """Reads the encoded picture of an example; raises `SystemFault` if the system cannot."""
        if number >= len(self.examples):
            return "only fills up the batch"
        return read_example(self.examples, number, self.say)

    def picture(
        self, number: int, encoded: EncodedOrFault, into: np.ndarray | None = None
    ) -> DecodedPictures:
        """Decodes the picture of an example; a bad or missing one is black and has weight 0.

        The pixels are written to `into` if it is given.
        """
        side = self.data.image_size
        bad: dict[int, str] = {}
        if number < len(self.examples):
            try:
                picture, label = _readable(encoded)
                check_label(label, self.num_classes)
                image = central_square(picture, self.data, side, into)
                return DecodedPictures(image, np.int32(label), np.float32(1), bad)
            except Exception as error:  # a damaged file may raise any error
                bad[number] = reason_of_damage(error, self.examples.name(number))
        black = np.zeros((side, side, CHANNELS), np.uint8)
        return DecodedPictures(copy_into(black, into), np.int32(0), np.float32(0), bad)

    def batches(
        self, batch_size: int, threads: int, put: Callable[[DecodedPictures], T]
    ) -> DatasetIterator[T]:
        """An iterator over `put(batch)` that takes every example once.

        Black pictures of weight 0 fill up the last batch.
        """
        rows = self.host.rows(batch_size)
        numbers = range(-(-len(self.examples) // batch_size) * len(rows))
        filling = _BatchesInProgress(len(rows), lambda _: self.data.image_size)
        return _batches(self, numbers, position_of(rows, batch_size), filling, threads, put)


def doubles_at(seed: int, position: int) -> Doubles:
    """The random numbers of a position, from a Philox whose key is (seed, position).

    Each thread has one Philox, which each call resets, because a new one would ask the operating
    system for a seed.
    """
    philox: np.random.Philox | None = getattr(_of_thread, "philox", None)
    if philox is None:
        philox = _of_thread.philox = np.random.Philox()
    philox.state = {
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
    return Doubles(philox)


def default_threads() -> int:
    """Twice the number of this process's cores, because some threads wait for the disk."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no such function
        cores = os.cpu_count() or 1
    return 2 * cores


class _BatchesInProgress:
    """The pixels of the batches that threads are filling, each picture in its own row."""

    def __init__(self, batch_size: int, side: Callable[[int], int]) -> None:
        self.batch_size, self._side = batch_size, side
        self._lock, self._buffers = threading.Lock(), BufferPool()
        # Parts of a batch that threads are making or have yet to join keep its array alive.
        self._images: WeakValueDictionary[int, np.ndarray] = WeakValueDictionary()

    def images(self, batch: int) -> np.ndarray:
        """The pixels of a batch, (B, side, side, 3) uint8.

        Each call returns the same array while it is in use.
        """
        with self._lock:
            images = self._images.get(batch)
            if images is None:
                side = self._side(batch)
                images = self._buffers.array(self.batch_size, side, side, CHANNELS)
                self._images[batch] = images
            return images


class _PictureSource(Protocol):
    """Pictures by position. Any thread may ask for any of them."""

    def read(self, position: int, /) -> EncodedOrFault:
        """Reads the encoded picture at a position."""

    def picture(
        self, position: int, encoded: EncodedOrFault, into: np.ndarray, /
    ) -> DecodedPictures:
        """Decodes the picture that was read at a position, and writes its pixels to `into`."""


def _readable(encoded: EncodedOrFault) -> tuple[bytes, int]:
    if isinstance(encoded, str):
        raise BadPicture(encoded)
    return encoded


def _batches(
    source: _PictureSource,
    numbers: range,
    position: Callable[[int], int],
    filling: _BatchesInProgress,
    threads: int,
    put: Callable[[DecodedPictures], T],
) -> DatasetIterator[T]:
    # Parts are so small that every thread gets one, and they divide a batch evenly.
    most = min(_MOST_IN_A_ROW, max(AHEAD * filling.batch_size // threads, 1))
    size = max(n for n in range(1, most + 1) if filling.batch_size % n == 0)
    parts_per_batch = filling.batch_size // size

    def part(number: int) -> DecodedPictures:
        batch, place = divmod(number, parts_per_batch)
        images = filling.images(batch)
        # All are read before the first is decoded, because alternating would leave both with cold
        # caches.
        positions = [position(number * size + i) for i in range(size)]
        encoded = [source.read(at) for at in positions]
        pictures = [
            source.picture(at, encoded[i], images[place * size + i])
            for i, at in enumerate(positions)
        ]
        labels = np.array([picture.labels for picture in pictures], np.int32)
        weights = np.array([picture.weights for picture in pictures], np.float32)
        return DecodedPictures(images, labels, weights, _all_bad(pictures))

    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, AHEAD * parts_per_batch)
    )
    parts = grain.MapDataset.range(numbers.start // size, numbers.stop // size).map(part)
    batches = parts.to_iter_dataset(options).batch(parts_per_batch, batch_fn=_join).map(put)
    return iter(ThreadPrefetchIterDataset(batches, prefetch_buffer_size=AHEAD))


def _join(parts: Sequence[DecodedPictures]) -> DecodedPictures:
    """Joins parts, which share the array of pixels, to a whole batch."""
    labels = np.concatenate([part.labels for part in parts])
    weights = np.concatenate([part.weights for part in parts])
    return DecodedPictures(parts[0].images, labels, weights, _all_bad(parts))


def _all_bad(pictures: Sequence[DecodedPictures]) -> dict[int, str]:
    return {index: why for picture in pictures for index, why in picture.bad.items()}


def _too_many(examples: EncodedExamples, bad: dict[int, str], data: Streamed) -> str:
    index = next(reversed(bad))
    return (
        f"{examples.name(index)}: {bad[index]}; that is one more than the {data.bad_pictures} bad "
        "pictures that data.bad_pictures allows"
    )
