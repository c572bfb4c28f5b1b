"""The file of a network's predictions for every example of a split."""

import csv
import io
from pathlib import Path

import numpy as np

from resflax.errors import UsageError
from resflax.evaluation.measures import best_classes
from resflax.files import write_atomically
from resflax.paths import check_output_file, writing_output


def check_path(path: Path) -> None:
    """Raises `UsageError` if `write_predictions` cannot write to the path."""
    if path.suffix not in (".npz", ".csv"):
        raise UsageError(f"--predictions is {path}; it must end in .npz or .csv")
    check_output_file("--predictions", path)


def write_predictions(
    path: Path, numbers: np.ndarray, labels: np.ndarray, log_probabilities: np.ndarray
) -> None:
    """Writes predictions in the order of the split, either whole or not at all.

    An .npz file has the arrays `example` (N,) int64, the examples' numbers in the split; `label`
    (N,) int32, or (N, K) int32 filled up with -1 if examples have up to K labels; `top5` (N, 5)
    int32, the most probable classes in order; and `probabilities` (N, classes) float32. A .csv file
    has a header, and for each example a line with its number, its label (or several with spaces
    between them), the five most probable classes and their probabilities. If there are fewer than
    five classes, all are written.

    Args:
      path: the file, whose name ends in .npz or .csv.
      numbers: the examples' numbers in the split, (N,) int64.
      labels: the true classes (N,) int32, or (N, K) int32 filled up with -1.
      log_probabilities: logarithms of the probabilities (N, classes) float32.

    Raises:
      UsageError: if the file cannot be written.
    """
    top = best_classes(log_probabilities).astype(np.int32)
    content = _npz if path.suffix == ".npz" else _csv
    with writing_output(path):
        write_atomically(path, content(numbers, labels, top, np.exp(log_probabilities)))


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
    writer = csv.writer(file)
    columns = [f"{column}{place}" for column in ("class", "probability") for place in places]
    writer.writerow(["example", "label", *columns])
    for number, label, best, row in zip(numbers, labels, top, probabilities, strict=True):
        several = " ".join(str(one) for one in np.atleast_1d(label) if one >= 0)
        writer.writerow([number, several, *best, *row[best]])
    return file.getvalue().encode()
