"""Intervals of a classifier's scores over patients, who are drawn whole and within their class.

Every score is a function of how often each slide counts, so all draws are worked out together.
Axes: B slides, K classes, R draws, G patients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError, ShapeError
from xpath.metrics.classification import ClassificationMetrics, classification_metrics
from xpath.metrics.roc import score_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "ClassificationIntervals",
    "MetricInterval",
    "classification_differences",
    "classification_intervals",
    "wilson",
]

NUMBERS_AT_ONCE = 4_000_000
"""Numbers held in memory at a time."""


class MetricInterval(NamedTuple):
    """A score of the whole sample and its interval."""

    value: float
    low: float
    high: float


class ClassificationIntervals(NamedTuple):
    """As ``ClassificationMetrics``, each with an interval, NaN where it is not defined."""

    auc: MetricInterval
    balanced_accuracy: MetricInterval
    f1: MetricInterval
    accuracy: MetricInterval


def classification_intervals(
    probability: NDArray[np.floating],
    label: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 2000,
    level: float = 0.95,
) -> ClassificationIntervals:
    """Scores of a classifier, with intervals over patients.

    Score intervals, which are right for few slides and for those that are all right: Newcombe's of
    the AUC, Wilson's of accuracy and recalls (their mean by MOVER, Zou and Donner 2008). 14 of 14
    are an accuracy of 0.78 to 1. Of F1 percentiles of the bootstrap; where all patients of a class
    have the same recall, and so has every draw, by MOVER from the recalls too.

    Args:
        probability: ``(B, K)``, rows sum to one.
        label: ``(B,)`` classes 0 to K - 1.
        rng: Random numbers; the same give the same intervals.
        groups: Patient of each slide, drawn whole; None where each slide has its own.
        draws: How often to draw.
        level: Coverage of the intervals.

    Raises:
        DataError: As for ``classification_metrics``.
        ShapeError: Other axes, or not one group per slide.
    """
    values = classification_metrics(probability, label)
    drawn = [_scores(probability, label, times) for times in _draws(label, rng, groups, draws)]
    f1 = _intervals(values, np.concatenate(drawn), level).f1
    owner = np.arange(len(label)) if groups is None else np.asarray(groups)
    predicted = probability.argmax(axis=1)
    bounds = _recall_bounds(predicted == label, label, owner, level)
    if bounds.alike.any():
        f1 = MetricInterval(
            values.f1, *_f1_interval(predicted, label, probability.shape[1], bounds)
        )
    return ClassificationIntervals(
        auc=MetricInterval(values.auc, *_area_interval(probability, label, owner, level)),
        balanced_accuracy=MetricInterval(values.balanced_accuracy, *_recall_interval(bounds)),
        f1=f1,
        accuracy=MetricInterval(
            values.accuracy, *wilson(values.accuracy, len(np.unique(owner)), level=level)
        ),
    )


def wilson(share: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of a number of patients.

    Args:
        share: 0 to 1; that of slides, where a patient has several.
        count: Patients.
        level: Coverage of the interval.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _area_interval(
    probability: NDArray[np.floating],
    label: NDArray[np.integer],
    owner: NDArray[np.generic],
    level: float,
) -> tuple[float, float]:
    """Score interval of the AUC, of more than two classes the mean of each against the rest."""
    classes = probability.shape[1]
    if len(np.unique(label)) < classes:
        return math.nan, math.nan
    bounds = []
    for k in [1] if classes == 2 else range(classes):
        auc = float(_auc(probability[:, k], label == k, np.ones((1, len(label)), np.int64))[0])
        sides = (len(np.unique(owner[side])) for side in (label == k, label != k))
        bounds.append(score_interval(auc, *sides, level=level))
    low, high = np.mean(bounds, axis=0)
    return float(low), float(high)


class _RecallBounds(NamedTuple):
    """Recall of each class that has slides, and Wilson's bounds, ``(K,)`` each."""

    recall: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    alike: NDArray[np.bool_]
    """Whether all patients of the class have this recall: all right, all wrong, or one patient."""


def _recall_bounds(
    right: NDArray[np.bool_],
    label: NDArray[np.integer],
    owner: NDArray[np.generic],
    level: float,
) -> _RecallBounds:
    rows, alike = [], []
    for k in np.unique(label):
        here, index = right[label == k], np.unique(owner[label == k], return_inverse=True)[1]
        recall, patients = float(here.mean()), np.bincount(index, here) / np.bincount(index)
        rows.append((recall, *wilson(recall, len(patients), level=level)))
        alike.append(bool((patients == patients[0]).all()))
    found, low, high = np.array(rows).T
    return _RecallBounds(found, low, high, np.array(alike))


def _recall_interval(bounds: _RecallBounds) -> tuple[float, float]:
    """Score interval of the mean recall: distances to Wilson's bounds add up in squares."""
    mean, count = float(bounds.recall.mean()), len(bounds.recall)
    below = float(np.hypot.reduce(bounds.recall - bounds.low)) / count
    above = float(np.hypot.reduce(bounds.high - bounds.recall)) / count
    return mean - below, mean + above


