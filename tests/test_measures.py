"""Measures of predictions against loops over the examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.data.measured_split import SplitFacts
from resflax.evaluation.evaluate import Evaluation
from resflax.evaluation.measures import among_classes, calibration_error, measure_predictions
from resflax.evaluation.subject import DataMeasured
from resflax.evaluation.views import Views

FACTS = SplitFacts(name="set", version="1.0.0", folder="set/1.0.0", split="test", sha256="0")


def by_hand(labels, probabilities):
    """All measures, one example at a time, from a set of labels for each."""
    wrong = wrong_of_five = loss = 0.0
    right_by_class: dict[int, list[bool]] = {}
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(15)]
    for own, row in zip(labels, probabilities.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: -row[c])
        right = order[0] in own
        wrong += not right
        wrong_of_five += not own & set(order[:5])
        loss -= np.log(sum(row[label] for label in own))
        for label in own:
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
@given(
    examples=st.integers(1, 60),
    classes=st.integers(2, 12),
    most_labels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_measures_are_those_of_loops(examples, classes, most_labels, seed):
    rng = np.random.default_rng(seed)
    sets = [
        set(rng.integers(0, classes, rng.integers(1, most_labels, endpoint=True)).tolist())
        for _ in range(examples)
    ]
    labels = np.array([[*own, *[-1] * (most_labels - len(own))] for own in sets], np.int32)
    labels = labels[:, 0] if most_labels == 1 else labels
    probabilities = rng.dirichlet(np.full(classes, 0.3), examples) + 1e-9
    probabilities = np.minimum(probabilities / probabilities.sum(1, keepdims=True), 1)
    measures = measure_predictions(labels, np.log(probabilities))
    top1, top5, loss, gap, right_by_class = by_hand(sets, probabilities)
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
    data = DataMeasured(FACTS, own=True, classes=2, matched_by=None, several_labels=False)
    plain = Evaluation(measures, "test", Views(), {"run": 1}, data).to_json()
    assert (plain["loss"], plain["calibration_error"]) == (None, None)
    assert calibration_error(np.array([True, False]), np.array([1.0, 1.0])) == 0.5


def test_probabilities_given_some_classes():
    probabilities = np.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.6, 0.1, 0.2]], np.float32)
    given = np.exp(among_classes(np.log(probabilities), np.array([1, 3])))
    np.testing.assert_allclose(given, [[0, 2 / 3, 0, 1 / 3], [0, 0.75, 0, 0.25]], rtol=1e-6)
    lost = among_classes(np.full((1, 3), np.nan, np.float32), np.array([0]))
    assert np.isnan(lost).any()


def test_probability_that_rounding_put_above_one():
    above = np.array([[1e-7, -20], [2e-7, -20]], np.float32)
    loss = measure_predictions(np.zeros(2, np.int32), above).loss
    assert str(loss) == "0.0"
