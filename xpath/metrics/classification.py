"""How good a classifier is.

Axes: B slides, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassificationMetrics", "area_under_curve", "classification_metrics"]


class ClassificationMetrics(NamedTuple):
    """Scores of one set of slides, 1 being perfect."""

    auc: float
    """Area under the ROC curve; with more than two classes the mean of each against the rest.
    NaN where a class has no slide: the area is then not defined, and no number stands in."""
    balanced_accuracy: float
    """Mean recall of the classes that have slides ("macro ACC" in the paper)."""
    f1: float
    """Mean F1 of the classes that have slides."""
    accuracy: float
    """Share of slides whose most probable class is the true one."""


def classification_metrics(
    probability: NDArray[np.floating], label: NDArray[np.integer]
) -> ClassificationMetrics:
    """Scores of probabilities for true classes.

    Args:
        probability: ``(B, K)``, K at least 2, rows sum to one.
        label: ``(B,)`` classes 0 to K - 1.

    Raises:
        DataError: No slides, NaN, rows that do not sum to one, or a label that is no class.
        ShapeError: Other axes.
    """
    from sklearn.metrics import f1_score, recall_score

    auc = area_under_curve(probability, label)
    predicted = probability.argmax(axis=1)
    seen = np.unique(label)
    recall = recall_score(label, predicted, labels=seen, average="macro", zero_division=0)
    f1 = f1_score(label, predicted, labels=seen, average="macro", zero_division=0)
    return ClassificationMetrics(auc, float(recall), float(f1), float((predicted == label).mean()))


def area_under_curve(probability: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    """Area under the ROC curve, as in ``ClassificationMetrics``. Arguments and errors likewise."""
    from sklearn.metrics import roc_auc_score

    _check(probability, label)
    classes = probability.shape[1]
    if len(np.unique(label)) < classes:
        return float("nan")
    scores = probability[:, 1] if classes == 2 else probability
    return float(roc_auc_score(label, scores, multi_class="ovr", average="macro"))


def _check(probability: NDArray[np.floating], label: NDArray[np.integer]) -> None:
    sizes = check_shape("probability", probability, "B K")
    check_shape("label", label, "B", B=sizes["B"])
    if not sizes["B"]:
        raise DataError("there are no slides to score")
    if sizes["K"] < 2:
        raise DataError("probability must have a column per class, 2 at least, got 1")
    if not np.allclose(probability.sum(axis=1), 1, atol=1e-4):  # False also for NaN
        raise DataError("the rows of probability must sum to one; apply a softmax to logits first")
    if label.min() < 0 or label.max() >= sizes["K"]:
        raise DataError(f"labels must be 0 to {sizes['K'] - 1}, got {np.unique(label).tolist()}")
