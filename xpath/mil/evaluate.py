"""What a slide classifier says, and how good that is.

Axes: B slides, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.mil.bag import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["Predictions", "predict"]


class Predictions(NamedTuple):
    """A classifier's answers."""

    slide_ids: tuple[str, ...]
    logits: NDArray[np.float64]
    """``(B, K)``."""
    probability: NDArray[np.float64]
    """``(B, K)``, rows sum to one."""
    label: NDArray[np.int64]
    """``(B,)`` true class; -1 where unknown."""


@torch.inference_mode()
def predict(
    model: AttentionMIL | ObjectAwareMIL, bags: Sequence[Bag], *, batch: int = 16
) -> Predictions:
    """Answers for bags, in their order; dropout is off, the model's mode is restored."""
    training = model.training
    model.eval()
    parts = [
        model(pack(bags[start : start + batch])).logits for start in range(0, len(bags), batch)
    ]
    model.train(training)
    logits = torch.cat(parts).double()
    labels = [-1 if bag.label is None else bag.label for bag in bags]
    return Predictions(
        tuple(bag.slide_id for bag in bags),
        logits.numpy(),
        logits.softmax(dim=1).numpy(),
        np.array(labels, np.int64),
    )
