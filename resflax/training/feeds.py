"""The data of a run as its compiled steps take it: kept on the devices, or streamed to them.

Steps get `on_devices` and a batch. Of data in memory these are whole splits and indices into them;
of streamed data nothing, and pictures. The loop cannot tell which it has.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from resflax.data.augmentation import Normalization, fit_normalization, imagenet_normalization
from resflax.data.feed import Order
from resflax.data.records import CHANNELS, Opened, SplitName, open_records
from resflax.data.source import Dataset, Split, load, load_split
from resflax.data.stream import InOrder, Share, Shuffled
from resflax.declarations.data import Data, Streamed
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.training import hosts
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.resident import ResidentTest, ResidentTraining, on_devices
from resflax.training.step import Batch, Examples
from resflax.training.streamed import StreamedTest, StreamedTraining


class TrainingFeed(Protocol):
    """The training examples, in the order in which steps take them."""

    on_devices: Examples | None
    """The split, if it is kept there."""
    steps_at_once: int
    """n, the most steps of one call."""
    bad: dict[int, str]
    """Examples found so far that cannot be read, and why. Part of a run's state."""

    def kinds(self) -> list[Any]:
        """For each shape that batches can have, what `batches` may give."""

    def batch(self, step: int) -> Batch:
        """What one step takes, counted from 0."""

    def batches(self, first: int, count: int) -> Any:
        """What a call of `count` steps from `first` on takes."""

    def agree(self) -> None:
        """Makes `bad` the same on all hosts. Raises `TrainingError` if there are too many now."""

    def close(self) -> None:
        """Ends what goes on in the background."""


class TestFeed(Protocol):
    """All examples of a split, each once."""

    examples: int
    on_devices: Examples | None

    def kind(self, batch_size: int) -> tuple[Batch, Any]:
        """Something of the shapes, types and places of all that `batches` gives."""

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Any]]:
        """Batches, and their examples' weights (batch_size,): 0 for those that do not count."""


@dataclass(frozen=True)
class Feeds:
    """What an experiment learns from and is measured on."""

    train: TrainingFeed
    held_out: dict[str, TestFeed]
    """`test`, and `validation` if the experiment holds examples out."""
    order: Order
    """Of the training examples."""
    steps: int
    """Length of the training."""
    num_classes: int
    image_shape: tuple[int, int, int]
    """(H, W, C), of tests."""
    normalization: Normalization
    sha256: str
    """Hash of all pictures and labels; of streamed data, of the names and sizes of their files."""


def open_feeds(experiment: Experiment, devices: Devices, display: Display) -> Feeds:
    """Reads the data, or opens it to be read. Raises `UsageError` if it is unfit."""
    data = experiment.data
    if isinstance(data, Streamed):
        opened = hosts.by_all(partial(open_records, data))
        hosts.check_same("pictures", opened.sha256)
        return _streamed(experiment, data, opened, devices, display)
    dataset = hosts.by_all(partial(load, data, display.items))
    sha256 = _sha256(dataset)
    hosts.check_same("pictures or labels", sha256)
    order = Order(len(dataset.train), experiment.batch_size, experiment.seed)
    held_out: dict[str, TestFeed] = {
        name: ResidentTest(devices, split) for name, split in _held_out(dataset)
    }
    return Feeds(
        ResidentTraining(on_devices(devices, dataset.train), devices.steps_at_once, order),
        held_out,
        order,
        _steps(experiment, order),
        dataset.num_classes,
        dataset.image_shape,
        fit_normalization(dataset.train.images, data),
        sha256,
    )


def open_test_feed(data: Data, split: SplitName, devices: Devices, display: Display) -> TestFeed:
    """One of the splits by itself, to be measured. Raises `UsageError` if it cannot be read."""
    if not isinstance(data, Streamed):
        return ResidentTest(devices, load_split(data, split, display.items))
    opened = open_records(data)
    test = InOrder(opened.split(data, split), data, opened.num_classes, _share(devices))
    return StreamedTest(devices, test, display.say)


def _streamed(
    experiment: Experiment, data: Streamed, opened: Opened, devices: Devices, display: Display
) -> Feeds:
    order = Order(len(opened.train), experiment.batch_size, experiment.seed)
    steps = _steps(experiment, order)
    share = _share(devices)
    training = Shuffled(opened.train, data, opened.num_classes, order, steps, share)
    tests = [("test", opened.test)]
    if opened.validation is not None:
        tests = [("validation", opened.validation), *tests]
    return Feeds(
        StreamedTraining(devices, training, display.say),
        {
            name: StreamedTest(
                devices, InOrder(records, data, opened.num_classes, share), display.say
            )
            for name, records in tests
        },
        order,
        steps,
        opened.num_classes,
        (data.image_size, data.image_size, CHANNELS),
        imagenet_normalization(),
        opened.sha256,
    )


def _share(devices: Devices) -> Share:
    return Share(jax.process_index(), devices.hosts) if devices.hosts > 1 else Share()


def _steps(experiment: Experiment, order: Order) -> int:
    if experiment.steps is not None:
        return experiment.steps
    assert experiment.epochs is not None, "Experiment has checked it"
    steps = order.steps(experiment.epochs)
    if not 1 <= steps < 2**31:
        raise UsageError(
            f"Experiment.epochs is {experiment.epochs}; with {order.examples} training examples "
            f"that makes {steps} steps, and there must be at least 1 and below 2**31"
        )
    return steps


def _held_out(dataset: Dataset) -> list[tuple[str, Split]]:
    test = [("test", dataset.test)]
    return test if dataset.validation is None else [("validation", dataset.validation), *test]


def _sha256(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split in (dataset.train, *(split for _, split in _held_out(dataset))):
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, "<i4").data)
    return digest.hexdigest()
