"""Is it the object, or its area, its neighbours, or chance? Four checks, and a verdict in words.

``hiding``: hiding the object matters more than hiding the rest of its patches, and that goes with
the true class (``class_benefit``). ``left out``: the last layer, trained again without it, does
worse, so no other object stands in for it. ``not its area``: the share of the slide it covers is
not shown to predict the class already. ``seeds``: what it contributes distinguishes the classes
whatever the first weights.

Axes: S training slides, T test slides, L object classes, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from xpath.explain.cohort import LEVEL
from xpath.metrics.bootstrap import mean_interval
from xpath.metrics.intervals import classification_intervals
from xpath.mil.fractions import ObjectFractions
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.metrics.intervals import MetricInterval
    from xpath.mil.splits import Split

__all__ = ["CHECKS", "Evidence", "Verdict", "area_alone", "evidence", "leave_object_out"]

Verdict = Literal["supported", "suggestive", "not distinguishable"]
"""``supported``: hiding speaks for it, and two other checks at least. ``suggestive``: hiding alone,
or two others. ``not distinguishable``: less."""

CHECKS = ("hiding", "left out", "not its area", "seeds")
"""All of them, in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Evidence for one object as a reason of the classifiers."""

    object: str
    verdict: str
    """A ``Verdict``."""
    speaking: str
    """Checks that speak for it, with commas."""
    hiding_q: float
    """Of ``class_benefit``; NaN where it was not asked about."""
    loss_without: float
    """Mean rise of the loss on test slides if the last layer is trained again without it; the
    attention that made the features stays."""
    loss_low: float
    loss_high: float
    """95 % interval over patients."""
    area_auc: float
    """Of test slides by the area of this object alone."""
    area_low: float
    area_high: float
    """95 % interval over patients."""
    seeds_held: int
    """First weights with which its contribution distinguishes the classes (95 % above 0)."""
    seeds: int
    """First weights that were tried."""


def leave_object_out(
    train: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    *,
    c: float = 1.0,
) -> NDArray[np.float64]:
    """Rise of each test slide's loss ``(T, L)`` when a classifier learns without an object.

    The last layer, a logistic regression on the sum of the objects' slide features, is trained
    again with all and without each; the attention that made the features stays. The rise is above 0
    where the object is needed and no other stands in for it.

    Args:
        train: ``(S, L, D)`` slide features of each object, 0 where absent, such as the embedding of
            ``ObjectMILOutput`` over its divisor.
        train_labels: ``(S,)`` of two classes at least.
        test: ``(T, L, D)`` of slides that made neither.
        test_labels: ``(T,)``, of classes in the training.
        c: Inverse strength of the ridge penalty on standardised features.

    Raises:
        ShapeError: Other axes.
    """
    axes = check_shape("train", train, "S L D")
    check_shape("test", test, "T L D", L=axes["L"], D=axes["D"])
    whole = train.sum(axis=1), test.sum(axis=1)
    with_all = _loss(*whole, train_labels, test_labels, c)
    rises = [
        _loss(whole[0] - train[:, j], whole[1] - test[:, j], train_labels, test_labels, c)
        - with_all
        for j in range(axes["L"])
    ]
    return np.stack(rises, axis=1)


def area_alone(
    fractions: NDArray[np.floating],
    labels: NDArray[np.integer],
    splits: Sequence[Split],
    *,
    classes: Sequence[str],
    patients: Sequence[str],
) -> list[MetricInterval]:
    """AUC of test slides by the area fraction of each object alone, with intervals over patients.

    Args:
        fractions: ``(S, L)`` area fractions, see ``object_fractions``.
        labels: ``(S,)`` class indices.
        splits: Which slides train and which are tested, one per fold.
        classes: Names of the K classes.
        patients: ``(S,)`` of the slides.
    """
    test = np.concatenate([split.test for split in splits])
    intervals = []
    for j in range(fractions.shape[1]):
        probability = []
        for split in splits:
            model = ObjectFractions(["object"], classes)
            model.fit(fractions[split.train][:, [j]], labels[split.train].tolist())
            probability.append(model.predict_proba(fractions[split.test][:, [j]]))
        intervals.append(
            classification_intervals(
                np.concatenate(probability), labels[test], np.random.default_rng(0),
                groups=[patients[i] for i in test], draws=1,
            ).auc
        )  # fmt: skip
    return intervals


def evidence(
    name: str,
    *,
    hiding_q: float,
    needed: bool,
    rise: NDArray[np.floating],
    area: MetricInterval,
    held: Sequence[bool],
    patients: Sequence[str],
) -> Evidence:
    """The verdict on one object.

    Args:
        name: Of the object.
        hiding_q: Of ``class_benefit``, NaN where it was not asked about.
        needed: Whether a class needs it (``ImportanceRow.supports``).
        rise: ``(T,)`` of ``leave_object_out``.
        area: Of ``area_alone``.
        held: For each seed, whether its contribution distinguishes the classes.
        patients: ``(T,)`` of the test slides.
    """
    loss = mean_interval(rise, patients)
    hiding = needed and hiding_q < LEVEL
    # an area that was not asked about (NaN, a class without a test slide) speaks for nothing
    passed = (hiding, loss.low > 0, area.low <= 0.5, bool(held) and all(held))
    others = sum(passed[1:])
    verdict: Verdict = "not distinguishable"
    if passed[0] and others >= 2:
        verdict = "supported"
    elif passed[0] or others >= 2:
        verdict = "suggestive"
    return Evidence(
        object=name,
        verdict=verdict,
        speaking=", ".join(check for check, speaks in zip(CHECKS, passed, strict=True) if speaks),
        hiding_q=hiding_q,
        loss_without=loss.mean,
        loss_low=loss.low,
        loss_high=loss.high,
        area_auc=area.value,
        area_low=area.low,
        area_high=area.high,
        seeds_held=sum(held),
        seeds=len(held),
    )


def _loss(
    train: NDArray[np.floating],
    test: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_labels: NDArray[np.integer],
    c: float,
) -> NDArray[np.float64]:
    """Loss of each test slide ``(T,)`` under a logistic regression."""
    from scipy.special import log_softmax
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # D features of few slides: a penalty that grows with D keeps the margin about the same
    penalty = c / train.shape[1]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=penalty, class_weight="balanced", max_iter=2000)
    )
    model.fit(train, train_labels)
    scores = model.decision_function(test)
    if scores.ndim == 1:  # two classes: those of the second, against 0
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    logs = log_softmax(scores, axis=1)  # finite where the probability itself is not told from 0
    column = {int(k): j for j, k in enumerate(model.classes_)}
    chosen = [column[int(label)] for label in test_labels]
    return np.asarray(-logs[np.arange(len(test)), chosen])
