"""How compiled steps get a run's data, which either stay on the devices or are streamed to them.

A compiled step gets `resident`, which stays on the devices, and what the host gives it for the
step. `Feeds.gather` makes the batch from both inside the program. For data in memory, `resident` is
the whole split and the host gives indices. For streamed data, `resident` is None and the host gives
the batch itself. Code that trains and evaluates need not know which kind of data it has.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from resflax.data.encoded import CHANNELS, EncodedSplits, open_splits
from resflax.data.in_memory import Dataset, Split, load_dataset
from resflax.data.normalization import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalization,
    fit_normalization,
    from_colours,
)
from resflax.declarations.data import Streamed
from resflax.devices import hosts
from resflax.devices.parallel import Devices
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.feeding.batch import Gather, gather_resident, gather_streamed
from resflax.feeding.decoding import HostRows, OrderedPictures, ShuffledPictures
from resflax.feeding.order import ExampleOrder
from resflax.feeding.resident import ResidentEvaluationFeed, ResidentTrainingFeed, to_devices
from resflax.feeding.streamed import StreamedEvaluationFeed, StreamedTrainingFeed
from resflax.terminal.display import Display


class TrainingFeed(Protocol):
    """The training examples, in the order in which steps take them."""

    resident: Any
    """What stays on the devices between calls."""
    steps_per_call: int
    """The largest number of steps in one call."""
    bad: dict[int, str]
    """The reason why each bad example met so far could not be read, by the example's index. It is
    saved in checkpoints."""

    def sample_inputs(self) -> list[Any]:
        """One input for each shape that `call_input` may return."""

    def step_input(self, step: int) -> Any:
        """What the host gives to one step, counted from 0."""

    def call_input(self, first: int, count: int) -> Any:
        """What the host gives to a call of `count` steps from `first` on."""

    def share_bad_examples(self) -> None:
        """Makes `bad` equal on all hosts. Raises `TrainingError` if too many examples are bad."""

    def close(self) -> None:
        """Ends the work that runs in the background."""


class EvaluationFeed(Protocol):
    """All examples of a split, each once."""

    examples: int
    resident: Any
    """What stays on the devices between batches."""

    def sample_input(self, batch_size: int) -> Any:
        """One input of the shape that `batches` yields."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yields what the host gives to each evaluation step and the weights (B,) of its examples.

        Examples of weight 0 do not count.
        """


@dataclass(frozen=True)
class Feeds:
    """The data that an experiment learns from and is measured on."""

    train: TrainingFeed
    evaluation: dict[str, EvaluationFeed]
    """Feeds by split: `validation` first if examples are held out, then `test`."""
    gather: Gather
    """Makes the batch inside a compiled step."""
    order: ExampleOrder
    """The order of the training examples."""
    steps: int
    """Number of steps of the training."""
    num_classes: int
    image_shape: tuple[int, int, int]
    """(H, W, C) of the images in evaluations."""
    normalization: Normalization
    sha256: str
    """Hash of all pictures and labels; for streamed data, of the names and sizes of their files."""


def open_feeds(experiment: Experiment, devices: Devices, display: Display) -> Feeds:
    """Reads the data, or opens it for streaming. Raises `UsageError` if it cannot be used."""
    data = experiment.data
    if isinstance(data, Streamed):
        splits = hosts.on_all(partial(open_splits, data))
        hosts.check_same("pictures", splits.sha256)
        for note in splits.notes:
            display.say(note)
        return _streamed(experiment, data, splits, devices, display)
    dataset = hosts.on_all(partial(load_dataset, data, display.items))
    sha256 = _sha256(dataset)
    hosts.check_same("pictures or labels", sha256)
    order = ExampleOrder(len(dataset.train), experiment.batch_size, experiment.seed)
    return Feeds(
        train=ResidentTrainingFeed(devices, to_devices(devices, dataset.train), order),
        evaluation={
            name: ResidentEvaluationFeed(devices, split) for name, split in _held_out(dataset)
        },
        gather=gather_resident,
        order=order,
        steps=_count_steps(experiment, order),
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        normalization=fit_normalization(dataset.train.images, data),
        sha256=sha256,
    )


def _streamed(
    experiment: Experiment,
    data: Streamed,
    splits: EncodedSplits,
    devices: Devices,
    display: Display,
) -> Feeds:
    order = ExampleOrder(len(splits.train), experiment.batch_size, experiment.seed)
    steps, classes = _count_steps(experiment, order), splits.num_classes
    host = HostRows(jax.process_index(), devices.hosts) if devices.hosts > 1 else HostRows()
    shuffled = ShuffledPictures(splits.train, data, classes, order, steps, host, display.say)
    held_out = {"test": splits.test}
    if splits.validation is not None:
        held_out = {"validation": splits.validation, **held_out}
    return Feeds(
        train=StreamedTrainingFeed(devices, shuffled, display.say),
        evaluation={
            name: StreamedEvaluationFeed(
                devices, OrderedPictures(examples, data, classes, host, display.say), display.say
            )
            for name, examples in held_out.items()
        },
        gather=gather_streamed,
        order=order,
        steps=steps,
        num_classes=classes,
        image_shape=(data.image_size, data.image_size, CHANNELS),
        normalization=from_colours(IMAGENET_MEAN, IMAGENET_STD),
        sha256=splits.sha256,
    )


def _count_steps(experiment: Experiment, order: ExampleOrder) -> int:
    steps = experiment.count_steps(order.examples)
    if not 1 <= steps < 2**31:
        raise UsageError(
            f"Experiment.epochs is {experiment.epochs}; with {order.examples} training examples "
            f"that makes {steps} steps; there must be at least 1 and fewer than 2**31"
        )
    return steps


def _held_out(dataset: Dataset) -> Sequence[tuple[str, Split]]:
    test = [("test", dataset.test)]
    return test if dataset.validation is None else [("validation", dataset.validation), *test]


def _sha256(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split in (dataset.train, *(split for _, split in _held_out(dataset))):
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, "<i4").data)
    return digest.hexdigest()
