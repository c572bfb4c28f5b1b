"""Streamed data: pictures are read while the devices work, and those that are bad passed over."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from resflax.data.records import CHANNELS, Records
from resflax.data.stream import InOrder, Pictures, Shuffled, default_threads
from resflax.declarations.data import Streamed
from resflax.errors import TrainingError
from resflax.training import hosts
from resflax.training.devices import Devices
from resflax.training.step import Batch, Examples


class StreamedTraining:
    """Training pictures that are read while the devices work, at least two batches ahead."""

    on_devices: Examples | None = None
    steps_at_once = 1

    def __init__(
        self,
        devices: Devices,
        training: Shuffled,
        say: Callable[[str], None],
        threads: int | None = None,
    ) -> None:
        self.bad: dict[int, str] = {}
        self._devices, self._training, self._say = devices, training, say
        self._threads = threads or default_threads()
        self._coming: Any = None
        self._next = -1

    def kinds(self) -> list[Any]:
        """As `TrainingFeed` says."""
        training = self._training
        count = len(training.share.rows(training.order.batch_size))
        sides = {training.data.image_size}
        sides = set(training.data.training_sizes) or sides
        return [
            self._deal(np.zeros((count, side, side, CHANNELS), np.uint8), np.zeros(count, np.int32))
            for side in sorted(sides)
        ]

    def batch(self, step: int) -> Batch:
        """As `TrainingFeed` says. Raises `TrainingError` if too many pictures are bad."""
        if step != self._next:
            self.close()
            self._coming = self._training.batches(step, self._threads, self._place)
        self._next = -1  # if this fails, the next call begins anew
        examples, bad = next(self._coming)
        self._next = step + 1
        self._note(bad)
        return examples

    def batches(self, first: int, count: int) -> Any:
        """As `TrainingFeed` says; `count` is 1."""
        return self.batch(first)

    def agree(self) -> None:
        """As `TrainingFeed` says."""
        self._note(hosts.united(self.bad))
        limit_bad(self.bad, self._training.data)

    def _note(self, bad: dict[int, str]) -> None:
        note_bad(self.bad, bad, self._training.records, self._training.data, self._say)

    def close(self) -> None:
        """As `TrainingFeed` says."""
        if self._coming is not None:
            self._coming.close()
        self._coming, self._next = None, -1

    def _place(self, pictures: Pictures) -> tuple[Examples, dict[int, str]]:
        return self._deal(pictures.images, pictures.labels), pictures.bad

    def _deal(self, images: np.ndarray, labels: Any) -> Examples:
        return Examples(*self._devices.deal((images, labels)))


class StreamedTest:
    """A split that is read anew for every evaluation."""

    on_devices: Examples | None = None

    def __init__(self, devices: Devices, test: InOrder, say: Callable[[str], None]) -> None:
        self.examples = len(test.records)
        self._devices, self._test, self._say = devices, test, say

    def kind(self, batch_size: int) -> tuple[Batch, Any]:
        """As `TestFeed` says."""
        side = self._test.data.image_size
        count = len(self._test.share.rows(batch_size))
        images = np.zeros((count, side, side, CHANNELS), np.uint8)
        return self._deal(images, np.zeros(count, np.int32), np.zeros(count, np.float32))

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Any]]:
        """As `TestFeed` says. Raises `TrainingError` if too many pictures are bad."""
        found: dict[int, str] = {}
        about = self._test.records, self._test.data, self._say
        coming = self._test.batches(batch_size, default_threads(), self._place)
        try:
            for batch, bad in coming:
                note_bad(found, bad, *about)
                yield batch
            note_bad(found, hosts.united(found), *about)
            limit_bad(found, self._test.data)
        finally:
            coming.close()

    def _place(self, pictures: Pictures) -> tuple[tuple[Batch, Any], dict[int, str]]:
        return self._deal(*pictures[:3]), pictures.bad

    def _deal(self, images: np.ndarray, labels: Any, weights: Any) -> tuple[Batch, Any]:
        *examples, counted = self._devices.deal((images, labels, weights))
        return Examples(*examples), counted


def note_bad(
    known: dict[int, str],
    found: dict[int, str],
    records: Records,
    data: Streamed,
    say: Callable[[str], None],
) -> None:
    """Adds bad examples to those that are known, and says so.

    Raises `TrainingError` if there are more than `data.bad_pictures` now; where there are several
    hosts, `limit_bad` does so on all together.
    """
    for index in found.keys() - known.keys():
        known[index] = found[index]
        text = f"{records.name(index)}: {found[index]}"
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
