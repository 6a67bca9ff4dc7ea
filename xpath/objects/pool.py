"""Features under masks.

Axes: B patches, L object classes, D features, H W pixels, h w positions of a feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from xpath.errors import DataError
from xpath.objects.area import overlaps
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Pooled", "add_other", "cover", "masked_average_pool", "without_rims"]


class Pooled(NamedTuple):
    """One feature per patch and object."""

    features: Tensor
    """``(B, L, D)``; exactly zero where the object is absent."""
    coverage: Tensor
    """``(B, L)`` share of the patch under the mask."""


def add_other(masks: Tensor) -> Tensor:
    """Masks ``(B, L + 1, H, W)`` of ``(B, L, H, W)``: the last is what no mask covers.

    Raises:
        DataError: Not boolean.
    """
    _check_masks(masks)
    return torch.cat((masks, ~masks.any(dim=1, keepdim=True)), dim=1)


def without_rims(masks: Tensor, tissue: Tensor, rim: int) -> Tensor:
    """Masks ``(B, L + 1, H, W)`` of what is surely an object, and of what is surely none.

    The border of a mask is known to a few pixels only, and whatever lies there looks like the
    neighbour too. So masks of tissue lose a rim along their border, nuclei and cells, which are
    little else than rim, do not; and "other", the last, keeps as far away from tissue as that.
    The border of the patch is no border of an object.

    Args:
        masks: ``(B, L, H, W)`` boolean.
        tissue: ``(L,)`` boolean, whether a mask is of tissue.
        rim: Pixels on either side of a border; 0 gives ``add_other``.

    Raises:
        DataError: Not boolean.
    """
    whole = add_other(masks)
    if not rim or not bool(tissue.any()):
        return whole
    inside = masks[:, tissue]
    whole[:, :-1][:, tissue] = ~_dilated(~inside, rim)
    whole[:, -1:] &= ~_dilated(inside.any(dim=1, keepdim=True), rim)
    return whole


def _dilated(masks: Tensor, pixels: int) -> Tensor:
    """Masks ``(B, L, H, W)`` grown by a square of so many pixels on every side."""
    for axis in (-2, -1):
        grown, length = masks.clone(), masks.shape[axis]
        for step in range(1, min(pixels, length - 1) + 1):
            kept = length - step
            grown.narrow(axis, step, kept).logical_or_(masks.narrow(axis, 0, kept))
            grown.narrow(axis, 0, kept).logical_or_(masks.narrow(axis, step, kept))
        masks = grown
    return masks


def cover(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of each position of a feature map that lies under each mask, ``(B, L, h, w)`` in 0..1.

    Areas are averaged, exactly also where the grids do not divide each other: with nearest
    sampling, nine of ten nuclei would vanish from a 14 x 14 map.

    Args:
        masks: ``(B, L, H, W)`` boolean.
        size: Height and width of the feature map.

    Raises:
        DataError: Not boolean.
    """
    _check_masks(masks)
    shape, weights = masks.shape[-2:], masks.float()
    if all(pixels % length == 0 for pixels, length in zip(shape, size, strict=True)):
        return functional.avg_pool2d(weights, (shape[0] // size[0], shape[1] // size[1]))
    rows, columns = (
        torch.from_numpy(_shares(pixels, length)).to(weights)
        for pixels, length in zip(shape, size, strict=True)
    )
    return rows @ (weights @ columns.T)


def masked_average_pool(maps: Tensor, shares: Tensor) -> Pooled:
    """Mean feature under each mask (paper, Eq. 13), positions weighted by their coverage.

    The sum is divided by the covered area, so the feature says what the object looks like, and the
    coverage, given beside it, how much of it there is. Where masks divide the patch among them, the
    features weighted by their coverage add up to the patch's mean feature.

    Args:
        maps: ``(B, D, h, w)`` feature maps.
        shares: ``(B, L, h, w)`` from ``cover``.
    """
    sizes = check_shape("maps", maps, "B D h w")
    check_shape("shares", shares, "B L h w", B=sizes["B"], h=sizes["h"], w=sizes["w"])
    weights = shares.flatten(2)  # (B, L, h w)
    sums = torch.bmm(weights, maps.flatten(2).transpose(1, 2))  # (B, L, D)
    total = weights.sum(dim=2)
    features = sums / total.clamp(min=torch.finfo(total.dtype).tiny)[..., None]
    return Pooled(features.masked_fill(~(total > 0)[..., None], 0.0), total / weights.shape[2])


def _check_masks(masks: Tensor) -> None:
    check_shape("masks", masks, "B L H W")
    if masks.dtype != torch.bool:
        raise DataError(f"masks must be boolean, got {masks.dtype}; pass masks > 0 or threshold")


def _shares(pixels: int, length: int) -> NDArray[np.float64]:
    """``(length, pixels)`` weights of averages over equal stretches of pixels, summing to one."""
    return overlaps(np.linspace(0, pixels, length + 1), pixels) * (length / pixels)
