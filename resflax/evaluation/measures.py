"""Measures of predictions: errors, loss, accuracy of each class, and calibration."""

import math
from dataclasses import dataclass

import numpy as np

from resflax.training.measurement import rank

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Measures:
    """Means over the examples of a split."""

    loss: float
    """Cross-entropy in nats of the averaged probabilities."""
    top1_error: float
    """Fraction of examples whose first guess is wrong."""
    top5_error: float
    """Fraction of examples whose class is not among the first five guesses."""
    examples: int
    calibration_error: float
    """Expected calibration error as a fraction: see `calibration_error`."""
    per_class_accuracy: tuple[float, ...]
    """Fraction of right first guesses for each class; NaN for a class without examples."""


def measure_predictions(labels: np.ndarray, log_probabilities: np.ndarray) -> Measures:
    """Measures predictions.

    Args:
      labels: the true classes (N,) int.
      log_probabilities: logarithms of the predicted probabilities (N, classes) float.
    """
    ranks = rank(log_probabilities, labels)
    of_true_class = np.take_along_axis(log_probabilities, labels[:, None], 1)
    right = ranks == 0
    classes = log_probabilities.shape[1]
    examples_by_class = np.bincount(labels, minlength=classes)
    right_by_class = np.bincount(labels, weights=right, minlength=classes)
    accuracy_by_class = np.divide(
        right_by_class,
        examples_by_class,
        out=np.full(classes, np.nan),
        where=examples_by_class > 0,
    )
    return Measures(
        loss=-float(np.mean(of_true_class, dtype=np.float64)),
        top1_error=float(np.mean(ranks >= 1)),
        top5_error=float(np.mean(ranks >= 5)),
        examples=len(labels),
        calibration_error=calibration_error(right, np.exp(log_probabilities.max(1))),
        per_class_accuracy=tuple(accuracy_by_class.tolist()),
    )


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
