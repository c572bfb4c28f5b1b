"""Data in memory, kept whole on every device: steps take indices into it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from resflax.data.feed import Order, evaluation_batches
from resflax.data.source import Split
from resflax.training.devices import Devices
from resflax.training.step import Batch, Examples


class ResidentTraining:
    """Training examples that are whole on every device."""

    def __init__(self, examples: Examples, steps_at_once: int, order: Order) -> None:
        self.on_devices: Examples | None = examples
        self.steps_at_once, self.batch = steps_at_once, order.batch
        self.bad: dict[int, str] = {}
        self._examples, self._batch_size = examples, order.batch_size

    def in_order(self, order: Order) -> "ResidentTraining":
        """The same examples in another order."""
        return ResidentTraining(self._examples, self.steps_at_once, order)

    def kinds(self) -> list[Any]:
        """As `TrainingFeed` says."""
        return [np.zeros((self._batch_size, self.steps_at_once), np.int32)]

    def batches(self, first: int, count: int) -> Any:
        """(B, n) int32: column i has the indices of step `first` + i, and those behind are -1."""
        found = np.full((self._batch_size, self.steps_at_once), -1, np.int32)
        for i in range(count):
            found[:, i] = self.batch(first + i)
        return found

    def agree(self) -> None:
        """None is bad."""

    def close(self) -> None:
        """There is nothing to end."""


class ResidentTest:
    """A split that is whole on every device."""

    def __init__(self, devices: Devices, split: Split) -> None:
        self.examples = len(split)
        self.on_devices: Examples | None = on_devices(devices, split)

    def kind(self, batch_size: int) -> tuple[Batch, Any]:
        """As `TestFeed` says."""
        return np.zeros(batch_size, np.int32), np.zeros(batch_size, np.float32)

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Any]]:
        """As `TestFeed` says."""
        yield from evaluation_batches(self.examples, batch_size)


def on_devices(devices: Devices, split: Split) -> Examples:
    """A split, copied whole to every device."""
    images, labels = devices.replicate((split.images, split.labels))
    return Examples(images, labels)
