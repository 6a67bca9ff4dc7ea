"""A picture of a box: which pixels of the pyramid it needs, and how they are shown.

Axes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.wsi.resample import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Size
    from xpath.wsi.pyramid import Stretch
    from xpath.wsi.resample import Span

__all__ = ["View"]


class View(NamedTuple):
    """Pixels of a level, and the picture that is made of them."""

    level: int
    """Index of the level."""
    across: Span
    """What is shown, in pixels of the level."""
    down: Span
    columns: Stretch
    """What is read."""
    rows: Stretch
    size: Size
    """Pixels of the picture."""
    even: bool
    """As of ``resample``."""

    def shown(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture ``(h, w, 3)`` of the pixels ``(H, W, 3)`` that were read."""
        left, top = self.columns.begin, self.rows.begin
        return resample(
            pixels,
            (self.across[0] - left, self.across[1] - left),
            (self.down[0] - top, self.down[1] - top),
            self.size,
            even=self.even,
        )

    def part_for(self, inner: View, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Those of the pixels that were read which another view reads, None if it reads others."""
        columns = _within(self.columns, inner.columns)
        rows = _within(self.rows, inner.rows)
        if self.level != inner.level or columns is None or rows is None:
            return None
        return np.ascontiguousarray(pixels[rows, columns])


def _within(outer: Stretch, inner: Stretch) -> slice | None:
    """Where a stretch lies in another, None if it leaves it or lies between its pixels."""
    start = inner.first - outer.first
    shifted = outer.begin - outer.first != inner.begin - inner.first
    if shifted or start < 0 or start + inner.pixels > outer.pixels:
        return None
    return slice(start, start + inner.pixels)
