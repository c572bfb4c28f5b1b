"""What a network predicts for every example of a split, as a file."""

import csv
import io
from pathlib import Path

import numpy as np

from resflax.errors import UsageError
from resflax.evaluation.measures import best_classes
from resflax.training.files import in_words, write_atomically


def check_path(path: Path) -> None:
    """Raises `UsageError` if no file of predictions can be written there."""
    if path.suffix not in (".npz", ".csv"):
        raise UsageError(f"--predictions is {path}; it must end in .npz or .csv")
    if path.is_dir():
        raise UsageError(f"--predictions is {path}; that is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"--predictions is {path}; there is no folder {path.parent}")


def write_predictions(
    path: Path, numbers: np.ndarray, labels: np.ndarray, log_probabilities: np.ndarray
) -> None:
    """Writes the predictions, whole or not at all, in the order of the split.

    An .npz holds `example` (N,) int64, the number in the split, `label` (N,) int32, `top5` (N, 5)
    int32, surest first, and `probabilities` (N, classes) float32; a .csv a line for each example:
    its number, its label, the first five classes and their probabilities. Of fewer than five
    classes there are all.

    Args:
      path: ends in .npz or .csv.
      numbers: (N,) int64: of the examples.
      labels: (N,) int32.
      log_probabilities: (N, classes) float32.

    Raises:
      UsageError: if it cannot be written.
    """
    top = best_classes(log_probabilities).astype(np.int32)
    content = _npz if path.suffix == ".npz" else _csv
    try:
        write_atomically(path, content(numbers, labels, top, np.exp(log_probabilities)))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {in_words(error)}") from None


def _npz(
    numbers: np.ndarray, labels: np.ndarray, top: np.ndarray, probabilities: np.ndarray
) -> bytes:
    file = io.BytesIO()
    np.savez(file, example=numbers, label=labels, top5=top, probabilities=probabilities)
    return file.getvalue()


def _csv(
    numbers: np.ndarray, labels: np.ndarray, top: np.ndarray, probabilities: np.ndarray
) -> bytes:
    places = range(1, top.shape[1] + 1)
    file = io.StringIO(newline="")
    lines = csv.writer(file)
    names = [f"{what}{place}" for what in ("class", "probability") for place in places]
    lines.writerow(["example", "label", *names])
    for number, label, best, row in zip(numbers, labels, top, probabilities, strict=True):
        lines.writerow([number, label, *best, *row[best]])
    return file.getvalue().encode()
