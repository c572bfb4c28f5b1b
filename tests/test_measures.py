"""Measures of predictions against loops over the examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.evaluation.evaluate import Evaluation
from resflax.evaluation.measures import calibration_error, measure_predictions
from resflax.evaluation.views import Views


def by_hand(labels, probabilities):
    """All measures, one example at a time."""
    wrong = wrong_of_five = loss = 0.0
    right_by_class: dict[int, list[bool]] = {}
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(15)]
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: -row[c])
        right = order[0] == label
        wrong += not right
        wrong_of_five += label not in order[:5]
        loss -= np.log(row[label])
        right_by_class.setdefault(label, []).append(right)
        confidence = max(row)
        (place,) = (m for m in range(15) if m / 15 < confidence <= (m + 1) / 15)
        bins[place].append((right, confidence))
    n = len(labels)
    gap = 0.0
    for members in filter(None, bins):
        accuracy = sum(right for right, _ in members) / len(members)
        confidence = sum(confidence for _, confidence in members) / len(members)
        gap += len(members) / n * abs(accuracy - confidence)
    return wrong / n, wrong_of_five / n, loss / n, gap, right_by_class


@settings(deadline=None, max_examples=50)
@given(examples=st.integers(1, 60), classes=st.integers(2, 12), seed=st.integers(0, 99))
def test_measures_are_those_of_loops(examples, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    probabilities = rng.dirichlet(np.full(classes, 0.3), examples) + 1e-9
    probabilities = np.minimum(probabilities / probabilities.sum(1, keepdims=True), 1)
    measures = measure_predictions(labels, np.log(probabilities))
    top1, top5, loss, gap, right_by_class = by_hand(labels, probabilities)
    assert measures.examples == examples
    assert (measures.top1_error, measures.top5_error) == (top1, top5)
    assert measures.loss == pytest.approx(loss)
    assert measures.calibration_error == pytest.approx(gap, abs=1e-12)
    for label, accuracy in enumerate(measures.per_class_accuracy):
        if label in right_by_class:
            assert accuracy == pytest.approx(np.mean(right_by_class[label]))
        else:
            assert np.isnan(accuracy)


def test_ties_and_nan():
    labels = np.array([0, 1, 1])
    even = np.log(np.full((3, 2), 0.5, np.float32))
    measures = measure_predictions(labels, even)
    assert measures.top1_error == pytest.approx(2 / 3)  # the class with the lower number is first
    even[0] = np.nan
    measures = measure_predictions(labels, even)
    assert (measures.top1_error, measures.top5_error) == (1, 0)  # both classes rank before the true
    assert np.isnan(measures.loss)
    assert np.isnan(measures.calibration_error)
    plain = Evaluation(measures, "test", Views(), {"run": 1}).to_json()
    assert (plain["loss"], plain["calibration_error"]) == (None, None)
    assert calibration_error(np.array([True, False]), np.array([1.0, 1.0])) == 0.5
