"""Data that stay on the devices: every device has the whole split, and steps get indices."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from resflax.data.in_memory import Split
from resflax.devices.parallel import Devices
from resflax.feeding.batch import ResidentSplit
from resflax.feeding.order import ExampleOrder


class ResidentTrainingFeed:
    """A `TrainingFeed` of a split that is whole on every device."""

    def __init__(self, devices: Devices, split: ResidentSplit, order: ExampleOrder) -> None:
        self.resident: ResidentSplit | None = split
        self.steps_per_call = devices.steps_per_call
        self.bad: dict[int, str] = {}
        self._devices, self._split, self._order = devices, split, order

    def in_order(self, order: ExampleOrder) -> "ResidentTrainingFeed":
        """A feed of the same examples in another order."""
        return ResidentTrainingFeed(self._devices, self._split, order)

    def sample_inputs(self) -> list[Any]:
        """One input, because all calls have inputs of the same shape."""
        return [self.call_input(0, 1)]

    def step_input(self, step: int) -> Any:
        """The indices (B,) int32 of one step, sharded over the devices."""
        return self._devices.shard(self._order.batch(step))

    def call_input(self, first: int, count: int) -> Any:
        """The indices (B, n) int32 of a call, sharded over the devices.

        n is `steps_per_call`. Column i has the indices of step `first` + i; the columns from
        `count` on are zero.
        """
        return self._devices.shard(self.indices(first, count))

    def indices(self, first: int, count: int) -> np.ndarray:
        """The indices (B, n) int32 of a call on the host, which `call_input` shards."""
        indices = np.zeros((self._order.batch_size, self.steps_per_call), np.int32)
        for i in range(count):
            indices[:, i] = self._order.batch(first + i)
        return indices

    def share_bad_examples(self) -> None:
        """Does nothing, because no example is bad."""

    def close(self) -> None:
        """Does nothing, because nothing runs in the background."""


class ResidentEvaluationFeed:
    """An `EvaluationFeed` of a split that is whole on every device."""

    def __init__(self, devices: Devices, split: Split) -> None:
        self.examples = len(split)
        self.resident: ResidentSplit | None = to_devices(devices, split)
        self._devices = devices

    def sample_input(self, batch_size: int) -> Any:
        """One input of an evaluation step; all have the same shape."""
        return next(self.batches(batch_size))

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yields indices (B,) int32 and weights (B,) float32, sharded over the devices."""
        for batch in evaluation_batches(self.examples, batch_size):
            yield self._devices.shard(batch)


def to_devices(devices: Devices, split: Split) -> ResidentSplit:
    """Copies a whole split to every device."""
    images, labels = devices.replicate((split.images, split.labels))
    return ResidentSplit(images, labels)


def evaluation_batches(examples: int, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches that take every example once.

    Each is a pair of indices (batch_size,) int32 and weights (batch_size,) float32. Examples of
    weight 0 fill up the last batch.
    """
    batches = []
    for start in range(0, examples, batch_size):
        positions = np.arange(start, start + batch_size)
        weights = (positions < examples).astype(np.float32)
        batches.append((np.minimum(positions, examples - 1).astype(np.int32), weights))
    return batches
