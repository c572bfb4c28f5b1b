"""Measures the network of a run, or the ensemble of several runs, on a split of their data."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resflax.data.description import describe
from resflax.data.encoded import SplitName
from resflax.declarations.checks import short
from resflax.declarations.data import Data
from resflax.devices import hosts
from resflax.devices.compilation import keep_compiled
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.evaluation.measures import Measures, measure_predictions
from resflax.evaluation.network import load_network
from resflax.evaluation.predictions_file import check_path, write_predictions
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.split_reader import (
    ExampleImages,
    data_in,
    open_split,
    trained_picture_format,
)
from resflax.evaluation.views import Views, view_maker
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display


@dataclass(frozen=True)
class Evaluation:
    """The measures of one run's network, or of the ensemble of several runs' networks."""

    measures: Measures
    """Measures of the predicted probabilities, which are averaged over views and runs."""
    split: SplitName
    views: Views
    runs: dict[str, int]
    """Number of steps that each network was trained for, by the path of its run folder."""
    bad_pictures: int = 0
    """Number of examples that could not be read. The measures leave them out."""

    def to_json(self) -> dict[str, Any]:
        """All fields, and those of `measures` and `views`, as one flat dict of plain JSON values.

        Numbers that are not finite become null.
        """
        numbers = asdict(self.measures)
        numbers["per_class_accuracy"] = [_or_none(x) for x in numbers["per_class_accuracy"]]
        for name in ("loss", "calibration_error"):
            numbers[name] = _or_none(numbers[name])
        others = {"bad_pictures": self.bad_pictures, "split": self.split, "runs": self.runs}
        return numbers | others | asdict(self.views)


def _or_none(number: float) -> float | None:
    """The number, or None if it is not finite, because JSON has no infinity."""
    return number if math.isfinite(number) else None


def evaluate(
    folders: Sequence[RunFolder],
    split: SplitName,
    data_dir: str | None,
    display: Display,
    views: Views = Views(),  # noqa: B008 (frozen)
    predictions: Path | None = None,
    *,
    best: bool = False,
) -> Evaluation:
    """Measures the newest good checkpoint of each run, or its best one, on all devices.

    Several runs are measured as an ensemble: their probabilities are averaged (He et al. 2015,
    Table 5). Several hosts divide the examples among themselves, and each returns the result for
    all examples.

    Args:
      folders: the folders of the runs.
      split: the split of the runs' data that is measured.
      data_dir: the folder where the data is now; None: the folder that the experiments declare.
      display: shows the progress, and which damaged checkpoints are skipped.
      views: the views of each picture.
      predictions: the file that `write_predictions` writes; None: nothing is written.
      best: whether the checkpoint with the lowest validation error of each run is measured.

    Raises:
      UsageError: if a folder is not a run's or has no such checkpoint; if its data cannot be read
        or does not allow these views; if a run is named twice or the runs have different data; if
        the predictions cannot be written.
      TrainingError: if all checkpoints of a run are damaged, or the best one is.
    """
    check_settings()
    declared = [data_in(folder.read_experiment().data, data_dir) for folder in folders]
    _check_ensemble(folders, declared)
    paths = [str(folder.path) for folder in folders]
    hosts.check_same("arguments", repr((*paths, split, data_dir, views, predictions, best)))
    if predictions is not None:
        hosts.on_first(partial(check_path, predictions))
    keep_compiled()
    num_classes = describe(declared[0]).num_classes
    reader = open_split(declared[0], split, display)
    numbers = hosts.part(len(reader))
    labels = np.zeros(len(numbers), np.int32)
    readable = np.zeros(len(numbers), bool)
    total: np.ndarray | None = None
    steps = {}
    for folder, data in zip(folders, declared, strict=True):
        picture_format = trained_picture_format(data)
        maker = view_maker(views, picture_format)
        network = load_network(folder, num_classes, picture_format.shape, display.say, best=best)
        steps[str(folder.path)] = network.step
        if views.mirrored and not data.flip:
            display.say(f"{folder.path} was not trained on mirrored pictures, as some views are")
        pictures = _images_noting_labels(reader.read(maker, numbers), labels, readable)
        with display.bar(f"{split} split", len(numbers)) as bar:
            scores = log_probabilities(network, maker, pictures, len(numbers), bar.set)
        total = scores if total is None else np.logaddexp(total, scores)
    assert total is not None, "at least one run was named"
    labels, total = hosts.joined(labels), hosts.joined(total)
    good = np.flatnonzero(hosts.joined(readable))
    if not len(good):
        raise UsageError(f"no picture of the {split} split can be read")
    labels, averaged = labels[good], total[good] - np.float32(math.log(len(folders)))
    if predictions is not None:
        hosts.on_first(partial(write_predictions, predictions, good, labels, averaged))
    bad = len(reader) - len(good)
    return Evaluation(measure_predictions(labels, averaged), split, views, steps, bad)


def _images_noting_labels(
    examples: Iterable[ExampleImages], labels: np.ndarray, readable: np.ndarray
) -> Iterator[list[np.ndarray]]:
    """Yields the images of each example, and notes its class and whether it can be read.

    Args:
      examples: the examples in order.
      labels: (N,) int32, filled with the classes; 0 for an example that cannot be read.
      readable: (N,) bool, filled with True for each example that can be read.
    """
    for place, example in enumerate(examples):
        readable[place] = example.label is not None
        labels[place] = example.label or 0
        yield example.images


_FIELDS_OF_EXAMPLES = (
    "name", "train_split", "test_split", "image_key", "label_key", "validation",
)  # fmt: skip
"""Fields of a data declaration that decide which examples a split has."""


def _check_ensemble(folders: Sequence[RunFolder], declared: Sequence[Data]) -> None:
    """Raises `UsageError` unless all runs are different and their data has the same examples."""
    paths = [folder.path.resolve() for folder in folders]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UsageError(f"{path} is named twice; an ensemble counts every run once")
    pictures = [folder.last_environment().get("data_sha256") for folder in folders]
    for folder, data, sha256 in zip(folders, declared, pictures, strict=True):
        for name in _FIELDS_OF_EXAMPLES:
            first, other = getattr(declared[0], name), getattr(data, name)
            if first != other:
                raise UsageError(
                    f"an ensemble needs runs of the same data, but data.{name} is {short(first)} "
                    f"in {folders[0].path} and {short(other)} in {folder.path}"
                )
        if None not in (sha256, pictures[0]) and sha256 != pictures[0]:
            raise UsageError(
                f"an ensemble needs runs of the same data, but {folders[0].path} and {folder.path} "
                "were trained on different pictures or labels"
            )
