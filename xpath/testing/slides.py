"""Slides on disk that real OpenSlide opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError, ShapeError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["write_slide"]

TILE = 256


def write_slide(
    path: Path,
    image: NDArray[np.uint8],
    *,
    mpp: float | None,
    levels: int = 3,
    lossless: bool = False,
) -> None:
    """Writes a tiled, pyramidal TIFF.

    Args:
        path: File to write, ``.tiff``.
        image: ``(H, W, 3)`` RGB, level 0.
        mpp: Microns per pixel; None stores no resolution.
        levels: Pictures in the pyramid, each half the size of the one before.
        lossless: Deflate instead of JPEG: level 0 then comes back bit by bit.

    Raises:
        ConfigError: A resolution or number of levels that cannot be.
        ShapeError: ``image`` is not RGB of 8 bits.
    """
    import tifffile

    if mpp is not None and not 0 < mpp < np.inf:
        raise ConfigError(f"mpp must be positive, or None to store no resolution, got {mpp}")
    if levels < 1:
        raise ConfigError(f"a slide has 1 level at least, got levels={levels}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    pixels = image
    with atomic(path) as draft, tifffile.TiffWriter(draft) as file:
        for level in range(levels):
            pixels = _halved(pixels) if level else pixels
            per_cm = None if mpp is None else 1e4 / (mpp * 2**level)
            file.write(
                pixels,
                photometric="rgb",
                tile=(TILE, TILE),
                compression="zlib" if lossless else "jpeg",
                compressionargs=None if lossless else {"level": 85},
                resolution=None if per_cm is None else (per_cm, per_cm),
                resolutionunit=None if per_cm is None else "CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
                software=None,
            )


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half as large. An odd last row or column is cut off, as scanners do."""
    import cv2

    height, width = max(1, image.shape[0] // 2), max(1, image.shape[1] // 2)
    even = image[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
