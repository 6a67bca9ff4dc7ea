"""Slides as bags of patches, and many bags as one tensor.

Axes: B bags, N patches of a bag, M patches of all bags, L object kinds, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.errors import DataError, ShapeError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Bag", "PackedBags", "pack"]


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """The patches of one slide.

    Example::

        Bag(torch.randn(120, 512), label=1)  # for AttentionMIL
        Bag(torch.randn(120, 22, 512), coverage > 0, label=1)  # for ObjectAwareMIL
    """

    features: Tensor
    """``(N, D)`` patch features, or ``(N, L, D)`` object features."""
    present: Tensor | None = None
    """``(N, L)`` boolean, True where an object lies in a patch; only with object features."""
    label: int | None = None
    """Class index, where known."""
    slide_id: str = ""

    def __post_init__(self) -> None:
        """Refuses shapes and values no model can use."""
        name = f"bag {self.slide_id!r}"
        if self.features.ndim not in (2, 3):
            raise ShapeError(
                f"{name}: features must be (N, D) or (N, L, D), got {tuple(self.features.shape)}"
            )
        if not len(self.features):
            raise DataError(f"{name} has no patches; drop it, or look at its tissue mask")
        if not torch.isfinite(self.features).all():
            raise DataError(f"{name} has NaN or infinity in its features; look at the encoder")
        if self.features.ndim == 2 and self.present is not None:
            raise ShapeError(f"{name}: patch features (N, D) go without `present`")
        if self.features.ndim == 3:
            if self.present is None:
                raise ShapeError(f"{name}: object features (N, L, D) need `present` (N, L)")
            count, kinds = self.features.shape[:2]
            check_shape("present", self.present, "N L", N=count, L=kinds)


class PackedBags(NamedTuple):
    """Bags of any lengths, end to end: no padding, no waste."""

    features: Tensor
    """``(M, D)`` or ``(M, L, D)``."""
    present: Tensor | None
    """``(M, L)`` for object features."""
    index: Tensor
    """``(M,)`` the bag each row belongs to, rising."""
    sizes: Tensor
    """``(B,)`` patches of each bag."""
    labels: Tensor
    """``(B,)`` class indices; -1 where unknown."""

    @property
    def count(self) -> int:
        """Number of bags."""
        return len(self.sizes)


def pack(bags: Sequence[Bag]) -> PackedBags:
    """Puts bags end to end.

    Raises:
        DataError: No bags.
        ShapeError: Bags of different features or object kinds.
    """
    if not bags:
        raise DataError("there are no bags to pack")
    shapes = {tuple(bag.features.shape[1:]) for bag in bags}
    if len(shapes) > 1:
        raise ShapeError(f"all bags must have one kind of features, got {sorted(shapes)}")
    sizes = torch.tensor([len(bag.features) for bag in bags])
    presents = [bag.present for bag in bags if bag.present is not None]
    labels = [-1 if bag.label is None else bag.label for bag in bags]
    return PackedBags(
        torch.cat([bag.features for bag in bags]),
        torch.cat(presents) if presents else None,
        torch.repeat_interleave(torch.arange(len(bags)), sizes),
        sizes,
        torch.tensor(labels),
    )
