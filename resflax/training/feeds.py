"""The data of a run as its compiled steps take it: kept on the devices, or streamed to them.

Steps get `on_devices` and a batch. Of data in memory these are whole splits and indices into them;
of streamed data nothing, and pictures. The loop cannot tell which it has.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from resflax.data.augmentation import Normalization, fit_normalization, imagenet_normalization
from resflax.data.feed import Order, evaluation_batches
from resflax.data.records import CHANNELS, Opened, Records, SplitName, open_records
from resflax.data.source import Dataset, Split, load, load_split
from resflax.data.stream import InOrder, Pictures, Share, Shuffled, default_threads
from resflax.declarations.data import Data, Streamed
from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment
from resflax.training import hosts
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.step import Batch, Examples


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
        ResidentTraining(_on_devices(devices, dataset.train), devices.steps_at_once, order),
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
        self.on_devices: Examples | None = _on_devices(devices, split)

    def kind(self, batch_size: int) -> tuple[Batch, Any]:
        """As `TestFeed` says."""
        return np.zeros(batch_size, np.int32), np.zeros(batch_size, np.float32)

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Any]]:
        """As `TestFeed` says."""
        yield from evaluation_batches(self.examples, batch_size)


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


def _held_out(dataset: Dataset) -> list[tuple[str, Split]]:
    test = [("test", dataset.test)]
    return test if dataset.validation is None else [("validation", dataset.validation), *test]


def _sha256(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split in (dataset.train, *(split for _, split in _held_out(dataset))):
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, "<i4").data)
    return digest.hexdigest()


def _on_devices(devices: Devices, split: Split) -> Examples:
    images, labels = devices.replicate((split.images, split.labels))
    return Examples(images, labels)
