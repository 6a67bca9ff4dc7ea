"""DeepZoom pictures of slides and overlays: small tiles of every level, for viewers in a browser.

``NAME.dzi`` tells size and tiles, ``NAME_files/LEVEL/COLUMN_ROW`` are the tiles; level 0 is one
pixel and the last is full resolution, as OpenSlide's DeepZoomGenerator numbers and cuts them. All
levels come from one pass over the slide, each halved from the one below, so no seam shows.
Axes: h w pixels, C channels.
"""

from __future__ import annotations

import io
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.export.pyramid import level_sizes, tile_rows
from xpath.geometry import Box, Size
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.export.pyramid import TileRow
    from xpath.wsi.slide import Slide

__all__ = ["DeepZoomConfig", "array_strips", "slide_strips", "write_deepzoom"]

ROWS, COLUMNS = 512, 4096
"""Of the blocks a slide is read in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepZoomConfig:
    """How a picture is cut and kept."""

    side: int = 254
    """Of a tile without overlap; with an overlap of 1, tiles are 256 pixels."""
    overlap: int = 1
    """Pixels a tile shares with each neighbour, so that browsers show no seams when they zoom."""
    format: str = "jpeg"
    """``jpeg``, or ``png``, which is lossless and keeps opacity."""
    quality: int = 85
    """Of JPEG, 1 to 95."""

    def __post_init__(self) -> None:
        """Refuses what no viewer could read."""
        if self.side < 1 or not 0 <= self.overlap < self.side:
            raise ConfigError(f"wanted side >= 1 and 0 <= overlap < side, got {self}")
        if self.format not in ("jpeg", "png") or not 1 <= self.quality <= 95:
            raise ConfigError(f"wanted format jpeg or png and quality 1 to 95, got {self}")


def write_deepzoom(
    path: Path,
    strips: Iterable[NDArray[np.uint8]],
    size: Size,
    *,
    name: str,
    config: DeepZoomConfig = DeepZoomConfig(),
) -> int:
    """Writes a DeepZoom picture; returns how many tiles it has.

    Example::

        size, strips = slide_strips(slide)
        write_deepzoom(Path("case.zip"), strips, size, name="slide")

    Args:
        path: A folder, or a ``.zip`` file of the same content; it appears when it is whole.
        strips: Rows of the picture from the top, ``(h, w, 3)`` or, for PNG, ``(h, w, 4)``.
        size: Of the picture.
        name: Of the picture: the file to open is ``NAME.dzi``.
        config: How it is cut and kept.

    Raises:
        DataError: Strips that do not fit the size, or opacity in a JPEG.
        StoreError: The disk is full.
    """
    sizes = level_sizes(size, 1)
    count = 0
    with atomic(path) as draft, _keeper(draft, zipped=path.suffix.lower() == ".zip") as keep:
        for row in tile_rows(strips, sizes, config.side, overlap=config.overlap):
            level = len(sizes) - 1 - row.level
            for column, tile in enumerate(_cut(row, config)):
                place = f"{name}_files/{level}/{column}_{row.row}.{config.format}"
                keep(place, _encoded(tile, config))
                count += 1
        keep(f"{name}.dzi", _description(size, config))
    return count


def slide_strips(
    slide: Slide, *, box: Box | None = None, downsample: int = 1
) -> tuple[Size, Iterator[NDArray[np.uint8]]]:
    """Size and rows ``(h, w, 3)`` of a slide, for ``write_deepzoom``.

    Args:
        slide: Open slide; it must stay open while the rows are read.
        box: What to show, in level-0 pixels; all of the slide by default, often ``slide.bounds``.
        downsample: Level-0 pixels per pixel of the picture.

    Raises:
        ConfigError: ``downsample`` below 1.
    """
    if downsample < 1:
        raise ConfigError(f"downsample must be 1 or more, got {downsample}")
    shown = box or Box(0, 0, slide.size.width, slide.size.height)
    size = Size(-(-shown.width // downsample), -(-shown.height // downsample))
    return size, _blocks(slide, shown, size, downsample)


def array_strips(image: NDArray[np.uint8]) -> tuple[Size, Iterator[NDArray[np.uint8]]]:
    """Size and rows of a picture in memory, such as an overlay ``(h, w, 4)``."""
    height, width = image.shape[:2]
    return Size(width, height), (image[top : top + ROWS] for top in range(0, height, ROWS))


def _blocks(slide: Slide, shown: Box, size: Size, downsample: int) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, size.height, ROWS):
        strip = np.empty((min(ROWS, size.height - top), size.width, 3), np.uint8)
        for left in range(0, size.width, COLUMNS):
            part = Size(min(COLUMNS, size.width - left), len(strip))
            x, y = shown.x + left * downsample, shown.y + top * downsample
            box = Box(x, y, part.width * downsample, part.height * downsample)
            strip[:, left : left + part.width] = slide.read(box, part)
        yield strip


def _cut(row: TileRow, config: DeepZoomConfig) -> Iterator[NDArray[np.uint8]]:
    width = row.pixels.shape[1]
    for left in range(0, width, config.side):
        first, stop = max(0, left - config.overlap), left + config.side + config.overlap
        yield row.pixels[:, first : min(stop, width)]


def _encoded(tile: NDArray[np.uint8], config: DeepZoomConfig) -> bytes:
    """Equal pixels give equal bytes."""
    from PIL import Image

    if tile.shape[2:] == (4,) and config.format == "jpeg":
        raise DataError("JPEG has no opacity; write overlays with DeepZoomConfig(format='png')")
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": config.quality}
    if config.format == "png":
        options = {"compress_level": 4}
    Image.fromarray(np.ascontiguousarray(tile)).save(buffer, config.format, **options)
    return buffer.getvalue()


def _description(size: Size, config: DeepZoomConfig) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" '
        f'TileSize="{config.side}" Overlap="{config.overlap}" Format="{config.format}">'
        f'<Size Width="{size.width}" Height="{size.height}"/></Image>\n'
    ).encode()


@contextmanager
def _keeper(draft: Path, *, zipped: bool) -> Iterator[Callable[[str, bytes], object]]:
    """Keeps files under their names in a folder or in an archive."""
    if zipped:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:  # tiles are compressed
            yield lambda name, data: archive.writestr(zipfile.ZipInfo(name), data)
        return

    def keep(name: str, data: bytes) -> None:
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    yield keep
