"""The simplest classifier of slides, which all others must beat: regression on mean features.

Axes: B bags, N patches, L object classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.metrics.classification import classification_metrics
from xpath.mil.prediction import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.mil.bag import Bag
    from xpath.protocols import SlideClassifier

__all__ = ["below_mean_pooling", "mean_features"]


def mean_features(bag: Bag) -> NDArray[np.float64]:
    """Mean over patches ``(D,)``, or over the objects that are present, 0 where there is none."""
    rows = bag.features.flatten(0, -2).double()
    if bag.present is not None and bag.features.ndim == 3:
        rows = rows[bag.present.flatten()]
    return np.asarray(rows.sum(dim=0) / max(len(rows), 1))


def below_mean_pooling(model: SlideClassifier, train: Sequence[Bag], held: Sequence[Bag]) -> str:
    """Says in a sentence that a model is worse than logistic regression on mean features.

    Both are asked about the same slides; the regression (ridge penalty 1 on standardised features,
    classes weighing the same) learns from the model's training slides.

    Args:
        model: Trained.
        train: Its training slides, with labels.
        held: Slides that it did not learn from, with labels.

    Returns:
        Empty where it is not worse, or where the slides of either are not of all classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learnt, asked = (np.array([bag.label for bag in bags]) for bags in (train, held))
    if not len(np.unique(learnt)) == len(np.unique(asked)) == len(model.classes):
        return ""
    simple = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    ).fit(np.stack([mean_features(bag) for bag in train]), learnt)
    probability = simple.predict_proba(np.stack([mean_features(bag) for bag in held]))
    least = classification_metrics(probability, asked).auc
    own = evaluate(model, held).auc
    if not own < least:
        return ""
    return (
        f"on the {len(held)} validation slides the AUC is {own:.2f}, below the {least:.2f} of"
        " logistic regression on mean features; it may need more slides, steps or another lr"
    )
