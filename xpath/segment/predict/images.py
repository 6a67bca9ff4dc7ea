"""Images on their way into the model: checked, and at the resolution it was trained at.

Axes: B images, H W pixels.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from xpath.errors import DataError, ResolutionError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["as_batch", "as_pixels", "as_square", "resized", "square_corner", "working_size"]

FARTHEST = 16.0
"""Images are enlarged or shrunk by at most this; more is a resolution that was mistaken."""
SAME = 1e-3
"""Resolutions nearer than this, relatively, are one: nothing is gained by resampling."""


def as_batch(images: object) -> Tensor:
    """Images as a tensor ``(B, H, W, 3)``, where they are.

    Args:
        images: RGB ``(H, W, 3)`` or ``(B, H, W, 3)``, uint8, an array or a tensor.

    Raises:
        DataError: No array, not uint8 (so never NaN), or without a single pixel.
        ShapeError: Of another shape.
    """
    pixels = images if isinstance(images, torch.Tensor) else _as_tensor(images)
    if pixels.dtype != torch.uint8:
        raise DataError(
            f"images must be uint8 RGB in 0..255, got {pixels.dtype}; of floats convert"
            " those in 0..1 with (images * 255).round().to(torch.uint8), those in 0..255 with"
            " images.round().to(torch.uint8)"
        )
    if pixels.layout != torch.strided or pixels.device.type == "meta":
        raise DataError(f"images must be dense, got {pixels.layout} on {pixels.device}")
    batch = pixels[None] if pixels.ndim == 3 else pixels
    check_shape("images", batch, "B H W 3")
    if not batch.numel():
        raise DataError(f"images must have at least one pixel, got shape {tuple(pixels.shape)}")
    return batch


def _as_tensor(images: object) -> Tensor:
    """An array of uint8 as a tensor."""
    if not isinstance(images, np.ndarray):
        how = "numpy.asarray(image)"
        if isinstance(images, str | os.PathLike):
            how = "numpy.asarray(PIL.Image.open(path).convert('RGB'))"
        raise DataError(
            f"images must be a uint8 array of RGB, got {type(images).__name__}; convert with {how}"
        )
    if np.ma.is_masked(images):
        raise DataError("images have masked values; fill them, as with image.filled(255)")
    if images.dtype != np.uint8:
        raise DataError(
            f"images must be uint8 RGB in 0..255, got {images.dtype}{_nonsense(images)};"
            f" convert {_advice(images.dtype)}"
        )
    # numpy arrays may run backwards or be read-only, and torch takes neither
    return torch.from_numpy(np.require(images, requirements=["C", "W"]))


def _advice(dtype: np.dtype[Any]) -> str:
    """How images of another type become uint8."""
    if dtype == np.bool_:
        return "masks with image.astype(numpy.uint8) * 255"
    if np.issubdtype(dtype, np.integer):
        top = np.iinfo(dtype).max
        return (
            f"those in 0..{top} with (image / {top} * 255).round().astype(numpy.uint8), those in"
            " 0..255 with image.astype(numpy.uint8)"
        )
    if not np.issubdtype(dtype, np.floating):
        return "with numpy.stack of the red, green and blue values, as uint8"
    return (
        "float images in 0..1 with (image * 255).round().astype(numpy.uint8), those in 0..255 with"
        " image.round().astype(numpy.uint8)"
    )


def _nonsense(images: NDArray[np.generic]) -> str:
    """A hint if the values are worse than their type."""
    if not np.issubdtype(images.dtype, np.inexact) or np.isfinite(images).all():
        return ""
    return " with values that are NaN or infinite (find out where they come from)"


def as_pixels(batch: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """Float RGB ``(B, 3, H, W)`` in 0..255 at another size, on the device."""
    return resized(batch.to(device).permute(0, 3, 1, 2).float(), size)


def as_square(batch: Tensor, side: int, device: torch.device) -> Tensor:
    """Float RGB ``(B, 3, side, side)`` in 0..255: black borders to a square, then bicubic.

    As BiomedParse reads its images: equal borders on both sides, cubic splines with antialiasing,
    rounded to whole grey levels.
    """
    high, wide = batch.shape[1:3]
    top, left = square_corner((high, wide))
    full = max(high, wide)
    pixels = as_pixels(batch, (high, wide), device)
    borders = (left, full - wide - left, top, full - high - top)
    padded = functional.pad(pixels, borders)
    if full != side:
        padded = functional.interpolate(padded, size=(side, side), mode="bicubic", antialias=True)
    return padded.round().clamp(0, 255)


def square_corner(size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of an image in the middle of the smallest square that holds it."""
    full = max(size)
    return (full - size[0]) // 2, (full - size[1]) // 2


def working_size(size: tuple[int, int], mpp: float | None, wanted: float) -> tuple[int, int]:
    """Height and width at which the model sees images.

    Args:
        size: Height and width given.
        mpp: Their resolution, microns per pixel; None to take the pixels as they are.
        wanted: Resolution the model was trained at.

    Raises:
        ResolutionError: No resolution images could have.
    """
    if mpp is None:
        return size
    factor = mpp / wanted
    if not 1 / FARTHEST <= factor <= FARTHEST:  # NaN is neither
        raise ResolutionError(
            f"mpp is {mpp}, which is no resolution for a model trained at {wanted} microns per"
            " pixel; 40x is about 0.25, 20x about 0.5. Pass None to take the pixels as they are"
        )
    if abs(factor - 1) < SAME:
        return size
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Float maps ``(B, C, H, W)`` at another size: bilinear, antialiased where it shrinks."""
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", antialias=True)
