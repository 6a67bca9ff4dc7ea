"""Images of any source at one magnification and one size, as PathSeg holds them (paper, 4.1).

Three steps: to 40x (bilinear pixels, nearest masks); sides above 1500 px cut into windows of 1024;
every window to 1024 x 1024. Axes: H W pixels of the source, h w of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError, LabelError
from xpath.labels import load_labels
from xpath.pathseg.record import Annotated, LabelMask
from xpath.pathseg.tiling import LIMIT, WINDOW, Window, windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xpath.pathseg.record import SourceImage, SourceInfo

__all__ = [
    "StandardConfig",
    "Tile",
    "native_mpp",
    "resize_image",
    "resize_mask",
    "standardise",
    "tiles_of",
]

MPP_AT_40X = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardConfig:
    """How images are brought to one magnification and size, by default as in the paper."""

    mpp: float = MPP_AT_40X
    """Micrometres per pixel images are brought to."""
    window: int = WINDOW
    """Side of a window in pixels at ``mpp``."""
    limit: int = LIMIT
    """Sides above this many pixels at ``mpp`` are cut into windows."""
    size: int | None = 1024
    """Side of the result; None keeps each window as it is."""
    whole: tuple[str, ...] = ("GlaS",)
    """Sources never cut. GlaS: 775 px at 20x are 1550 at 40x, but the paper counts its 165 images
    as 165 (Table 1)."""
    tolerance: float = 0.02
    """Images whose resolution is this close to ``mpp``, as a share, are not resampled."""
    physical: bool = False
    """Go by each image's own resolution instead of the nominal magnification of its source."""
    misnamed: tuple[str, ...] = ("RINGS", "SICAPv2")
    """Sources whose own resolution is always gone by: at the nominal 100x and 20x they would give
    fewer windows than the paper counts images (38,227 and 23,924, Table 1)."""
    min_pixels: int = 1
    """A label with fewer pixels in a window counts as absent from it."""
    keep_empty: bool = False
    """Keep windows without any mask. The paper does not: it counts one image per mask or more."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be."""
        if self.mpp <= 0 or (self.size is not None and self.size < 1) or self.min_pixels < 1:
            raise ConfigError(
                f"mpp, size and min_pixels must be positive, got {self.mpp}, {self.size}, "
                f"{self.min_pixels}"
            )
        if not 0 <= self.tolerance < 1:
            raise ConfigError(f"tolerance is a share in [0, 1), got {self.tolerance}")
        if self.window < 1 or self.limit < self.window:
            raise ConfigError(
                f"limit must be at least the window, got {self.limit} and {self.window}"
            )


class Tile(NamedTuple):
    """A standardised image."""

    name: str
    """The source image's name; ``-r0c1`` tells row and column where it was cut."""
    annotated: Annotated
    """Pixels ``(h, w, 3)`` and masks ``(h, w)``."""
    window: Window
    """Which part of the image at 40x this is."""


def standardise(
    image: SourceImage, info: SourceInfo, config: StandardConfig | None = None
) -> Iterator[Tile]:
    """Decodes one image of a source and yields its standardised parts, one after the other.

    Raises:
        DataError: The image is broken, or a mask has another size than the image; names the file.
        LabelError: A mask of a label that cannot be.
    """
    config = config or StandardConfig()
    annotated = image.read()
    _check(annotated, image)
    physical = config.physical or image.source in config.misnamed
    mpp = image.mpp if physical else native_mpp(info)
    yield from tiles_of(image.name, annotated, mpp, config, cut=image.source not in config.whole)


def tiles_of(
    name: str, annotated: Annotated, mpp: float, config: StandardConfig, *, cut: bool = True
) -> Iterator[Tile]:
    """Standardised tiles of a decoded image, each made only when it is yielded.

    A label without a pixel in a part joins the labels absent from it: who drew it elsewhere in the
    image would have drawn it here. A part where nothing is known is left out.

    Args:
        name: What the parts are named after.
        annotated: Pixels ``(H, W, 3)`` and masks ``(H, W)`` at ``mpp``.
        mpp: Micrometres per pixel of ``annotated``.
        config: How they are standardised.
        cut: False to take the image whole, however large it is.
    """
    height, width = _size_at(annotated.image.shape, mpp, config)
    limit = config.limit if cut else max(height, width, config.window)
    parts = windows(height, width, window=config.window, limit=limit)
    scaled = _resized(annotated, height, width)
    for window in parts:
        part = _cropped(scaled, window, config)
        if part.ignore is not None and part.ignore.all():
            continue
        if part.masks or config.keep_empty:
            corner = f"-r{window.row}c{window.column}" if len(parts) > 1 else ""
            yield Tile(name + corner, part, window)


