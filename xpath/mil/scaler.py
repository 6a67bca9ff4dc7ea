"""Features on a common scale, inside the model.

An affine map of every feature keeps the logit a sum over patches, and travels with the weights.
Axes: M rows, L object kinds, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.mil.bag import Bag

__all__ = ["FeatureScaler"]


class FeatureScaler(nn.Module):
    """Subtracts a mean and divides by a deviation, per feature; the identity until fitted."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        """``(..., D)`` in, ``(..., D)`` out."""
        return (features - self.mean) / self.deviation

    @torch.no_grad()
    def fit(self, bags: Sequence[Bag]) -> None:
        """Takes mean and deviation from training bags; of objects, only those that are present."""
        rows = [bag.features if bag.present is None else bag.features[bag.present] for bag in bags]
        values = torch.cat(rows).double()
        if len(values) < 2:
            return
        deviation = values.std(dim=0)
        # A feature that never changes carries nothing; leave its scale alone.
        deviation[deviation < 1e-6] = 1.0
        self.mean.copy_(values.mean(dim=0))
        self.deviation.copy_(deviation)
