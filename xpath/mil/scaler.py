"""Features on a common scale, inside the model.

An affine map of every feature keeps the logit a sum over patches, and travels with the weights.
Axes: M rows, L object classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.mil.bag import Bag

__all__ = ["FeatureScaler"]

STILL = 1e-6
"""A feature whose deviation is below this share of its mean (or this, if the mean is small) does
not change: to divide by it would only blow up rounding."""


class FeatureScaler(nn.Module):
    """Subtracts a mean and divides by a deviation, per feature (the identity until fitted)."""

    mean: Tensor
    """``(D,)``."""
    std: Tensor
    """``(D,)``, never 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        """``(..., D)`` in, ``(..., D)`` out."""
        # One step, one copy: object features of many slides are the largest tensor there is.
        return torch.addcmul(-self.mean / self.std, features, 1 / self.std)

    @torch.no_grad()
    def fit(self, bags: Sequence[Bag]) -> None:
        """Takes mean and deviation of all rows of training bags, or all objects that are there.

        One bag at a time, in double precision. Fewer than two rows change nothing.

        Raises:
            ShapeError: Features of another width.
        """
        width = len(self.mean)
        count, mean, squares = 0, torch.zeros(width).double(), torch.zeros(width).double()
        for bag in bags:
            check_shape(
                f"features of {bag.slide_id!r}", bag.features.flatten(0, -2), "M D", D=width
            )
            rows = (bag.features if bag.present is None else bag.features[bag.present]).cpu()
            if not len(rows):
                continue
            # Chan et al. 1979: moments of a union from the moments of both sets.
            center, before = rows.double().mean(dim=0), count
            count += len(rows)
            squares += (rows.double() - center).square().sum(dim=0)
            squares += (center - mean).square() * (before * len(rows) / count)
            mean += (center - mean) * (len(rows) / count)
        if count < 2:
            return
        std = (squares / (count - 1)).sqrt()
        std[std <= STILL * mean.abs().clamp(min=1)] = 1.0
        self.mean.copy_(mean)
        self.std.copy_(std)
