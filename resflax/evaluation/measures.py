"""What is said of predictions: errors, loss, accuracy by class, calibration."""

import math
from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Measures:
    """Means over the examples of a split."""

    loss: float
    """Cross-entropy in nats of the averaged probabilities."""
    top1_error: float
    """Fraction whose first guess is wrong."""
    top5_error: float
    """Fraction not among the first five guesses."""
    examples: int
    calibration_error: float
    """Expected calibration error, a fraction: see `calibration_error`."""
    per_class_accuracy: tuple[float, ...]
    """Fraction of each class's examples whose first guess is right; NaN for a class without."""


def measures(labels: np.ndarray, log_probabilities: np.ndarray) -> Measures:
    """Measures predictions.

    Args:
      labels: (N,) int true classes.
      log_probabilities: (N, classes) float.
    """
    places = ranks(labels, log_probabilities)
    true = np.take_along_axis(log_probabilities, labels[:, None], 1)
    right = places == 0
    classes = log_probabilities.shape[1]
    of_class = np.bincount(labels, minlength=classes)
    right_of_class = np.bincount(labels, weights=right, minlength=classes)
    per_class = np.divide(
        right_of_class, of_class, out=np.full(classes, np.nan), where=of_class > 0
    )
    return Measures(
        loss=-float(np.mean(true, dtype=np.float64)),
        top1_error=float(np.mean(places >= 1)),
        top5_error=float(np.mean(places >= 5)),
        examples=len(labels),
        calibration_error=calibration_error(right, np.exp(log_probabilities.max(1))),
        per_class_accuracy=tuple(per_class.tolist()),
    )


def ranks(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many classes (N,) stand before the true one; all of them if a score is NaN.

    Of equal scores (N, classes) the class with the lower number comes first, as in argmax.
    """
    classes = scores.shape[1]
    true = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(classes) < labels[:, None]
    before = np.sum((scores > true) | ((scores == true) & earlier), 1)
    return np.where(np.isnan(scores).any(1), classes, before)


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3), 15 bins.

    The mean over examples of |accuracy - mean confidence| of the example's bin; bins are equal
    parts of (0, 1], each with its upper end. NaN if a confidence is.

    Args:
      right: (N,) bool: whether the first guess is right.
      confidence: (N,) its probability.
    """
    if np.isnan(confidence).any():
        return math.nan
    bins = np.clip(np.ceil(confidence.astype(np.float64) * BINS), 1, BINS).astype(int) - 1
    gaps = np.bincount(bins, weights=right - confidence.astype(np.float64), minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def best_classes(log_probabilities: np.ndarray, count: int = 5) -> np.ndarray:
    """The classes (N, count) int with the greatest probability, greatest first; all if fewer."""
    return np.argsort(-log_probabilities, axis=1, kind="stable")[:, :count]
