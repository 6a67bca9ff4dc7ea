"""Annotated images in memory, ready to be cut and turned.

All masks of an image are bits of one or a few 8-bit planes, so that turning an image turns them all
at once and an image costs few bytes more than its pixels. Axes: H W pixels, P prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from xpath.pathseg.record import Annotated, SourceImage

__all__ = ["IGNORE", "Packed", "Stored", "View", "cut", "pack", "pack_all"]

IGNORE = 255
"""In a target: nothing is known here."""

BITS = 8
GREY = (128, 128, 128)
"""Beyond a padded image, as in BiomedParse's training."""


class View(NamedTuple):
    """How a square crop looks at an image."""

    centre: tuple[float, float]
    """x, y in pixels of the image."""
    scale: float
    """Pixels of the image per pixel of the crop."""
    angle: float
    """Turn in radians."""
    mirror: bool
    """Left and right exchanged."""
    padded: bool = False
    """Grey beyond the image, where no object is, instead of its mirror image."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An image with its masks, half and quarter copies included."""

    levels: tuple[NDArray[np.uint8], ...]
    """``(H, W, 3)``, ``(H / 2, W / 2, 3)``, ..."""
    planes: NDArray[np.uint8]
    """``(H, W, K)``; bit 0 of plane 0 is the ignored part, then one bit per label."""
    labels: tuple[str, ...]
    """Labels that are present, in the order of the bits."""
    absent: tuple[str, ...]
    """Labels that are known not to be there."""
    mpp: float
    """Microns per pixel."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.planes.shape[:2]
        return height, width

    def load(self) -> Packed:
        """Itself, for it is in memory."""
        return self


@dataclass(frozen=True, slots=True)
class Stored:
    """An image left on disk and decoded when a crop is cut, for data larger than the memory."""

    image: SourceImage
    """The image."""
    size: tuple[int, int]
    """Height and width in pixels."""
    labels: tuple[str, ...]
    """Labels that are present."""
    absent: tuple[str, ...] = ()
    """Labels that are known not to be there."""

    @property
    def mpp(self) -> float:
        """Microns per pixel."""
        return self.image.mpp

    def load(self) -> Packed:
        """The decoded image."""
        return pack(self.image.read(), self.image.mpp)


def pack(annotated: Annotated, mpp: float) -> Packed:
    """An image as it is kept in memory."""
    import cv2

    levels = [annotated.image]
    while min(levels[-1].shape[:2]) >= 128 and len(levels) < 3:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(half, np.uint8))
    height, width = annotated.image.shape[:2]
    planes = np.zeros((height, width, len(annotated.masks) // BITS + 1), np.uint8)
    if annotated.ignore is not None:
        planes[..., 0] |= annotated.ignore.astype(np.uint8)
    for bit, (_, mask) in enumerate(annotated.masks, start=1):
        planes[..., bit // BITS] |= mask.astype(np.uint8) << (bit % BITS)
    labels = tuple(label for label, _ in annotated.masks)
    return Packed(tuple(levels), planes, labels, annotated.absent, mpp)


def pack_all(images: Iterable[SourceImage]) -> dict[str, list[Packed]]:
    """Decodes images and groups them by source, in order of appearance."""
    packed: dict[str, list[Packed]] = {}
    for item in images:
        packed.setdefault(item.source, []).append(pack(item.read(), item.mpp))
    return packed


def cut(
    packed: Packed, view: View, size: int, labels: tuple[str, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The crop ``(size, size, 3)`` and its targets ``(P, size, size)``: 0, 1 or ``IGNORE``.

    Beyond the image its mirror image is seen, masks included, or grey (``View.padded``). Labels
    that the image does not hold give an empty target.
    """
    import cv2

    border = cv2.BORDER_CONSTANT if view.padded else cv2.BORDER_REFLECT_101
    level = min(max(0, int(np.log2(max(view.scale, 1)))), len(packed.levels) - 1)
    image = cv2.warpAffine(
        packed.levels[level],
        _affine(view, size, 2**level),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=GREY,
    )
    matrix = _affine(view, size, 1)
    planes = [
        np.asarray(
            cv2.warpAffine(
                plane,
                matrix,
                (size, size),
                flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
                borderMode=border,
                borderValue=0,
            ),
            np.uint8,
        )
        for plane in np.moveaxis(packed.planes, 2, 0)
    ]
    ignored = (planes[0] & 1).astype(bool)
    target = np.zeros((len(labels), size, size), np.uint8)
    for row, label in enumerate(labels):
        if label in packed.labels:
            bit = packed.labels.index(label) + 1
            target[row] = planes[bit // BITS] >> (bit % BITS) & 1
        target[row][ignored & (target[row] == 0)] = IGNORE
    return np.asarray(image, np.uint8), target


def _affine(view: View, size: int, factor: int) -> NDArray[np.float64]:
    """From pixels of the crop to pixels of the image shrunk by ``factor``, ``(2, 3)``."""
    cosine, sine = np.cos(view.angle) * view.scale, np.sin(view.angle) * view.scale
    linear = np.array([[cosine, -sine], [sine, cosine]])
    if view.mirror:
        linear[:, 0] *= -1
    middle = np.full(2, (size - 1) / 2)
    offset = np.asarray(view.centre) - linear @ middle
    # Pixel centres lie at whole numbers, so shrinking shifts them by half a pixel.
    offset = (offset + 0.5) / factor - 0.5
    return np.concatenate((linear / factor, offset[:, None]), axis=1)
