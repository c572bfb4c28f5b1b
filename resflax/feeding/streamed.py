"""Streamed data: pictures are decoded while the devices work, and bad ones are skipped."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from resflax.data.encoded import CHANNELS, EncodedExamples
from resflax.declarations.data import Streamed
from resflax.devices import hosts
from resflax.devices.parallel import Devices
from resflax.errors import TrainingError
from resflax.feeding.batch import Batch
from resflax.feeding.decoding import (
    DecodedPictures,
    OrderedPictures,
    ShuffledPictures,
    default_threads,
)


class StreamedTrainingFeed:
    """A `TrainingFeed` of pictures that are decoded at least two batches ahead."""

    resident = None
    steps_per_call = 1

    def __init__(
        self,
        devices: Devices,
        pictures: ShuffledPictures,
        say: Callable[[str], None],
        threads: int | None = None,
    ) -> None:
        self.bad: dict[int, str] = {}
        self._devices, self._pictures, self._say = devices, pictures, say
        self._threads = threads or default_threads()
        self._coming: Any = None
        """Iterator over the batches that threads are decoding, from step `_next` on."""
        self._next: int | None = None

    def sample_inputs(self) -> list[Any]:
        """One input for each shape that calls have, which is one for each training picture size."""
        pictures = self._pictures
        count = len(pictures.host.rows(pictures.order.batch_size))
        sides = set(pictures.data.training_sizes) or {pictures.data.image_size}
        return [
            self._shard(
                np.zeros((count, side, side, CHANNELS), np.uint8), np.zeros(count, np.int32)
            )
            for side in sorted(sides)
        ]

    def step_input(self, step: int) -> Batch:
        """The `Batch` of one step, sharded over the devices.

        Raises `TrainingError` if too many pictures are bad.
        """
        if step != self._next:
            self.close()
            self._coming = self._pictures.batches(step, self._threads, self._put)
        self._next = None  # makes the next call begin anew if this one fails
        batch, bad = next(self._coming)
        self._next = step + 1
        self._note(bad)
        return batch

    def call_input(self, first: int, count: int) -> Batch:
        """The `Batch` of a call, which does one step, so `count` must be 1."""
        return self.step_input(first)

    def share_bad_examples(self) -> None:
        """Makes `bad` equal on all hosts.

        Raises `TrainingError` if they have met too many bad pictures together.
        """
        self._note(hosts.united(self.bad))
        limit_bad(self.bad, self._pictures.data)

    def close(self) -> None:
        """Ends the threads that decode pictures."""
        if self._coming is not None:
            self._coming.close()
        self._coming, self._next = None, None

    def _note(self, bad: dict[int, str]) -> None:
        note_bad(self.bad, bad, self._pictures.examples, self._pictures.data, self._say)

    def _put(self, pictures: DecodedPictures) -> tuple[Batch, dict[int, str]]:
        return self._shard(pictures.images, pictures.labels), pictures.bad

    def _shard(self, images: np.ndarray, labels: Any) -> Batch:
        return self._devices.shard_own_rows(Batch(images, labels))


class StreamedEvaluationFeed:
    """An `EvaluationFeed` of a split that is read and decoded again for every evaluation."""

    resident = None

    def __init__(
        self, devices: Devices, pictures: OrderedPictures, say: Callable[[str], None]
    ) -> None:
        self.examples = len(pictures.examples)
        self._devices, self._pictures, self._say = devices, pictures, say

    def sample_input(self, batch_size: int) -> Any:
        """One input of an evaluation step; all have the same shape."""
        side = self._pictures.data.image_size
        count = len(self._pictures.host.rows(batch_size))
        images = np.zeros((count, side, side, CHANNELS), np.uint8)
        return self._shard(images, np.zeros(count, np.int32), np.zeros(count, np.float32))

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yields each `Batch` with its weights (B,) float32, sharded over the devices.

        Raises `TrainingError` if too many pictures are bad.
        """
        all_bad: dict[int, str] = {}
        pictures = self._pictures
        coming = pictures.batches(batch_size, default_threads(), self._put)
        try:
            for batch, bad in coming:
                note_bad(all_bad, bad, pictures.examples, pictures.data, self._say)
                yield batch
            note_bad(all_bad, hosts.united(all_bad), pictures.examples, pictures.data, self._say)
            limit_bad(all_bad, pictures.data)
        finally:
            coming.close()

    def _put(self, pictures: DecodedPictures) -> tuple[Any, dict[int, str]]:
        return self._shard(pictures.images, pictures.labels, pictures.weights), pictures.bad

    def _shard(self, images: np.ndarray, labels: Any, weights: Any) -> Any:
        return self._devices.shard_own_rows((Batch(images, labels), weights))


def note_bad(
    known: dict[int, str],
    new: dict[int, str],
    examples: EncodedExamples,
    data: Streamed,
    say: Callable[[str], None],
) -> None:
    """Adds bad examples to the known ones, and prints a line about each new one.

    Raises `TrainingError` if there are now more than `data.bad_pictures`, except on several hosts,
    which must first unite what they know and then call `limit_bad`.
    """
    for index in new.keys() - known.keys():
        known[index] = new[index]
        text = f"{examples.name(index)}: {new[index]}"
        if len(known) > data.bad_pictures and not hosts.several():
            raise TrainingError(
                f"{text}; that is bad picture number {len(known)}, and data.bad_pictures allows "
                f"{data.bad_pictures}"
            )
        say(f"{text}; passed over ({len(known)} of at most {data.bad_pictures})")


def limit_bad(known: dict[int, str], data: Streamed) -> None:
    """Raises `TrainingError` if more examples are bad than `data.bad_pictures`."""
    if len(known) > data.bad_pictures:
        raise TrainingError(
            f"{len(known)} bad pictures, and data.bad_pictures allows {data.bad_pictures}"
        )
