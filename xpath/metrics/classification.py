"""How good a classifier is.

Axes: B slides, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassificationMetrics", "classification_metrics"]


class ClassificationMetrics(NamedTuple):
    """Scores of one set of slides; 1 is perfect."""

    auc: float
    """Area under the ROC curve; with more than two classes the mean of each against the rest.
    NaN where a class has no slide, because it is then not defined."""
    balanced_accuracy: float
    """Mean recall of the classes ("macro accuracy" in the paper)."""
    f1: float
    """Mean F1 of the classes."""
    accuracy: float


def classification_metrics(
    probability: NDArray[np.floating], label: NDArray[np.integer]
) -> ClassificationMetrics:
    """Scores of probabilities ``(B, K)`` for true classes ``(B,)``."""
    from sklearn.metrics import f1_score, recall_score, roc_auc_score

    sizes = check_shape("probability", probability, "B K")
    check_shape("label", label, "B", B=sizes["B"])
    predicted = probability.argmax(axis=1)
    seen = np.unique(label)
    auc = float("nan")
    if len(seen) == sizes["K"]:
        scores = probability[:, 1] if sizes["K"] == 2 else probability
        auc = float(roc_auc_score(label, scores, multi_class="ovr", average="macro"))
    recall = recall_score(label, predicted, labels=seen, average="macro", zero_division=0)
    f1 = f1_score(label, predicted, labels=seen, average="macro", zero_division=0)
    return ClassificationMetrics(auc, float(recall), float(f1), float((predicted == label).mean()))
