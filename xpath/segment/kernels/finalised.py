"""The result of mask finalisation, whatever computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Finalised"]


class Finalised(NamedTuple):
    """B x P masks of one size with their measurements, tensors on the device of the logits."""

    packed: Tensor
    """uint8 ``(B, P, H, ceil(W / 8))``: eight neighbours of a row, the leftmost in the highest bit,
    the row filled up with zeros, as in ``masks.zarr``; ``unpack`` gives booleans."""
    area: Tensor
    """int64 ``(B, P)``, pixels in the mask."""
    coverage: Tensor
    """float32 ``(B, P, i, j)``, share of each cell under the mask, 0..1; cells need not hold whole
    pixels (``xpath.objects.pool.cover``)."""
    probability_sum: Tensor
    """float32 ``(B, P)``, probabilities of the pixels in the mask, summed."""
    peak: Tensor
    """float32 ``(B, P)``, the highest probability of any pixel, 0 where the mask is empty."""

    @property
    def presence(self) -> Tensor:
        """float32 ``(B, P)``, mean probability of the pixels in the mask, 0 where it is empty."""
        return self.probability_sum / self.area.clamp(min=1)
