import math

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.calibration import (
    COOLEST,
    HOTTEST,
    calibration_metrics,
    fit_temperature,
    reliability,
    scaled_probability,
)

FOUR = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.35, 0.65]])
LABELS = np.array([0, 1, 1, 1])
"""Confidences .9 right, .8 wrong, .7 and .65 right."""


def test_reliability_by_hand():
    """Four bins: 0.65 and 0.7 in the third, 0.8 and 0.9 in the last."""
    found = reliability(FOUR, LABELS, bins=4)

    assert found.confidence.tolist() == pytest.approx([0.675, 0.85])
    assert found.accuracy.tolist() == [1.0, 0.5]
    assert found.slides.tolist() == [2, 2]
    assert found.ece == pytest.approx((0.325 + 0.35) / 2)


def test_wilson_interval_of_two_of_two_by_hand():
    """z² = 3.8415: the lower end of 2 in 2 is 1 / (1 + z²/2)."""
    found = reliability(FOUR, LABELS, bins=4)

    assert found.low[0] == pytest.approx(1 / (1 + 3.841459 / 2), abs=1e-6)
    assert found.high[0] == pytest.approx(1.0)
    assert (found.low[1] + found.high[1]) / 2 == pytest.approx(0.5)


def test_bins_of_equal_mass_hold_as_many_slides(rng):
    chance = 0.5 + rng.random(30) / 2
    probability = np.stack([chance, 1 - chance], axis=1)

    found = reliability(probability, rng.integers(0, 2, 30), bins=5, equal_mass=True)

    assert found.slides.tolist() == [6] * 5
    assert (np.diff(found.confidence) > 0).all()


def test_confidences_follow_scikit_learns_curve(rng):
    from sklearn.calibration import calibration_curve

    chance = 0.5 + rng.random(200) / 2
    probability, label = np.stack([1 - chance, chance], axis=1), rng.integers(0, 2, 200)
    accuracy, confidence = calibration_curve(label, chance, n_bins=10)

    found = reliability(probability, label, bins=10)

    assert found.accuracy.tolist() == pytest.approx(accuracy.tolist())
    assert found.confidence.tolist() == pytest.approx(confidence.tolist())


def test_scores_by_hand():
    found = calibration_metrics(FOUR, LABELS, bins=4)

    wrong = np.array([0.1, 0.8, 0.3, 0.35])
    assert found.ece == pytest.approx(0.3375)
    assert found.brier == pytest.approx((2 * wrong**2).mean())
    assert found.log_loss == pytest.approx(-np.log(1 - wrong).mean())


def test_calling_the_truth_impossible_costs_infinitely_much():
    found = calibration_metrics(np.array([[1.0, 0.0]]), np.array([1]))

    assert found == (1.0, 2.0, math.inf)


def test_a_temperature_that_was_put_in_is_found(rng):
    logits = rng.normal(size=(20000, 3)) * 2
    chances = scaled_probability(logits, 1.0)
    label = (chances.cumsum(axis=1) < rng.random((20000, 1))).sum(axis=1)

    assert fit_temperature(3 * logits, label) == pytest.approx(3, rel=0.05)


def test_temperature_is_the_minimum_of_the_loss(rng):
    logits, label = rng.normal(size=(40, 2)), rng.integers(0, 2, 40)
    logits[np.arange(40), label] += 0.8

    best = fit_temperature(logits, label)

    def loss(temperature):
        return calibration_metrics(scaled_probability(logits, temperature), label).log_loss

    grid = np.geomspace(COOLEST, HOTTEST, 4000)
    assert loss(best) <= min(loss(t) for t in grid) + 1e-9


def test_temperature_changes_neither_the_class_nor_the_order(rng):
    logits = rng.normal(size=(50, 2))

    cold, hot = scaled_probability(logits, 0.3), scaled_probability(logits, 4.0)

    assert (cold.argmax(axis=1) == hot.argmax(axis=1)).all()
    assert (np.argsort(cold[:, 1]) == np.argsort(hot[:, 1])).all()
    assert np.abs(hot - 0.5).max() < np.abs(cold - 0.5).max()


def test_too_few_slides_end_at_the_ends():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])

    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(COOLEST)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(HOTTEST)


def test_large_margins_stay_numbers():
    logits = np.array([[500.0, -500.0], [-500.0, 500.0], [400.0, 0.0]])

    assert math.isfinite(fit_temperature(logits, np.array([0, 1, 1])))


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(DataError, match="sum to one"):
        reliability(np.array([[2.0, 1.0]]), np.array([0]))
    with pytest.raises(DataError, match="sum to one"):
        calibration_metrics(np.array([[math.nan, 1.0]]), np.array([0]))
    with pytest.raises(DataError, match="no slides"):
        reliability(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(DataError, match="0 to 1"):
        reliability(FOUR, np.array([0, 1, 2, 1]))
    with pytest.raises(DataError, match="bins"):
        reliability(FOUR, LABELS, bins=0)
    with pytest.raises(ShapeError, match="label"):
        reliability(FOUR, LABELS[:3])
    with pytest.raises(DataError, match="finite"):
        fit_temperature(np.array([[math.inf, 0.0]]), np.array([0]))
    with pytest.raises(DataError, match="positive"):
        scaled_probability(FOUR, 0.0)
