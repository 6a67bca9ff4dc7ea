"""Masks at a half or a quarter of their resolution, packed and unpacked alike.

A pixel of the small mask is in where at least half of those it stands for are. Axes: ... any, H W
pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["reduced", "reduced_bits"]


def reduced(masks: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """Masks ``(..., H / factor, W / factor)`` of masks ``(..., H, W)``."""
    if factor == 1:
        return masks
    count = np.zeros((*masks.shape[:-2], *(side // factor for side in masks.shape[-2:])), np.uint8)
    for row in range(factor):
        for column in range(factor):
            count += masks[..., row::factor, column::factor]
    return np.asarray(2 * count >= factor**2)


def reduced_bits(packed: NDArray[np.uint8], width: int, factor: int) -> NDArray[np.uint8]:
    """The same of bits ``(..., H, ceil(W / 8))``, by a table of bytes: no mask is unpacked.

    Args:
        packed: The leftmost of eight neighbours highest, as ``numpy.packbits``.
        width: W, a multiple of ``factor``.
        factor: 1, 2 or 4.
    """
    if factor == 1:
        return packed
    byte = np.arange(256, dtype=np.uint8)[:, None]
    within = np.unpackbits(byte, axis=-1).reshape(256, 8 // factor, factor).sum(-1, dtype=np.uint8)
    rows = within[packed].reshape(*packed.shape[:-1], -1)[..., : width // factor]
    height = rows.shape[-2]
    count = rows.reshape(*rows.shape[:-2], height // factor, factor, -1).sum(-2, dtype=np.uint8)
    return np.packbits(2 * count >= factor**2, axis=-1)
