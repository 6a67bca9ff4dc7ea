"""Places and lengths on a slide, with their units in the type.

A coordinate is in level-0 pixels, x to the right and y downwards from the top left corner, unless
its name or type says otherwise. A length on the tissue is in ``Microns``, a resolution in ``Mpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Box", "Microns", "Mpp", "PatchGrid", "Size"]

Microns = NewType("Microns", float)
"""A length on the tissue."""

Mpp = NewType("Mpp", float)
"""Microns per pixel: 0.25 is about 40x, 0.5 about 20x."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in level-0 pixels with its top left corner at ``(x, y)``."""

    x: int
    y: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.width, self.height)

    @property
    def right(self) -> int:
        """First column past the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row past the box."""
        return self.y + self.height


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # arrays do not compare to one bool
class PatchGrid:
    """Where the square patches of a slide lie. Axes: N patches."""

    coords: NDArray[np.int64]
    """``(N, 2)`` x, y of the top left corners, level-0 pixels."""
    footprint: int
    """Side of a patch in level-0 pixels."""
    pixels: int
    """Side of a patch in pixels once it is read at ``mpp``."""
    mpp: float | None
    """Resolution at which patches are read, None where the slide stores none (CLAM presets)."""
    overlap: int
    """Overlap of neighbours in level-0 pixels."""
    slide_size: Size
    """Size of the slide at level 0."""
    slide_mpp: float | None
    """Resolution of level 0, None where the slide stores none."""

    def __post_init__(self) -> None:
        """Refuse coordinates of another shape."""
        if self.coords.ndim != 2 or self.coords.shape[1] != 2:
            raise DataError(f"coords must be (N, 2) x, y pairs, got {self.coords.shape}")
        if self.footprint <= 0 or self.pixels <= 0:
            raise DataError(f"patch sides must be positive: {self.footprint}, {self.pixels}")

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.coords)

    def box(self, index: int) -> Box:
        """Where patch ``index`` lies."""
        x, y = self.coords[index]
        return Box(int(x), int(y), self.footprint, self.footprint)

    def boxes(self) -> Iterator[Box]:
        """Where all patches lie, in order."""
        return (self.box(index) for index in range(len(self)))
