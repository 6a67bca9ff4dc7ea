import math

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.classification import classification_metrics


def binary(scores):
    scores = np.array(scores)
    return np.stack([1 - scores, scores], axis=1)


def test_two_classes_by_hand():
    found = classification_metrics(binary([0.1, 0.6, 0.2, 0.8]), np.array([0, 0, 0, 1]))

    assert found.auc == 1.0
    assert found.accuracy == 0.75
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.f1 == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_auc_is_the_share_of_pairs_in_order_and_ties_count_half():
    label = np.array([0, 1, 0, 1, 1])
    scores = np.array([0.3, 0.3, 0.6, 0.5, 0.9])

    pairs = [
        1.0 if b > a else 0.5 if b == a else 0.0
        for a in scores[label == 0]
        for b in scores[label == 1]
    ]

    assert classification_metrics(binary(scores), label).auc == pytest.approx(np.mean(pairs))


def test_more_classes_are_each_against_the_rest():
    probability = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    label = np.array([0, 1, 2, 2])

    found = classification_metrics(probability, label)

    # Class 0: 0.6 above all. Class 1: 0.5 above all. Class 2: of pairs (0.3, 0.8) x (0.1, 0.3)
    # three are in order and one is a tie.
    assert found.auc == pytest.approx((1 + 1 + 3.5 / 4) / 3)
    assert found.balanced_accuracy == pytest.approx((1 + 1 + 0.5) / 3)


def test_one_class_has_no_auc_and_no_warning():
    found = classification_metrics(binary([0.9, 0.8, 0.3]), np.array([1, 1, 1]))

    assert math.isnan(found.auc)
    assert found.balanced_accuracy == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(0.8)  # precision 1, recall 2/3
    assert found.accuracy == pytest.approx(2 / 3)


def test_a_missing_class_among_three_has_no_auc():
    probability = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])

    found = classification_metrics(probability, np.array([0, 1]))

    assert math.isnan(found.auc)
    assert found.balanced_accuracy == 1.0


def test_what_cannot_be_scored_is_refused():
    good, label = binary([0.2, 0.7]), np.array([0, 1])
    with pytest.raises(ShapeError):
        classification_metrics(good, np.array([0, 1, 1]))
    with pytest.raises(DataError, match="softmax"):
        classification_metrics(good * 3, label)
    with pytest.raises(DataError, match="sum to one"):
        classification_metrics(np.full((2, 2), np.nan), label)
    with pytest.raises(DataError, match="0 to 1"):
        classification_metrics(good, np.array([0, -1]))
    with pytest.raises(DataError, match="0 to 1"):
        classification_metrics(good, np.array([0, 2]))
    with pytest.raises(DataError, match="no slides"):
        classification_metrics(good[:0], label[:0])
    with pytest.raises(DataError, match="column per class"):
        classification_metrics(np.ones((2, 1)), label)
