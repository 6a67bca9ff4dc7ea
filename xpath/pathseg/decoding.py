"""Pictures as Pillow decodes them: to the end, as they are stored, RGB on white."""

from __future__ import annotations

import logging
import warnings
from shlex import quote
from typing import TYPE_CHECKING, Any

from xpath.errors import DataError
from xpath.store.pixel_types import (
    ORIENTATION,
    TURNED,
    convert_pixels,
    deep_tiff,
    dim_values,
    tiff_form,
    tiff_pages,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["decode_picture", "stored_size"]

logger = logging.getLogger(__name__)

DEEP = {"F": "32-bit float", "I": "32-bit integer"} | dict.fromkeys(
    ("I;16", "I;16L", "I;16B", "I;16N"), "16-bit integer"
)
"""Modes of Pillow's images that no RGB of 8 bits comes from without a scale."""
DEEP_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
BITS_AT = 24
"""Byte of a PNG that says how many bits a value has."""
ASIDE = (5, 6, 7, 8)
"""Orientations in which width and height are exchanged."""


def decode_picture(path: Path, mode: str | None) -> Any:  # a PIL image
    """A PIL image, decoded to the end. OpenCV would fill what is missing and say nothing.

    Pixels stay in the order they are stored in, as slides and masks have them. An orientation that
    turns them for viewers, and pages beside the first, are named in a warning.

    Args:
        path: The file.
        mode: ``RGB`` (what is transparent lies on white), ``L``, or None for that of the file.

    Raises:
        DataError: Pixels of another depth, or a page for each colour.
    """
    from PIL import Image

    if mode is not None and (type_ := deep_tiff(path) or _dim_png(path)):
        raise DataError(convert_pixels(path, type_))
    with warnings.catch_warnings():
        # sources hold images of 50 megapixels and more; they are no decompression bombs
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)  # that costs no pixels
        with _opened(path) as image:
            orientation = _orientation(image)
            decoded = _as_stored(_loaded(path, image, mode), orientation)
    if mode == "RGB" and orientation != 1:
        logger.warning(TURNED, path, orientation)
    if mode == "RGB" and decoded.has_transparency_data:
        decoded = _on_white(decoded)
    return decoded if mode in (None, decoded.mode) else decoded.convert(mode)


def _opened(path: Path) -> Any:
    """The image of a file, not decoded yet."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        if form := tiff_form(path):
            raise DataError(
                f"{path} is a TIFF of a form that is not read ({form}); convert it to RGB, for"
                f" example with `vips copy {quote(path.name)} {quote(path.stem)}.png`"
            ) from error
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has too many pixels to be read at once ({error}); cut it, or save it as a"
            f" slide with `vips tiffsave {quote(path.name)} {quote(path.stem)}.tiff --tile"
            " --pyramid`"
        ) from error


def stored_size(path: Path) -> tuple[int, int]:
    """Width and height as ``decode_picture`` gives them, without decoding."""
    with _opened(path) as image:
        width, height = image.size
        turned = image.format == "TIFF" and _orientation(image) in ASIDE
    return (height, width) if turned else (width, height)


def _loaded(path: Path, image: Any, mode: str | None) -> Any:
    """The first page of an image, decoded."""
    if mode is not None:
        if image.mode in DEEP:  # Pillow would cut them off at 255
            raise DataError(convert_pixels(path, DEEP[image.mode]))
        _tell_pages(path, image)
    image.load()
    return image


def _orientation(image: Any) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything
        return 1
    return value if value in range(1, 9) else 1


def _as_stored(image: Any, orientation: int) -> Any:
    """The pixels of a decoded image as they are stored: of TIFF alone Pillow turns them."""
    from PIL.Image import Transpose

    back = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_90,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_270,
    }
    if image.format != "TIFF" or orientation not in back:
        return image
    return image.transpose(back[orientation])


def _on_white(image: Any) -> Any:
    """A transparent image laid on white, as slides are."""
    from PIL import Image

    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _dim_png(path: Path) -> str:
    """Words for an RGB PNG of 16 bits whose values leave the upper ones empty."""
    with path.open("rb") as file:
        head = file.read(BITS_AT + 1)
    if not head.startswith(DEEP_PNG[:8]) or head[BITS_AT:] != b"\x10":
        return ""
    import cv2

    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    colours = None if values is None or values.ndim != 3 else values[..., :3]
    return "" if colours is None else dim_values(int(colours.max()))


def _tell_pages(path: Path, image: Any) -> None:
    """Warns of pages beside the first.

    Raises:
        DataError: They are the colours of one picture.
    """
    pages, axes = getattr(image, "n_frames", 1), ""
    if image.format == "TIFF":
        pages, axes = tiff_pages(path)
    if pages < 2:
        return
    if "C" in axes and "S" not in axes:
        raise DataError(
            f"{path} has {pages} pages, one of each channel, and RGB is needed; join them, in"
            " ImageJ with Image, Color, Stack to RGB"
        )
    logger.warning("%s has %d pages; only the first is read", path, pages)
