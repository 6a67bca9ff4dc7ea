"""Predictions of a slide classifier, and their scores.

Axes: B slides, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.errors import DataError
from xpath.metrics.classification import ClassificationMetrics, classification_metrics
from xpath.mil.bag import Bag, chunks, own_tensor, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.protocols import SlideClassifier

__all__ = ["Predictions", "evaluate", "predict"]


class Predictions(NamedTuple):
    """Logits and probabilities of slides, beside their true classes."""

    slide_ids: tuple[str, ...]
    logits: NDArray[np.float64]
    """``(B, K)``."""
    probability: NDArray[np.float64]
    """``(B, K)``, rows sum to one."""
    label: NDArray[np.int64]
    """``(B,)`` true class; -1 where unknown."""


@torch.inference_mode()
def predict(model: SlideClassifier, bags: Sequence[Bag], *, batch: int = 16) -> Predictions:
    """Logits and probabilities of bags, in their order.

    Dropout is off meanwhile, and the model is left as it was.

    Args:
        model: On whatever device; bags are brought there.
        bags: With or without labels.
        batch: Bags per forward pass, fewer where they are large; the result does not depend on it.

    Raises:
        DataError: No bags, or a single one outside a list.
        ShapeError: Bags of other features than the model's.
    """
    if isinstance(bags, Bag):
        raise DataError("bags come in a list, even a single one; pass [bag]")
    if not bags:
        raise DataError("there are no bags to predict")
    if batch < 1:
        raise DataError(f"batch must be 1 or more, got {batch}")
    like = own_tensor(model)
    training = model.training
    model.eval()
    try:
        rows = [model(pack(chunk).like(like)).logits.cpu() for chunk in chunks(bags, most=batch)]
    finally:
        model.train(training)
    logits = torch.cat(rows).double()
    labels = [-1 if bag.label is None else bag.label for bag in bags]
    return Predictions(
        tuple(bag.slide_id for bag in bags),
        logits.numpy(),
        logits.softmax(dim=1).numpy(),
        np.array(labels, np.int64),
    )


def evaluate(
    model: SlideClassifier, bags: Sequence[Bag], *, batch: int = 16
) -> ClassificationMetrics:
    """Scores of a model on labelled bags. See ``classification_metrics``.

    Raises:
        DataError: No bags, or a bag without a label.
        ShapeError: Bags of other features than the model's.
    """
    unknown = [bag.slide_id for bag in bags if bag.label is None]
    if unknown:
        raise DataError(f"slides without a label cannot be scored: {unknown}; use predict")
    predictions = predict(model, bags, batch=batch)
    return classification_metrics(predictions.probability, predictions.label)
