"""Boxes of the viewer's tiles on a slide: the arithmetic of DeepZoom.

The last level has the slide's own pixels, each level before it half as many a side, the first is
one pixel. Tiles do not overlap; those at the right and lower border are smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from xpath.geometry import Box, Size
from xpath.review.refusal import Refused

__all__ = ["TILE", "Pyramid", "Tile"]

TILE = 256
"""Side of a tile, pixels: the viewer cannot ask for any other."""


class Tile(NamedTuple):
    """A part of the slide, and how many pixels it is shown with."""

    box: Box
    """Level-0 pixels."""
    size: Size


@dataclass(frozen=True, slots=True)
class Pyramid:
    """All tiles of a slide."""

    size: Size
    """Of the slide, level-0 pixels."""

    @property
    def last(self) -> int:
        """Number of the level with the slide's own pixels."""
        return (max(self.size.width, self.size.height) - 1).bit_length()

    def level_size(self, level: int) -> Size:
        """Pixels of a level.

        Raises:
            Refused: No such level.
        """
        if not 0 <= level <= self.last:
            raise Refused(404, f"level must be 0 to {self.last}, got {level}")
        step = 1 << (self.last - level)
        return Size(-(-self.size.width // step), -(-self.size.height // step))

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Box and size of one tile.

        Raises:
            Refused: The slide has no such tile.
        """
        whole, step = self.level_size(level), 1 << (self.last - level)
        left, top = column * TILE, row * TILE
        if min(column, row) < 0 or left >= whole.width or top >= whole.height:
            raise Refused(404, f"level {level} has no tile {column}, {row}")
        shown = Size(min(TILE, whole.width - left), min(TILE, whole.height - top))
        box = Box(left * step, top * step, shown.width * step, shown.height * step)
        return Tile(box, shown)
