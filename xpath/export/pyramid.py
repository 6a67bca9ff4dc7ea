"""A picture and all its halves, made in one pass from top to bottom without holding any of them.

Rows come in at full resolution. Each level keeps the few rows it needs for its next row of tiles,
hands them out as soon as they are whole, and passes their halves on. Axes: h w pixels, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    Pixels = NDArray[Any]

__all__ = ["TileRow", "halved", "level_sizes", "tile_rows"]


class TileRow(NamedTuple):
    """One row of tiles of one level, not yet cut."""

    level: int
    """0 is full resolution, each next one half of it."""
    row: int
    pixels: Pixels
    """``(h, w)`` or ``(h, w, C)``."""


def level_sizes(size: Size, smallest: int) -> tuple[Size, ...]:
    """Sizes of all levels, each half the last (rounded up), until no side is over ``smallest``."""
    sizes = [size]
    while max(sizes[-1].width, sizes[-1].height) > smallest:
        last = sizes[-1]
        sizes.append(Size(-(-last.width // 2), -(-last.height // 2)))
    return tuple(sizes)


def tile_rows(strips: Iterable[Pixels], sizes: tuple[Size, ...], side: int) -> Iterator[TileRow]:
    """Rows of tiles of all levels, those of one level in order.

    Args:
        strips: Rows of the picture from the top, any number at a time; ``(h, w)`` numbers are
            averaged where they are no NaN, ``(h, w, 3)`` uint8 is averaged, ``(h, w, 4)`` weighted
            by its last channel, opacity.
        sizes: Of ``level_sizes``.
        side: Of a tile.

    Raises:
        DataError: Strips of another width, or too few or many rows.
    """
    levels = [_Level(size, side) for size in sizes]
    done = 0
    for strip in strips:
        done += len(strip)
        if strip.shape[1] != sizes[0].width or done > sizes[0].height:
            raise DataError(
                f"a strip of {strip.shape[:2]} does not fit row {done - len(strip)} of a picture"
                f" of {sizes[0]}"
            )
        yield from _passed_on(levels, strip, last=done == sizes[0].height)
    if done != sizes[0].height:
        raise DataError(f"strips end after {done} rows of a picture of {sizes[0]}")


def halved(pixels: Pixels) -> Pixels:
    """Every 2 by 2 pixels as one, fewer at the right and lower border of odd sizes."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        edges = ((0, height % 2), (0, width % 2), *((0, 0),) * (pixels.ndim - 2))
        pixels = np.pad(pixels, edges, mode="edge")
    if pixels.dtype == np.uint8 and pixels.shape[2:] == (4,):
        return _halved_by_opacity(pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        return _halved_numbers(pixels)
    total = _quarters(pixels, np.uint16)
    return ((total + 2) // 4).astype(pixels.dtype)


def _passed_on(levels: list[_Level], strip: Pixels, *, last: bool) -> Iterator[TileRow]:
    """Adds rows to the first level, and their halves to the next ones."""
    for number, level in enumerate(levels):
        level.add(strip)
        for row, pixels in level.whole():
            yield TileRow(number, row, pixels)
        strip = level.half(last=last)
        if not len(strip):
            return


class _Level:
    """The rows of a level that are still needed."""

    def __init__(self, size: Size, side: int) -> None:
        self._size, self._side = size, side
        self._kept: list[Pixels] = []
        self._top = self._bottom = 0  # rows that are kept
        self._row = 0  # next row of tiles
        self._odd: list[Pixels] = []  # rows not yet halved

    def add(self, strip: Pixels) -> None:
        self._kept.append(strip)
        self._odd.append(strip)
        self._bottom += len(strip)

    def whole(self) -> Iterator[tuple[int, Pixels]]:
        """Rows of tiles that are whole now."""
        while self._row * self._side < self._bottom:
            lowest = min((self._row + 1) * self._side, self._size.height)
            if lowest > self._bottom:
                return
            rows = self._rows()
            yield self._row, rows[: lowest - self._top]
            self._row += 1
            self._kept, self._top = [rows[lowest - self._top :].copy()], lowest  # frees the others

    def half(self, *, last: bool) -> Pixels:
        """Rows for the next level. An odd one waits for its neighbour."""
        rows = self._odd[0] if len(self._odd) == 1 else np.concatenate(self._odd)
        even = len(rows) if last else len(rows) // 2 * 2
        self._odd = [rows[even:].copy()]
        return halved(rows[:even]) if even else rows[:0]

    def _rows(self) -> Pixels:
        if len(self._kept) > 1:
            self._kept = [np.concatenate(self._kept)]
        return self._kept[0]


def _quarters(pixels: Pixels, dtype: Any) -> Pixels:
    """Sum of every 2 by 2 pixels."""
    total = pixels[::2, ::2].astype(dtype)
    for part in (pixels[::2, 1::2], pixels[1::2, ::2], pixels[1::2, 1::2]):
        total += part
    return total


def _halved_numbers(pixels: Pixels) -> Pixels:
    """Mean of the numbers among four, NaN only where all are."""
    mean = _quarters(pixels, pixels.dtype) / 4
    missing = np.isnan(mean)
    if missing.any():
        known = _quarters(~np.isnan(pixels), np.uint8)
        total = _quarters(np.nan_to_num(pixels, nan=0.0), pixels.dtype)
        few = np.where(known > 0, total / np.maximum(known, 1), np.nan)
        mean[missing] = few[missing]
    return np.asarray(mean, pixels.dtype)


def _halved_by_opacity(pixels: Pixels) -> Pixels:
    """Colours weighted by opacity, so that what is transparent does not bleed in."""
    opacity = pixels[..., 3:].astype(np.uint32)
    total = _quarters(opacity, np.uint32)
    colour = _quarters(pixels[..., :3] * opacity, np.uint32) + total // 2
    mean = colour // np.maximum(total, 1)
    return np.concatenate((mean, (total + 2) // 4), axis=-1).astype(np.uint8)
