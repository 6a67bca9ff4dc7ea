"""Tiled TIFF decoded tile by tile: several times as fast as OpenSlide, and reads SubIFD pyramids.

OpenSlide stays the reference. A file is read here only if sample tiles of each level it knows are
the same, pixel by pixel, and whatever cannot be decoded here is left to it. Levels it does not see,
the SubIFDs of an OME-TIFF, are read here alone.

Axes: H W pixels, h w pixels of a tile.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from functools import lru_cache
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import SlideError
from xpath.geometry import Box, Size
from xpath.store.pixel_types import TURNED, tiff_orientation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.wsi.openslide_reader import OpenSlideReader

__all__ = ["TiffReader", "faster"]

logger = logging.getLogger(__name__)

VENDORS = frozenset(("aperio", "generic-tiff"))
"""Formats in which a level is one image of a TIFF file, without gaps or overlaps."""
LARGEST_TILE = 4096
"""Larger tiles, in pixels a side, are a damaged directory."""
SAMPLE = 64
"""Side of the samples that are compared with OpenSlide."""
CACHE_BYTES = 2**25
"""Decoded tiles that are kept, as OpenSlide does: neighbouring patches share them."""


def faster(reader: OpenSlideReader) -> OpenSlideReader | TiffReader:
    """A reader of the same pixels in less time or with more levels, else the given one.

    A file that asks viewers to turn it is read as it is stored: OpenSlide turns most of them tile
    by tile, each in its place.

    Args:
        reader: The file as OpenSlide reads it.

    Raises:
        SlideError: It is to be turned, and cannot be read here.
    """
    if reader.properties.get("openslide.vendor") not in VENDORS:
        return reader
    turned = tiff_orientation(reader.path)
    if turned != 1:
        logger.warning(TURNED, reader.path.name, turned)
    try:
        tiff = TiffReader(reader)
    except Exception as error:  # tifffile may raise anything on a file OpenSlide can read
        if turned == 1:
            return reader
        target = quote(f"{reader.path.stem}.turned.tiff[tile,pyramid]")
        raise SlideError(
            f"{reader.path.name} is to be turned or mirrored (orientation {turned}), which"
            " OpenSlide does tile by tile; turn it once, for example with"
            f" `vips autorot {quote(reader.path.name)} {target}`"
        ) from error
    if turned != 1 or tiff.agrees():
        return tiff
    tiff.close_file()
    return reader


class _Image(NamedTuple):
    """A tiled image of the file."""

    size: Size
    tile: Size
    offsets: Sequence[int]
    counts: Sequence[int]
    """Bytes of each tile, 0 for one that is not in the file."""
    tables: bytes | None
    """Tables that all JPEG tiles of the image share."""
    decode: Callable[..., Any]


class TiffReader:
    """An open TIFF file, which threads may share."""

    def __init__(self, reader: OpenSlideReader) -> None:
        """Finds the image of each level.

        Raises:
            ValueError: A level is not there as one tiled image of 8-bit RGB.
        """
        import tifffile

        self._openslide = reader
        self.path: Path = reader.path
        self.properties = reader.properties
        self._file = self.path.open("rb")
        try:
            with tifffile.TiffFile(self._file, name=self.path.name) as tiff:
                self._images = _images(tiff, reader.level_dimensions)
        except BaseException:
            self._file.close()
            raise
        weakref.finalize(self, self._file.close)  # for who does not close a slide
        self._known = len(reader.level_dimensions)
        self._size = os.fstat(self._file.fileno()).st_size
        self._lock = threading.Lock()
        sizes = [(image.size.width, image.size.height) for image in self._images]
        self.level_dimensions = tuple(sizes)
        width, height = sizes[0]
        self.level_downsamples = reader.level_downsamples + tuple(
            (width / w + height / h) / 2 for w, h in sizes[self._known :]
        )
        largest = max(image.tile.width * image.tile.height * 3 for image in self._images)
        self._tile = lru_cache(max(4, CACHE_BYTES // largest))(self._decode)

    def close(self) -> None:
        """Ends reading."""
        self._openslide.close()
        self.close_file()

    def close_file(self) -> None:
        """Lets go of the file, but not of OpenSlide."""
        with self._lock:
            self._file.close()
        self._tile.cache_clear()

    def agrees(self) -> bool:
        """Whether samples of each level that OpenSlide knows are the same, pixel by pixel."""
        try:
            return all(
                np.array_equal(self._paste(index, box), self._openslide.region(index, box))
                for index in range(self._known)
                for box in _samples(self._images[index], self.level_downsamples[index])
            )
        except Exception:  # noqa: BLE001 - codecs raise anything; then OpenSlide reads the file
            return False

    def region(self, index: int, box: Box) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` of a level, white where a tile is not in the file.

        Args:
            index: The level.
            box: In pixels of the level, inside it.

        Raises:
            SlideError: This part of the file is damaged, or the slide is closed.
        """
        try:
            return self._paste(index, box)
        except Exception as error:
            if index < self._known:
                return self._openslide.region(index, box)
            raise SlideError(
                f"{self.path.name} is damaged at {box} (pixels of level {index}): {error}"
            ) from error

    def shift(self, index: int, corner: int) -> float:  # noqa: ARG002 - as other readers have it
        """How far past a corner a region begins: not at all."""
        return 0.0

    def _paste(self, index: int, box: Box) -> NDArray[np.uint8]:
        image = self._images[index]
        h, w = image.tile.height, image.tile.width
        columns = -(-image.size.width // w)
        result = np.empty((box.height, box.width, 3), np.uint8)
        for row in range(box.y // h, -(-box.bottom // h)):
            down, rows = _overlap(row * h, h, box.y, box.height)
            for column in range(box.x // w, -(-box.right // w)):
                across, inside = _overlap(column * w, w, box.x, box.width)
                tile = self._tile(index, row * columns + column)
                result[down, across] = 255 if tile is None else tile[rows, inside]
        return result

    def _decode(self, index: int, number: int) -> NDArray[np.uint8] | None:
        """One tile ``(h, w, 3)``, or None where the file has none."""
        image = self._images[index]
        count = image.counts[number]
        if count == 0:
            return None
        if count > self._size:
            raise SlideError(f"tile {number} has {count} bytes, more than the file")
        data = self._bytes(image.offsets[number], count)
        tile, _, _ = image.decode(data, number, jpegtables=image.tables)
        if tile is None or tile.shape[-1] != 3 or tile.dtype != np.uint8:
            raise SlideError(f"tile {number} is not RGB of 8 bits")
        return np.asarray(tile[0], np.uint8)

    def _bytes(self, offset: int, count: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)


def _images(tiff: Any, sizes: Sequence[tuple[int, int]]) -> list[_Image]:
    """The image of each level, and those in the SubIFDs of the first if OpenSlide sees only it."""
    usable = [page for page in tiff.pages if _is_usable(page)]
    by_size = {(page.imagewidth, page.imagelength): page for page in reversed(usable)}
    if not set(sizes) <= set(by_size):
        raise ValueError(f"no tiled RGB images of the sizes {sizes}, only {sorted(by_size)}")
    pages = [by_size[size] for size in sizes]
    if len(pages) == 1 and pages[0].subifds:
        below = [page for page in pages[0].pages if _is_usable(page)]
        pages += sorted(below, key=lambda page: -int(page.imagewidth))
    return [
        _Image(
            Size(page.imagewidth, page.imagelength),
            Size(page.tilewidth, page.tilelength),
            page.dataoffsets,
            page.databytecounts,
            page.jpegtables,
            page.decode,
        )
        for page in pages
    ]


def _is_usable(page: Any) -> bool:
    return bool(
        page.is_tiled
        and page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.imagedepth == 1
        and min(page.tilewidth, page.tilelength) > 0
        and max(page.tilewidth, page.tilelength) <= LARGEST_TILE
    )


def _samples(image: _Image, downsample: float) -> list[Box]:
    """Where an image is compared with OpenSlide: at corners, and where tiles meet."""
    full, tile = image.size, image.tile
    width, height = min(SAMPLE, full.width), min(SAMPLE, full.height)

    def at(part: float, length: int, tile: int, side: int) -> int:
        """A corner half a sample before the border of two tiles, a part of the way along."""
        corner = int(part * length) // tile * tile - SAMPLE // 2
        corner = min(max(0, corner), length - side)
        # OpenSlide blends neighbours where a corner is no whole pixel of level 0.
        return corner if (corner * downsample).is_integer() else 0

    return [
        Box(
            at(across, full.width, tile.width, width),
            at(down, full.height, tile.height, height),
            width,
            height,
        )
        for across, down in ((0, 0), (0.5, 0.5), (1, 1))
    ]


def _overlap(start: int, length: int, first: int, wanted: int) -> tuple[slice, slice]:
    """Overlap of a tile and a region along one axis, in pixels of the region and of the tile."""
    low, high = max(start, first), min(start + length, first + wanted)
    return slice(low - first, high - first), slice(low - start, high - start)
