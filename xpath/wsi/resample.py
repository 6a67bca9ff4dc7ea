"""Pixels at another size, without moving or stretching what they show.

Axes: H W pixels of the picture, h w of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Size

__all__ = ["Span", "on_white", "resample", "resize"]

Span = tuple[float, float]
"""Start and stop along one axis, in pixels of the picture. Either may cut through a pixel."""


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of RGBA ``(H, W, 4)``, not premultiplied, laid on white glass."""
    alpha = pixels[..., 3]
    if (alpha == 255).all():
        return np.ascontiguousarray(pixels[..., :3])
    weight = alpha[..., None].astype(np.float32) / 255
    blended = pixels[..., :3] * weight + 255 * (1 - weight)
    return np.rint(blended).astype(np.uint8)


def resample(
    pixels: NDArray[np.uint8], across: Span, down: Span, size: Size, *, even: bool = False
) -> NDArray[np.uint8]:
    """A part of a picture ``(H, W, 3)`` at another size ``(h, w, 3)``.

    Parts that cut through pixels are averaged exactly, by area: a border pixel counts with the
    share of it that lies inside.

    Args:
        pixels: The picture.
        across: The part along its width.
        down: The part along its height.
        size: Pixels of the result.
        even: Pixels are averages of something finer, in which colour changes evenly from one to the
            next. Where a border cuts through a pixel, its halves then differ, and what changes
            evenly is shown exactly where it is.
    """
    height, width = map(float, pixels.shape[:2])
    whole = across == (0.0, width) and down == (0.0, height)
    if whole and not (even and (width % size.width or height % size.height)):
        return resize(pixels, size)
    rows = _average(pixels, down, size.height, even=even)
    columns = _average(rows.swapaxes(0, 1), across, size.width, even=even)
    return np.rint(columns.swapaxes(0, 1)).clip(0, 255).astype(np.uint8)


def resize(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """A picture ``(H, W, 3)`` at another size: shrinking averages areas, enlarging is bilinear."""
    import cv2

    height, width = pixels.shape[:2]
    shrunk = (min(width, size.width), min(height, size.height))
    if shrunk != (width, height):
        pixels = np.asarray(cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    if shrunk != (size.width, size.height):
        wanted = (size.width, size.height)
        pixels = np.asarray(cv2.resize(pixels, wanted, interpolation=cv2.INTER_LINEAR), np.uint8)
    return pixels


def _average(
    values: NDArray[np.generic], span: Span, count: int, *, even: bool
) -> NDArray[np.float32]:
    """Means ``(count, ...)`` over ``count`` equal parts of a span of the first axis."""
    last = len(values) - 1
    edges = np.linspace(*span, count + 1).clip(0, len(values))
    whole = np.minimum(edges.astype(np.intp), last)
    part = (edges - whole).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    sums = np.add.reduceat(values, whole, axis=0, dtype=np.float32)[:-1]
    sums[whole[:-1] == whole[1:]] = 0  # reduceat gives the element itself for an empty range
    cut = values[whole].astype(np.float32) * part  # what an edge leaves on its left
    if even:
        cut += _slopes(values, whole) * (part * part - part) / 2
    lengths = np.diff(edges).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray((sums + cut[1:] - cut[:-1]) / lengths, np.float32)


def _slopes(values: NDArray[Any], at: NDArray[np.intp]) -> NDArray[np.float32]:
    """Change from one value to the next: the lesser on both sides, 0 at a peak (minmod, Roe 1986).

    So an edge, such as the border of the slide, does not bend what lies beside it.
    """
    last = len(values) - 1
    here = values[at].astype(np.float32)
    before = here - values[np.maximum(at - 1, 0)]
    after = values[np.minimum(at + 1, last)] - here
    before[at == 0], after[at == last] = after[at == 0], before[at == last]
    lesser = np.where(np.abs(before) < np.abs(after), before, after)
    return np.where(before * after > 0, lesser, np.float32(0))
