"""Measures the network of a run, or the ensemble of several runs, on a split of their data."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resflax.data.encoded import SplitName
from resflax.declarations.checks import short
from resflax.declarations.data import Data, ImageFolder
from resflax.devices import hosts
from resflax.devices.compilation import keep_compiled
from resflax.devices.kernels import kernels_note
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.evaluation.measures import Measures, among_classes, measure_predictions
from resflax.evaluation.network import load_network
from resflax.evaluation.other_data import OtherData, is_own
from resflax.evaluation.predictions_file import check_path, write_predictions
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.split_reader import ExampleImages, data_in
from resflax.evaluation.subject import DataMeasured, other_subject, own_subject
from resflax.evaluation.views import Views, view_maker
from resflax.paths import user_path
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display
from resflax.text import path_text

Among = Literal["all", "present"]
"""The classes among which the networks guess: all of theirs, or those that the measured examples
have."""


@dataclass(frozen=True)
class Evaluation:
    """The measures of one run's network, or of the ensemble of several runs' networks."""

    measures: Measures
    """Measures of the predicted probabilities, which are averaged over views and runs."""
    split: SplitName
    views: Views
    runs: dict[str, int]
    """Number of steps that each network was trained for, by the path of its run folder."""
    data: DataMeasured
    """The data that was measured."""
    class_names: tuple[str, ...] | None = None
    """The names of the networks' classes in order; None if they are not known."""
    classes: Among = "all"
    """The classes among which the networks guessed."""
    classes_present: int = 0
    """Number of classes that the measured examples have."""
    bad_pictures: int = 0
    """Number of examples that could not be read. The measures leave them out."""
    unlabelled_pictures: int = 0
    """Number of examples without a label, if examples may have several. The measures leave them
    out."""

    def to_json(self) -> dict[str, Any]:
        """All fields, and those of `measures` and `views`, as one flat dict of plain JSON values.

        The fields of `data` are a dict of their own. Numbers that are not finite become null.
        """
        numbers = asdict(self.measures)
        numbers["per_class_accuracy"] = [_or_none(x) for x in numbers["per_class_accuracy"]]
        for name in ("loss", "calibration_error"):
            numbers[name] = _or_none(numbers[name])
        others = {
            "bad_pictures": self.bad_pictures,
            "unlabelled_pictures": self.unlabelled_pictures,
            "classes": self.classes,
            "class_names": self.class_names,
            "classes_present": self.classes_present,
            "split": self.split,
            "data": self.data.to_json(),
            "runs": self.runs,
        }
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
    data: OtherData | Data | None = None,
    classes: Among = "all",
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
      data: other data to measure: a declaration, or the fields in which it differs from the runs'
        own. Networks see its pictures as those of their own test split. None: the runs' own data.
      classes: `present`: the probabilities are those given that the class is one which a measured
        example has: the averaged probabilities of these classes, divided by their sum.

    Raises:
      UsageError: if a folder is not a run's or has no such checkpoint; if its data cannot be read
        or does not allow these views; if a run is named twice or the runs have different data or
        classes; if other data does not fit the networks; if the predictions cannot be written.
      TrainingError: if all checkpoints of a run are damaged, or the best one is.
    """
    check_settings()
    declared = [data_in(folder.read_experiment().data, data_dir) for folder in folders]
    measured = [_replaced(own, data) for own in declared]
    other = not all(map(is_own, declared, measured))
    _check_runs_differ(folders)
    _check_same_examples(folders, measured if other else declared)
    if not other:
        _check_same_pictures(folders)
    paths = [str(folder.path) for folder in folders]
    arguments = (*paths, split, data_dir, views, predictions, best, data, classes)
    hosts.check_same("arguments", repr(arguments))
    if predictions is not None:
        hosts.on_first(partial(check_path, predictions))
    keep_compiled()
    if (note := kernels_note()) is not None:
        display.say(note)
    subject = (
        other_subject(folders, declared, measured[0], split, display, best=best)
        if other
        else own_subject(declared, split, display)
    )
    reader = subject.reader
    numbers = hosts.part(len(reader))
    labels: list[tuple[int, ...] | None] = []
    total: np.ndarray | None = None
    steps = {}
    for folder, own, picture_format in zip(folders, declared, subject.formats, strict=True):
        maker = view_maker(views, picture_format)
        shape = picture_format.shape
        network = load_network(folder, subject.num_classes, shape, display.say, best=best)
        steps[str(folder.path)] = network.step
        if views.mirrored and not own.flip:
            display.say(f"{folder.path} was not trained on mirrored pictures, as some views are")
        labels.clear()
        pictures = _images_noting_labels(reader.read(maker, numbers), labels)
        with display.bar(f"{split} split", len(numbers)) as bar:
            scores = log_probabilities(network, maker, pictures, len(numbers), bar.set)
        total = scores if total is None else np.logaddexp(total, scores)
    assert total is not None, "at least one run was named"
    total = hosts.joined(total)
    readable = hosts.joined(np.array([of_one is not None for of_one in labels], bool))
    most = hosts.highest(max((len(of_one or ()) for of_one in labels), default=1))
    table = hosts.joined(_table(labels, max(most, 1)))
    good = np.flatnonzero(readable & (table >= 0).any(axis=1))
    if not len(good):
        lacking = "can be read" if not readable.any() else "has a label"
        raise UsageError(f"no picture of the {split} split {lacking}")
    table, averaged = table[good], total[good] - np.float32(math.log(len(folders)))
    present = np.unique(table[table >= 0])
    if classes == "present":
        if len(present) == 1:
            raise UsageError(
                f"all measured pictures are of class {present[0]}, so that guesses among the "
                "classes that are present could not be wrong"
            )
        averaged = among_classes(averaged, present)
    right = table if subject.data.several_labels else table[:, 0]
    if predictions is not None:
        hosts.on_first(partial(write_predictions, predictions, good, right, averaged))
    return Evaluation(
        measures=measure_predictions(right, averaged),
        split=split,
        views=views,
        runs=steps,
        data=subject.data,
        class_names=None if subject.class_names is None else tuple(subject.class_names),
        classes=classes,
        classes_present=len(present),
        bad_pictures=int(np.sum(~readable)),
        unlabelled_pictures=int(np.sum(readable)) - len(good),
    )


def _replaced(own: Data, other: OtherData | Data | None) -> Data:
    """The data that is measured, for a run with the data `own`."""
    if other is None:
        return own
    if not isinstance(other, OtherData):
        return other
    replaced = other.replaced_in(own)
    only_place = other.data_dir is not None and other.type is None and other.name is None
    if only_place and not isinstance(own, ImageFolder):
        place, name = user_path(str(other.data_dir)), replaced.name.partition(":")[0]
        if not (place / name).is_dir():
            raise UsageError(
                f"{path_text(place)} does not hold the prepared set {name}; if it is a plain "
                "folder of pictures, add --data.type ImageFolder, and if it holds another set, "
                "--data.name"
            )
    return replaced


def _images_noting_labels(
    examples: Iterable[ExampleImages], labels: list[tuple[int, ...] | None]
) -> Iterator[list[np.ndarray]]:
    """Yields the images of each example, and appends its classes to `labels`.

    They are None for an example that cannot be read.
    """
    for example in examples:
        labels.append(example.labels)
        yield example.images


def _table(labels: Sequence[tuple[int, ...] | None], width: int) -> np.ndarray:
    """The classes of examples as an array (N, width) int32, filled up with -1."""
    table = np.full((len(labels), width), -1, np.int32)
    for row, of_one in zip(table, labels, strict=True):
        if of_one:
            row[: len(of_one)] = of_one
    return table


_FIELDS_OF_EXAMPLES = (
    "name", "train_split", "test_split", "image_key", "label_key", "validation",
)  # fmt: skip
"""Fields of a data declaration that decide which examples a split has."""


def _check_runs_differ(folders: Sequence[RunFolder]) -> None:
    """Raises `UsageError` if a run is named twice."""
    paths = [folder.path.resolve() for folder in folders]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UsageError(f"{path} is named twice; an ensemble counts every run once")


def _check_same_examples(folders: Sequence[RunFolder], measured: Sequence[Data]) -> None:
    """Raises `UsageError` unless the data that is measured for each run has the same examples."""
    for folder, data in zip(folders, measured, strict=True):
        for name in _FIELDS_OF_EXAMPLES:
            first, other = getattr(measured[0], name), getattr(data, name)
            if first != other:
                raise UsageError(
                    f"an ensemble needs runs of the same data, but data.{name} is {short(first)} "
                    f"in {folders[0].path} and {short(other)} in {folder.path}"
                )


def _check_same_pictures(folders: Sequence[RunFolder]) -> None:
    """Raises `UsageError` if runs note that they were trained on different pictures or labels."""
    pictures = [folder.last_environment().get("data_sha256") for folder in folders]
    for folder, sha256 in zip(folders, pictures, strict=True):
        if None not in (sha256, pictures[0]) and sha256 != pictures[0]:
            raise UsageError(
                f"an ensemble needs runs of the same data, but {folders[0].path} and {folder.path} "
                "were trained on different pictures or labels"
            )
