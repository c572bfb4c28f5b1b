"""Measuring a run's network, or the ensemble of several runs, on a split of their data."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resflax.data.records import SplitName
from resflax.data.source import describe
from resflax.declarations.checks import short
from resflax.declarations.data import Data
from resflax.errors import UsageError
from resflax.evaluation.examples import Example, frame_of, load_examples, moved
from resflax.evaluation.measures import Measures, measures
from resflax.evaluation.network import load_network
from resflax.evaluation.predictions_file import check_path, write_predictions
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.views import Views, cutting
from resflax.training import hosts
from resflax.training.compilation import keep_compiled
from resflax.training.display import Display
from resflax.training.run_folder import RunFolder


@dataclass(frozen=True)
class Evaluation:
    """One or several runs' networks, measured."""

    measures: Measures
    """Of the probabilities averaged over views and runs."""
    split: SplitName
    views: Views
    runs: dict[str, int]
    """Folders, and the steps of training behind their networks."""
    bad_pictures: int = 0
    """Examples that could not be read, and do not count."""

    def to_json(self) -> dict[str, Any]:
        """All fields by name, those of `measures` and `views` among them; null for no number."""
        numbers = asdict(self.measures)
        numbers["per_class_accuracy"] = [_finite(x) for x in numbers["per_class_accuracy"]]
        for name in ("loss", "calibration_error"):
            numbers[name] = _finite(numbers[name])
        about = {"bad_pictures": self.bad_pictures, "split": self.split, "runs": self.runs}
        return numbers | about | asdict(self.views)


def _finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None


def evaluate(
    folders: Sequence[RunFolder],
    split: SplitName,
    data_dir: str | None,
    display: Display,
    views: Views = Views(),  # noqa: B008 (frozen)
    predictions: Path | None = None,
) -> Evaluation:
    """Measures the newest good checkpoints of runs, on all devices.

    Each of several hosts measures its part of the examples, and all return the whole. Of several
    runs it measures the ensemble: their probabilities averaged (He et al. 2015, Table 5).

    Args:
      folders: the runs'.
      split: of the runs' data.
      data_dir: where the data lies now; None: where the experiments say.
      display: shows how far it is, and which damaged checkpoints are passed over.
      views: of each picture.
      predictions: a file for `write_predictions`; None: none is written.

    Raises:
      UsageError: if a folder is no run, has no checkpoint, or its data cannot be read or has no
        such views; if runs are the same or have different data; if the predictions cannot be
        written.
      TrainingError: if all checkpoints of a run are damaged.
    """
    declared = [moved(folder.read_experiment().data, data_dir) for folder in folders]
    _check_same(folders, declared)
    asked = (*(str(folder.path) for folder in folders), split, data_dir, views, predictions)
    hosts.check_same("arguments", repr(asked))
    if predictions is not None:
        hosts.by_first(partial(check_path, predictions))
    keep_compiled()
    num_classes = describe(declared[0]).num_classes
    examples = load_examples(declared[0], split, display)
    numbers = hosts.part(len(examples))
    labels = np.empty(len(numbers), np.int32)
    total: np.ndarray | None = None
    runs = {}
    for folder, data in zip(folders, declared, strict=True):
        frame = frame_of(data)
        how = cutting(views, frame)
        network = load_network(folder, num_classes, frame.shape, display.say)
        runs[str(folder.path)] = network.step
        if views.mirrored and not data.flip:
            display.say(f"{folder.path} was not trained on mirrored pictures, as some views are")
        cuts = _noting(labels, examples.cut(how, numbers))
        with display.bar(f"{split} split", len(numbers)) as bar:
            found = log_probabilities(network, how, cuts, len(numbers), bar.set)
        total = found if total is None else np.logaddexp(total, found)
    assert total is not None, "there is a run"
    labels, total = hosts.joined(labels), hosts.joined(total)
    good = np.flatnonzero(labels >= 0)
    if not len(good):
        raise UsageError(f"no picture of the {split} split can be read")
    labels, averaged = labels[good], total[good] - np.float32(math.log(len(folders)))
    if predictions is not None:
        hosts.by_first(partial(write_predictions, predictions, good, labels, averaged))
    bad = len(examples) - len(good)
    return Evaluation(measures(labels, averaged), split, views, runs, bad)


def _noting(labels: np.ndarray, examples: Iterable[Example]) -> Iterator[list[np.ndarray]]:
    """What was cut of each example; its class is written to `labels`."""
    for number, example in enumerate(examples):
        labels[number] = example.label
        yield example.cuts


_CHOOSING = (
    "name", "data_dir", "train_split", "test_split", "image_key", "label_key", "validation",
)  # fmt: skip
"""Fields of data that decide which examples there are; the others are about training on them."""


def _check_same(folders: Sequence[RunFolder], declared: Sequence[Data]) -> None:
    """Raises `UsageError` unless the runs are different ones with the same examples."""
    paths = [folder.path.resolve() for folder in folders]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UsageError(f"{path} is named twice; an ensemble counts every run once")
    for folder, data in zip(folders, declared, strict=True):
        for name in _CHOOSING:
            first, other = getattr(declared[0], name), getattr(data, name)
            if first != other:
                raise UsageError(
                    f"an ensemble needs runs of the same data, and data.{name} is {short(first)} "
                    f"in {folders[0].path} and {short(other)} in {folder.path}"
                )
