"""The result of mask finalisation, whatever computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Finalised"]


class Finalised(NamedTuple):
    """N masks of one size with their measurements, tensors on the device of the logits."""

    packed: Tensor
    """uint8 ``(N, H, ceil(W / 8))``: eight neighbours of a row, the leftmost in the highest bit,
    the row filled up with zeros, as in ``masks.zarr``; ``unpack`` gives booleans."""
    area: Tensor
    """int64 ``(N,)``, pixels in the mask."""
    box: Tensor
    """int64 ``(N, 4)``: left, top, right, bottom in pixels, right and bottom just outside the mask;
    zeros where the mask is empty."""
    coverage: Tensor
    """float32 ``(N, i, j)``, share of each cell under the mask, 0..1; cells need not hold whole
    pixels (``xpath.objects.pool.cover``)."""
    probability_sum: Tensor
    """float32 ``(N,)``, probabilities of the pixels in the mask, summed; over ``area`` it is their
    mean."""
    peak: Tensor
    """float32 ``(N,)``, the highest probability of any pixel."""
