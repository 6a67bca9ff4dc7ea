"""Images on their way into the grounded model: tiles for the language, one square for SAM2.

Axes: T tiles, H W pixels, S side of the square.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.grounded.config import GroundedConfig

__all__ = ["MAX_TILES", "Pixels", "as_images", "pixels_of", "tile_count"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_TILES = 12
"""Most tiles an image is cut into, the thumbnail not counted; as published."""


class Pixels(NamedTuple):
    """An image as both branches see it, normalised, float32 on the CPU."""

    tiles: Tensor
    """``(T, 3, 448, 448)``: row by row, then the whole image if there is more than one."""
    square: Tensor
    """``(3, S, S)``: the whole image; its aspect is not kept."""


def as_images(images: object) -> NDArray[np.uint8]:
    """Images as ``(B, H, W, 3)``.

    Args:
        images: RGB ``(H, W, 3)`` or ``(B, H, W, 3)``, uint8.

    Raises:
        DataError: No uint8 array, or without a single pixel.
        ShapeError: Of another shape.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"images must be a uint8 array of RGB in 0..255, got {got}")
    batch = images[None] if images.ndim == 3 else images
    check_shape("images", batch, "B H W 3")
    if not batch.size:
        raise DataError(f"images must have at least one pixel, got shape {images.shape}")
    return batch


def pixels_of(
    image: NDArray[np.uint8], config: GroundedConfig, *, max_tiles: int = MAX_TILES
) -> Pixels:
    """An RGB image ``(H, W, 3)``, resized, cut and normalised.

    The grid of tiles is the one whose aspect is nearest to the image's; resizing is PIL's bicubic
    with antialiasing, so the values are those of the published code to the bit.

    Args:
        image: uint8.
        config: Sizes.
        max_tiles: Most tiles; 1 shows the whole image as one, as region tasks were trained.

    Raises:
        ConfigError: Not even one tile.
    """
    if max_tiles < 1:
        raise ConfigError(f"max_tiles must be at least 1, got {max_tiles}")
    tiler, square = _processors(config.vision.tile, config.grounding.image)
    whole = np.ascontiguousarray(image)
    layout = {"return_tensors": "pt", "input_data_format": "channels_last"}
    tiles = tiler(whole, min_patches=1, max_patches=max_tiles, **layout)
    return Pixels(tiles["pixel_values"], square(whole, **layout)["pixel_values"][0])


def tile_count(height: int, width: int, *, tile: int = 448, max_tiles: int = MAX_TILES) -> int:
    """Tiles of an image of that size, the thumbnail included."""
    tiler, _ = _processors(tile, tile)
    options = {"min_patches": 1, "max_patches": max_tiles}
    return int(tiler.get_number_of_image_patches(height, width, options))


@cache
def _processors(tile: int, square: int) -> tuple[Any, Any]:
    """Image processors that cut tiles, and make the square."""
    from transformers import GotOcr2ImageProcessorPil

    options: dict[str, Any] = {"image_mean": list(MEAN), "image_std": list(STD)}
    tiler = GotOcr2ImageProcessorPil(
        size={"height": tile, "width": tile}, crop_to_patches=True, **options
    )
    whole = GotOcr2ImageProcessorPil(size={"height": square, "width": square}, **options)
    return tiler, whole
