"""OME-TIFF pyramids of colour overlays and of score images, from tiles, in bounded memory.

All levels lie as SubIFDs under one image, in tiles of 512 pixels, lossless, with the size of a
pixel in microns. Tiles of smaller levels are compressed as they arise and wait in a file beside the
output, so memory holds some rows of tiles only. Axes: h w pixels, C channels.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from collections import deque
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.export.pyramid import level_sizes, tile_rows
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.export.pyramid import TileRow
    from xpath.geometry import Size

__all__ = ["TILE", "array_tiles", "write_ome_tiff"]

TILE = 512
MICRON = "\N{MICRO SIGN}m"  # as OME spells it
EFFORT = 1
"""Of the compression; more is several times slower for a tenth of the size."""


class _Stored(NamedTuple):
    """A compressed tile that waits to be written."""

    offset: int
    length: int


def write_ome_tiff(
    path: Path,
    tile: Callable[[int, int, int, int], NDArray[Any]],
    *,
    size: Size,
    dtype: str,
    um_per_pixel: float,
    name: str,
) -> None:
    """Writes a picture and all its halves down to one tile.

    ``tile`` is asked once for each tile, row by row, so a map of any size may be computed on the
    way. float32 scores come back bit by bit at full resolution; smaller levels hold means of what
    is no NaN, signed as they are.

    Args:
        path: ``.ome.tif`` file to write; it appears when it is whole.
        tile: From left, top, width and height in pixels of the picture to ``(h, w)`` numbers,
            ``(h, w, 3)`` colours, or ``(h, w, 4)`` colours and opacity.
        size: Of the picture.
        dtype: ``float32`` for scores, ``uint8`` for colours.
        um_per_pixel: Microns per pixel of the picture, not of the slide it is made from.
        name: Of the image, for viewers.

    Raises:
        DataError: A tile of another size or type, or a resolution that cannot be.
        StoreError: The disk is full.
    """
    import tifffile

    if not (math.isfinite(um_per_pixel) and um_per_pixel > 0):
        raise DataError(f"um_per_pixel must be positive, got {um_per_pixel}; pass the slide's mpp")
    sizes = level_sizes(size, TILE)
    first = _checked(tile, (0, 0, min(TILE, size.width), min(TILE, size.height)), dtype)
    with atomic(path) as draft, tempfile.TemporaryFile(dir=path.parent) as spill:
        waiting: list[list[_Stored]] = [[] for _ in sizes]
        base = _base(tile_rows(_strips(tile, size, first), sizes, TILE), spill, waiting)
        with tifffile.TiffWriter(draft, ome=True, bigtiff=True) as file:
            common = _tags(first)
            for level, its in enumerate(sizes):
                shape = (its.height, its.width, *first.shape[2:])
                # Not base itself: tifffile would close it before it has come to its end.
                encoded = _read(spill, waiting[level]) if level else islice(base, None)
                scale = um_per_pixel * 2**level
                file.write(
                    encoded,
                    shape=shape,
                    dtype=dtype,
                    subifds=len(sizes) - 1 if not level else None,
                    subfiletype=1 if level else 0,
                    resolution=(1e4 / scale, 1e4 / scale),
                    metadata=_metadata(first, um_per_pixel, name) if not level else None,
                    **common,
                )
                deque(base, maxlen=0)  # the last rows of the other levels come after its last tile


def array_tiles(array: NDArray[Any]) -> Callable[[int, int, int, int], NDArray[Any]]:
    """Tiles of a picture ``(h, w)`` or ``(h, w, C)`` in memory, or mapped from a file."""
    return lambda left, top, width, height: array[top : top + height, left : left + width]


def _tags(first: NDArray[Any]) -> dict[str, Any]:
    channels = first.shape[2] if first.ndim == 3 else 1
    return {
        "tile": (TILE, TILE),
        "compression": "adobe_deflate",
        "photometric": "minisblack" if channels == 1 else "rgb",
        "extrasamples": ("unassalpha",) if channels == 4 else None,
        "resolutionunit": "centimeter",
        "software": "xpath",
    }


def _metadata(first: NDArray[Any], um_per_pixel: float, name: str) -> dict[str, Any]:
    return {
        "axes": "YX" if first.ndim == 2 else "YXS",
        "Name": name,
        "PhysicalSizeX": um_per_pixel,
        "PhysicalSizeXUnit": MICRON,
        "PhysicalSizeY": um_per_pixel,
        "PhysicalSizeYUnit": MICRON,
    }


def _strips(
    tile: Callable[[int, int, int, int], NDArray[Any]], size: Size, first: NDArray[Any]
) -> Iterator[NDArray[Any]]:
    """The picture as rows of tiles, side by side."""
    for top in range(0, size.height, TILE):
        height = min(TILE, size.height - top)
        strip = np.empty((height, size.width, *first.shape[2:]), first.dtype)
        for left in range(0, size.width, TILE):
            box = (left, top, min(TILE, size.width - left), height)
            pixels = _checked(tile, box, first.dtype.name) if left or top else first
            if pixels.ndim != first.ndim or pixels.shape[2:] != first.shape[2:]:
                raise DataError(f"tile at {box} is {pixels.shape}, the first was {first.shape}")
            strip[:, left : left + box[2]] = pixels
        yield strip


def _checked(
    tile: Callable[[int, int, int, int], NDArray[Any]], box: tuple[int, int, int, int], dtype: str
) -> NDArray[Any]:
    pixels = np.asarray(tile(*box))
    shape = (box[3], box[2])
    if pixels.shape[:2] != shape or pixels.shape[2:] not in ((), (3,), (4,)):
        raise DataError(
            f"tile at {box} (left, top, width, height) must be {shape}, or {shape} of 3 or 4"
            f" channels, got {pixels.shape}"
        )
    if pixels.dtype != dtype:
        raise DataError(f"tile at {box} must be {dtype}, got {pixels.dtype}; convert it first")
    return pixels


def _base(
    rows: Iterator[TileRow], spill: IO[bytes], waiting: list[list[_Stored]]
) -> Iterator[bytes]:
    """Tiles of full resolution. Those of other levels are put aside."""
    encode = _Encoder()
    for row in rows:
        for encoded in encode.tiles(row.pixels):
            if row.level:
                waiting[row.level].append(_Stored(spill.tell(), len(encoded)))
                spill.write(encoded)
            else:
                yield encoded


def _read(spill: IO[bytes], stored: list[_Stored]) -> Iterator[bytes]:
    for offset, length in stored:
        spill.seek(offset)
        yield spill.read(length)


class _Encoder:
    """Compresses tiles, the blank ones, often most of them, only once."""

    def __init__(self) -> None:
        self._blank: dict[bytes, bytes] = {}

    def tiles(self, strip: NDArray[Any]) -> Iterator[bytes]:
        """The tiles of a row, filled up with zeros."""
        for left in range(0, strip.shape[1], TILE):
            pixels = np.ascontiguousarray(strip[:, left : left + TILE])
            missing = (TILE - pixels.shape[0], TILE - pixels.shape[1])
            if any(missing):
                edges = ((0, missing[0]), (0, missing[1]), *((0, 0),) * (pixels.ndim - 2))
                pixels = np.pad(pixels, edges)
            yield self._encoded(pixels)

    def _encoded(self, pixels: NDArray[Any]) -> bytes:
        value = pixels[:1, :1]
        # bit by bit, so that NaN equals itself and -0.0 stays
        bits = pixels.view(f"u{pixels.itemsize}")
        if not (bits == value.view(f"u{pixels.itemsize}")).all():
            return zlib.compress(pixels.data, EFFORT)
        key = value.tobytes()
        if key not in self._blank:
            self._blank[key] = zlib.compress(pixels.data, EFFORT)
        return self._blank[key]