def native_mpp(info: SourceInfo) -> float:
    """Micrometres per pixel by the usual meaning of a magnification: 40x is 0.25."""
    return MPP_AT_40X * 40 / info.magnification


def resize_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """``(h, w, 3)`` of ``(H, W, 3)``, bilinear.

    When shrinking, the filter grows with the step, so that nothing aliases.
    """
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.uint8)


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """``(h, w)`` of ``(H, W)``: each pixel takes the one below its centre."""
    if mask.shape == (height, width):
        return mask
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return np.asarray(mask[rows][:, columns])


def _size_at(shape: tuple[int, ...], mpp: float, config: StandardConfig) -> tuple[int, int]:
    """Height and width once the image is at the wanted resolution."""
    factor = mpp / config.mpp
    if abs(factor - 1) <= config.tolerance:
        factor = 1.0
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _resized(annotated: Annotated, height: int, width: int) -> Annotated:
    """All of an image at another size."""
    ignore = annotated.ignore
    return Annotated(
        image=resize_image(annotated.image, height, width),
        masks=tuple(
            LabelMask(label, resize_mask(mask, height, width)) for label, mask in annotated.masks
        ),
        ignore=None if ignore is None else resize_mask(ignore, height, width),
        absent=annotated.absent,
    )


def _cropped(annotated: Annotated, window: Window, config: StandardConfig) -> Annotated:
    """The crop of a window at the final size, in copies that outlive the image."""
    ignore = None if annotated.ignore is None else annotated.ignore[window.slices]
    part = Annotated(
        image=annotated.image[window.slices],
        masks=tuple(LabelMask(label, mask[window.slices]) for label, mask in annotated.masks),
        ignore=ignore if ignore is not None and ignore.any() else None,
        absent=annotated.absent,
    )
    side = config.size
    part = _resized(part, side or window.height, side or window.width)
    present = tuple(m for m in part.masks if np.count_nonzero(m.mask) >= config.min_pixels)
    names = {mask.label for mask in present}
    gone = (mask.label for mask in part.masks if mask.label not in names)
    return Annotated(
        image=np.ascontiguousarray(part.image),
        masks=tuple(LabelMask(label, np.ascontiguousarray(mask)) for label, mask in present),
        ignore=None if part.ignore is None else np.ascontiguousarray(part.ignore),
        absent=tuple(dict.fromkeys((*annotated.absent, *gone))),
    )


def _check(annotated: Annotated, image: SourceImage) -> None:
    """Refuses what a source should never give."""
    pixels = annotated.image
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"{image.path} gave pixels {pixels.dtype} {pixels.shape}; wanted uint8 (H, W, 3): "
            "check the file"
        )
    named = list(annotated.masks)
    if annotated.ignore is not None:
        named.append(LabelMask("the ignored part", annotated.ignore))
    for label, mask in named:
        if mask.shape != pixels.shape[:2] or mask.dtype != np.bool_:
            raise DataError(
                f"{image.path}: the mask of {label} is {mask.dtype} {mask.shape}, but the image is "
                f"{pixels.shape[:2]}; take image and mask from the same release, or remove both"
            )
    labels = [mask.label for mask in annotated.masks]
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise DataError(f"{image.path} has two masks of {', '.join(twice)}; unite them")
    for label in labels:
        _check_label(label, image)


def _check_label(label: str, image: SourceImage) -> None:
    tree = load_labels()
    if label not in tree and tree.parse(label, allow_new=True).id != label:
        raise LabelError(f"{image.path}: {label!r} is no label id; write it as `xpath labels` does")
