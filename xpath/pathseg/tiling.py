"""Windows over large images, as PathSeg was cut (paper, section 4.1, "Patching").

A side longer than a limit is covered by windows that overlap evenly; a shorter one is taken whole.
All numbers are pixels of the image that is cut.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from xpath.errors import ConfigError

__all__ = ["LIMIT", "WINDOW", "Window", "overlap", "starts", "windows"]

WINDOW = 1024
"""Side of a window."""
LIMIT = 1500
"""Sides above this are cut."""


class Window(NamedTuple):
    """A rectangle of an image, with its row and column in the grid of windows."""

    row: int
    column: int
    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array ``(H, W, ...)``."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


def overlap(side: int, window: int = WINDOW) -> float:
    """How far neighbouring windows overlap: ``(w ceil(D / w) - D) / (ceil(D / w) - 1)``.

    The paper writes L for one of the two D; they are the same length, or its windows would not end
    where the image ends. A side of one window has no neighbours: 0.

    Raises:
        ConfigError: A side or window that is not positive.
    """
    _check(side, window)
    count = ceil(side / window)
    return (window * count - side) / (count - 1) if count > 1 else 0.0


def starts(side: int, *, window: int = WINDOW, limit: int = LIMIT) -> tuple[int, ...]:
    """Where windows begin along a side, ``(0,)`` for a side that is not cut.

    The even overlap is rarely a whole number, so each start is rounded by itself: the first window
    begins and the last one ends with the image, and no gap arises, for steps are at most a window.

    Raises:
        ConfigError: A side or window that is not positive, or a limit below the window.
    """
    _check(side, window)
    if limit < window:
        raise ConfigError(
            f"a limit of {limit} px is below the window of {window} px: a side between them would "
            "be shorter than its window; raise the limit"
        )
    if side <= limit:
        return (0,)
    last = ceil(side / window) - 1
    return tuple(round(step * (side - window) / last) for step in range(last + 1))


def windows(
    height: int, width: int, *, window: int = WINDOW, limit: int = LIMIT
) -> tuple[Window, ...]:
    """All windows of an image, row by row. Height and width are cut separately.

    Raises:
        ConfigError: As for ``starts``.
    """
    tops = starts(height, window=window, limit=limit)
    lefts = starts(width, window=window, limit=limit)
    high = window if len(tops) > 1 else height
    wide = window if len(lefts) > 1 else width
    return tuple(
        Window(row, column, top, left, high, wide)
        for row, top in enumerate(tops)
        for column, left in enumerate(lefts)
    )


def _check(side: int, window: int) -> None:
    if side < 1 or window < 1:
        raise ConfigError(f"sides must be at least 1 px, got {side} and a window of {window}")
