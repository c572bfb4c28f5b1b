"""Measures of predictions: errors, loss, accuracy of each class, and calibration."""

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np

from resflax.training.measurement import rank

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Measures:
    """Means over the examples of a split."""

    loss: float
    """Cross-entropy in nats of the averaged probabilities. For an example with several labels, it
    is the negative logarithm of the sum of their probabilities."""
    top1_error: float
    """Fraction of examples whose first guess is wrong: not among the example's labels."""
    top5_error: float
    """Fraction of examples of which no label is among the first five guesses."""
    examples: int
    calibration_error: float
    """Expected calibration error as a fraction: see `calibration_error`."""
    per_class_accuracy: tuple[float, ...]
    """For each class, the fraction of right first guesses among the examples that have its label;
    NaN for a class without examples."""


def measure_predictions(labels: np.ndarray, log_probabilities: np.ndarray) -> Measures:
    """Measures predictions.

    An example with several labels counts as with the ReaL labels of Beyer et al. 2020 (arXiv
    2006.07159): a guess is right if it is any of them.

    Args:
      labels: the true classes, (N,) int; or (N, K) int with up to K different ones for each
        example, of which at least one is not negative: -1 fills up the others' places.
      log_probabilities: logarithms of the predicted probabilities (N, classes) float.
    """
    columns = labels.reshape(len(labels), -1)
    ranks = _best_ranks(log_probabilities, columns)
    of_true_classes = np.take_along_axis(log_probabilities, np.maximum(columns, 0), 1)
    with np.errstate(invalid="ignore"):  # NaN is a valid result
        of_any = reduce(np.logaddexp, np.where(columns < 0, -np.inf, of_true_classes).T)
    right = ranks == 0
    classes = log_probabilities.shape[1]
    examples_by_class, right_by_class = (
        np.bincount(columns[columns >= 0], weights[columns >= 0], minlength=classes)
        for weights in (np.ones(columns.shape), np.broadcast_to(right[:, None], columns.shape))
    )
    accuracy_by_class = np.divide(
        right_by_class,
        examples_by_class,
        out=np.full(classes, np.nan),
        where=examples_by_class > 0,
    )
    return Measures(
        # By rounding, a probability may exceed 1.
        loss=0.0 - float(np.mean(np.minimum(of_any, 0), dtype=np.float64)),
        top1_error=float(np.mean(ranks >= 1)),
        top5_error=float(np.mean(ranks >= 5)),
        examples=len(labels),
        calibration_error=calibration_error(right, np.exp(log_probabilities.max(1))),
        per_class_accuracy=tuple(accuracy_by_class.tolist()),
    )


def _best_ranks(log_probabilities: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The number of classes that are ranked before an example's best label, (N,) int."""
    classes = log_probabilities.shape[1]
    ranks = [
        np.where(labels < 0, classes, rank(log_probabilities, np.maximum(labels, 0)))
        for labels in columns.T
    ]
    return np.min(ranks, axis=0)


def among_classes(log_probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The logarithms of probabilities, given that the class is one of some.

    Args:
      log_probabilities: (N, classes) float.
      classes: (C,) int, the classes that are possible.

    Returns:
      (N, classes) float; -inf for the other classes.
    """
    possible = log_probabilities[:, classes]
    given = np.full_like(log_probabilities, -np.inf)
    with np.errstate(invalid="ignore"):  # NaN is a valid result
        given[:, classes] = possible - np.logaddexp.reduce(possible, axis=1, keepdims=True)
    return given


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3) with 15 bins.

    It is the mean over examples of |accuracy - mean confidence| in the example's bin. The bins are
    equal parts of (0, 1], and each includes its upper end. The error is NaN if a confidence is NaN.

    Args:
      right: (N,) bool, whether each first guess is right.
      confidence: (N,) float, the probability of each first guess.
    """
    if np.isnan(confidence).any():
        return math.nan
    confidence = confidence.astype(np.float64)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS), 1, CALIBRATION_BINS).astype(int) - 1
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def best_classes(log_probabilities: np.ndarray, count: int = 5) -> np.ndarray:
    """The most probable classes (N, count) int, in order of probability; all if there are fewer."""
    return np.argsort(-log_probabilities, axis=1, kind="stable")[:, :count]