def _f1_interval(
    predicted: NDArray[np.integer], label: NDArray[np.integer], classes: int, bounds: _RecallBounds
) -> tuple[float, float]:
    """Score interval of the mean F1, which rises with every recall: as that of the mean recall.

    At another recall of a class its other slides are called as those that were missed, evenly
    where none was.
    """
    there, called = np.unique(label), np.zeros((len(bounds.recall), classes))
    np.add.at(called, (np.searchsorted(there, label), predicted), 1)
    rows = np.arange(len(there))
    missed = called.copy()
    missed[rows, there] = 0
    missed[missed.sum(axis=1) == 0] = 1
    missed[rows, there] = 0
    missed /= missed.sum(axis=1, keepdims=True)
    slides = called.sum(axis=1)

    def mean_f1(table: NDArray[np.float64]) -> float:
        hits = table[rows, there]
        return float((2 * hits / (slides + table.sum(axis=0)[there])).mean())

    def at(row: int, recall: float) -> float:
        table = called.copy()
        table[row] = slides[row] * (1 - recall) * missed[row]
        table[row, there[row]] = slides[row] * recall
        return mean_f1(table)

    value = mean_f1(called)
    below = [value - at(row, recall) for row, recall in enumerate(bounds.low.tolist())]
    above = [at(row, recall) - value for row, recall in enumerate(bounds.high.tolist())]
    lower, upper = value - np.hypot.reduce(below), value + np.hypot.reduce(above)
    return max(0.0, float(lower)), min(1.0, float(upper))


def classification_differences(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    label: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 2000,
) -> ClassificationIntervals:
    """Scores of a classifier minus those of another on the same slides, with 95 % intervals.

    Both are scored on the same draws, so what makes a slide hard for both cancels.

    Args:
        first: ``(B, K)`` probabilities of one classifier.
        second: ``(B, K)`` probabilities of the other.
        label: ``(B,)`` classes 0 to K - 1.
        rng: Random numbers.
        groups: Patient of each slide; None where each slide has its own.
        draws: How often to draw.

    Raises:
        DataError: As for ``classification_metrics``.
        ShapeError: Other axes, or not one group per slide.
    """
    one, two = classification_metrics(first, label), classification_metrics(second, label)
    values = ClassificationMetrics(*(a - b for a, b in zip(one, two, strict=True)))
    drawn = [
        _scores(first, label, times) - _scores(second, label, times)
        for times in _draws(label, rng, groups, draws)
    ]
    return _intervals(values, np.concatenate(drawn), 0.95)


def _intervals(
    values: ClassificationMetrics, drawn: NDArray[np.float64], level: float
) -> ClassificationIntervals:
    """Percentiles of the draws ``(R, 4)``."""
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return ClassificationIntervals(
        *(MetricInterval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high,
                                                                        strict=True))
    )  # fmt: skip


def _draws(
    label: NDArray[np.integer], rng: np.random.Generator, groups: Sequence[str] | None, draws: int
) -> list[NDArray[np.int64]]:
    """How often each slide counts ``(R, B)``, in blocks.

    Patients are drawn within those who have slides of the same classes, so that every draw has
    every class: scores of a class without a slide are not defined.
    """
    if groups is not None and len(groups) != len(label):
        raise ShapeError(f"groups must be one per slide, got {len(groups)} for {len(label)}")
    if draws < 1:
        raise DataError(f"draws must be 1 or more, got {draws}")
    names = np.arange(len(label)) if groups is None else np.asarray(groups)
    index = np.unique(names, return_inverse=True)[1]
    has = np.zeros((int(index.max()) + 1, int(label.max()) + 1), bool)
    has[index, label] = True
    stratum = np.unique(has, axis=0, return_inverse=True)[1].ravel()
    members = [np.flatnonzero(stratum == number) for number in range(int(stratum.max()) + 1)]
    at_once = max(1, NUMBERS_AT_ONCE // len(label))
    blocks = []
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        times = np.zeros((count, len(has)), np.int64)
        for member in members:
            share = np.full(len(member), 1 / len(member))
            times[:, member] = rng.multinomial(len(member), share, size=count)
        blocks.append(times[:, index])
    return blocks


def _scores(
    probability: NDArray[np.floating], label: NDArray[np.integer], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """AUC, balanced accuracy, F1, accuracy ``(R, 4)`` with slides counted ``times`` (R, B)."""
    predicted = probability.argmax(axis=1)
    there = np.unique(label)
    right = predicted == label
    total = times.sum(axis=1)
    recalls, f1s = [], []
    for k in there:
        hit = times[:, right & (label == k)].sum(axis=1)
        true = times[:, label == k].sum(axis=1)
        called = times[:, predicted == k].sum(axis=1)
        recalls.append(hit / true)
        f1s.append(2 * hit / (true + called))
    auc = np.full(len(times), math.nan)
    if len(there) == probability.shape[1]:
        classes = [1] if len(there) == 2 else range(len(there))
        auc = np.mean([_auc(probability[:, k], label == k, times) for k in classes], axis=0)
    accuracy = times[:, right].sum(axis=1) / total
    return np.stack([auc, np.mean(recalls, axis=0), np.mean(f1s, axis=0), accuracy], axis=1)


def _auc(
    score: NDArray[np.floating], truth: NDArray[np.bool_], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area under the ROC curve of every draw ``(R,)``. Ties count half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    counted, positive = times[:, order], truth[order]
    hits = np.add.reduceat(counted * positive, starts, axis=1)
    misses = np.add.reduceat(counted * ~positive, starts, axis=1)
    below = np.cumsum(misses, axis=1) - misses
    won = (hits * (below + 0.5 * misses)).sum(axis=1)
    area: NDArray[np.float64] = won / (hits.sum(axis=1) * misses.sum(axis=1))
    return area
