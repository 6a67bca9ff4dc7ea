"""Outlines of the pieces of a mask along the borders of its pixels, row by row of the slide.

A pixel covers from its index to the next, so an outline encloses exactly as many square pixels as
its piece has: no corner is cut. Pieces are 4-connected; what touches at a corner only is apart.
Every ring visits a corner once, and a hole may touch the outline in a point, as the geometries of
QuPath require. Only the corners of pieces that go on below are kept, never the canvas.

How it works: at a corner of a pixel where the border turns, exactly one stretch of border leaves
to a side and one up or down. Sorted along a row, the corners of one piece pair up into horizontal
stretches, sorted along a column into vertical ones; rings follow them in turn.
Axes: h w pixels of the canvas, W its width, K corners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    Integers = NDArray[np.signedinteger[Any]]

__all__ = ["Outliner", "Piece", "Window", "ring_area"]

_TURNS = np.full(16, -1, np.int8)
"""By which of the four pixels around a corner are in (1 top left, 2 top right, 4 bottom left, 8
bottom right): the stretches of border that meet, 1 for right instead of left, plus 2 for down
instead of up. -1 is no corner, 6 and 9 are two corners in one place."""
_TURNS[[1, 2, 4, 8, 14, 13, 11, 7]] = [0, 1, 2, 3, 0, 1, 2, 3]
_CORNER = _TURNS >= 0
_CORNER[[6, 9]] = True


class Window(NamedTuple):
    """Where a patch lies on the canvas."""

    patch: int
    top: int
    left: int
    bottom: int
    right: int


class Piece(NamedTuple):
    """A connected piece of a mask."""

    rings: tuple[NDArray[np.int64], ...]
    """Closed rings ``(K, 2)`` of x, y: the outline, then holes, which turn the other way."""
    pixels: int
    patches: Integers
    """``(n,)`` the patches it lies in."""
    counts: Integers
    """``(n,)`` its pixels in each."""


class _Corners(NamedTuple):
    """Corners of several pieces, ``(K,)`` each."""

    x: Integers
    y: Integers
    turn: Integers
    piece: Integers


class _Shares(NamedTuple):
    """Pixels of pieces in patches, ``(n,)`` each."""

    piece: Integers
    patch: Integers
    pixels: Integers


class Outliner:
    """Takes a mask strip by strip, from the top, and gives each piece when it has ended."""

    def __init__(self, width: int) -> None:
        """Begins above the first row of a canvas of this width."""
        self._row = 0
        self._last = np.full(width, -1, np.int32)  # piece under each pixel of the last row
        self._pixels = np.zeros(0, np.int64)  # of each piece that goes on below
        self._corners = _no_corners()
        self._shares = _no_shares()

    def add(self, strip: NDArray[np.bool_], windows: Sequence[Window] = ()) -> list[Piece]:
        """The pieces that end within a strip ``(h, W)``, the next rows of the canvas.

        Args:
            strip: The mask.
            windows: Patches whose shares of the pieces are counted; clipped to the strip.
        """
        used = np.flatnonzero(strip.any(axis=0) | (self._last >= 0))
        top, self._row = self._row, self._row + len(strip)
        if not used.size:
            return []
        columns = slice(int(used[0]), int(used[-1]) + 1)
        pieces = self._numbered(strip[:, columns], columns)
        found = _corners(pieces, top, columns.start)
        shares = _shares(pieces, windows, top, columns)
        pixels = _times(pieces[1:], len(self._pixels))
        pixels[: len(self._pixels)] += self._pixels
        whole = _united(pieces, len(pixels))
        total = np.bincount(whole, weights=pixels).astype(np.int64)
        corners = _Corners(*_joined([self._corners, found]))
        shared = _Shares(*_joined([self._shares, shares]))
        bottom = pieces[-1, 1:-1]
        self._last[:] = -1
        self._last[columns] = np.append(whole, np.int32(-1))[bottom]
        corners = corners._replace(piece=whole[corners.piece])
        shared = shared._replace(piece=whole[shared.piece])
        return self._ended(corners, shared, total)

    def finish(self) -> list[Piece]:
        """The pieces that reach the last row."""
        return self.add(np.zeros((1, len(self._last)), np.bool_))

    def _numbered(self, strip: NDArray[np.bool_], columns: slice) -> NDArray[np.int32]:
        """Piece under each pixel ``(1 + h, 1 + w + 1)``, the row above and a frame added; else -1.

        Pieces of the strip are numbered after those that are open.
        """
        import cv2

        image = np.ascontiguousarray(strip).view(np.uint8)
        _, labels = cv2.connectedComponents(image, connectivity=4, ltype=cv2.CV_32S)
        pieces = np.full((len(strip) + 1, strip.shape[1] + 2), -1, np.int32)
        np.copyto(pieces[1:, 1:-1], labels + (len(self._pixels) - 1), where=labels > 0)
        pieces[0, 1:-1] = self._last[columns]
        return pieces

    def _ended(self, corners: _Corners, shares: _Shares, total: NDArray[np.int64]) -> list[Piece]:
        """Keeps what goes on below and makes pieces of the rest."""
        open_ = np.zeros(len(total), np.bool_)
        open_[self._last[self._last >= 0]] = True
        name = np.cumsum(open_).astype(np.int32) - 1  # open pieces are numbered anew, without gaps
        kept = open_[corners.piece]
        self._corners = _Corners(*(values[kept] for values in corners))
        self._corners = self._corners._replace(piece=name[self._corners.piece])
        ended = _Corners(*(values[~kept] for values in corners))
        kept = open_[shares.piece]
        self._shares = _Shares(*(values[kept] for values in shares))
        self._shares = self._shares._replace(piece=name[self._shares.piece])
        self._last = np.append(name, np.int32(-1))[self._last]
        self._pixels = total[open_]
        return _pieces(ended, _Shares(*(values[~kept] for values in shares)), total)


def ring_area(ring: NDArray[np.floating] | NDArray[np.integer]) -> float:
    """Signed area of a closed ring ``(K, 2)``, positive from x towards y (shoelace)."""
    x, y = np.asarray(ring, np.float64).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _no_corners() -> _Corners:
    none = np.zeros(0, np.int32)
    return _Corners(none, none, none.astype(np.int8), none)


def _no_shares() -> _Shares:
    none = np.zeros(0, np.int64)
    return _Shares(none, none, none)


def _joined(parts: Sequence[Sequence[Integers]]) -> list[Integers]:
    """Columns of several tables, one after the other."""
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def _times(pieces: NDArray[np.int32], least: int = 0) -> NDArray[np.int64]:
    """How often each piece occurs, of at least so many."""
    return np.bincount(pieces.ravel() + 1, minlength=1 + least)[1:]


def _united(pieces: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """What each piece is called once those that meet at the seam are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    above, below = pieces[0], pieces[1]
    touch = (above >= 0) & (below >= 0)
    pairs = (np.ones(int(touch.sum()), np.bool_), (above[touch], below[touch]))
    names: NDArray[np.int32]
    _, names = connected_components(coo_array(pairs, shape=(count, count)), directed=False)
    return names


def _corners(pieces: NDArray[np.int32], top: int, left: int) -> _Corners:
    """Where the border turns, on every row of corners but the lowest."""
    inside = (pieces >= 0).view(np.uint8)
    around = inside[:-1, :-1] | inside[:-1, 1:] << 1 | inside[1:, :-1] << 2 | inside[1:, 1:] << 3
    y, x = np.nonzero(_CORNER[around])
    code = around[y, x]
    near = np.stack([pieces[y + down, x + right] for down in (0, 1) for right in (0, 1)])
    single = _TURNS[code] >= 0
    # Around a corner of one turn all pixels that are in belong to one piece.
    parts = [(single, _TURNS[code], near.max(axis=0))]
    for both, first in ((9, 0), (6, 1)):  # two pixels that meet in a point: each its own corner
        crossing = code == both
        for quadrant in (first, 3 - first):
            turn = np.full(len(code), quadrant, np.int8)
            parts.append((crossing, turn, near[quadrant]))
    return _Corners(
        np.concatenate([x[part] + left for part, _, _ in parts]).astype(np.int32),
        np.concatenate([y[part] + top for part, _, _ in parts]).astype(np.int32),
        np.concatenate([turn[part] for part, turn, _ in parts]),
        np.concatenate([piece[part] for part, _, piece in parts]),
    )


def _shares(
    pieces: NDArray[np.int32], windows: Sequence[Window], top: int, columns: slice
) -> _Shares:
    """How many pixels of each piece of a strip lie in each patch."""
    found = [_no_shares()]
    for window in windows:
        rows = slice(max(0, window.top - top) + 1, max(0, window.bottom - top) + 1)
        left, right = (max(0, side - columns.start) for side in (window.left, window.right))
        times = _times(pieces[rows, 1 + left : 1 + min(right, columns.stop - columns.start)])
        piece = np.flatnonzero(times)
        found.append(_Shares(piece, np.full(len(piece), window.patch), times[piece]))
    return _Shares(*_joined(found))


def _pieces(corners: _Corners, shares: _Shares, total: NDArray[np.int64]) -> list[Piece]:
    """Whole pieces, in the order of their first corners' numbers."""
    if not len(corners.x):
        return []
    corners = _paired_at_points(corners)
    points = np.stack((corners.x, corners.y), axis=1).astype(np.int64)
    order, starts = _follow(corners)
    points, owners = points[order], corners.piece[order[starts]].tolist()
    ends = [*starts[1:], len(order)]
    rings: dict[int, list[NDArray[np.int64]]] = {}
    for owner, start, end in zip(owners, starts, ends, strict=True):
        ring = np.concatenate((points[start:end], points[start : start + 1]))
        known = rings.setdefault(owner, [])
        known.append(ring[::-1] if known else ring)  # the first is the outline, the rest holes
    shares = _summed(shares)
    firsts = np.searchsorted(shares.piece, np.arange(len(total) + 1)).tolist()
    pixels = total.tolist()
    pieces = []
    for piece, its in rings.items():
        part = slice(firsts[piece], firsts[piece + 1])
        pieces.append(Piece(tuple(its), pixels[piece], shares.patch[part], shares.pixels[part]))
    return pieces


def _summed(shares: _Shares) -> _Shares:
    """Sorted by piece and patch, one entry each: a patch may have met two strips."""
    order = np.lexsort((shares.patch, shares.piece))
    piece, patch, pixels = (values[order].astype(np.int64) for values in shares)
    if not len(order):
        return _Shares(piece, patch, pixels)
    first = np.flatnonzero((np.diff(piece, prepend=-1) != 0) | (np.diff(patch, prepend=-1) != 0))
    return _Shares(piece[first], patch[first], np.add.reduceat(pixels, first))


def _paired_at_points(corners: _Corners) -> _Corners:
    """Sorted by piece, row and column; where a piece meets itself in a point, rings part there.

    Two pixels of one piece that touch in a point enclose something, or lie around a hole. A ring
    that turned with each pixel would pass the point twice; turned with the gaps, there are two
    rings, each of which passes once.
    """
    order = np.lexsort((corners.turn & 1, corners.x, corners.y, corners.piece))
    x, y, turn, piece = (values[order] for values in corners)
    twice = np.flatnonzero((np.diff(x) == 0) & (np.diff(y) == 0) & (np.diff(piece) == 0))
    crossed = turn[twice] + turn[twice + 1] == 3
    twice = twice[crossed]
    # (left up, right down) becomes (left down, right up), and the reverse
    turn[twice] ^= 2
    turn[twice + 1] ^= 2
    return _Corners(x, y, turn, piece)


def _follow(corners: _Corners) -> tuple[NDArray[np.int64], list[int]]:
    """Order of the corners ring by ring, and where each ring begins.

    Corners must be sorted by piece, row and column: neighbours in pairs then share a horizontal
    stretch, and the first ring of a piece is its outline, as nothing lies above it.
    """
    column = np.lexsort((corners.turn >> 1, corners.y, corners.x, corners.piece))
    across = np.empty(len(column), np.int64)
    across[column[0::2]], across[column[1::2]] = column[1::2], column[0::2]
    partner, seen = across.tolist(), bytearray(len(column))
    order: list[int] = []
    starts = []
    for start in range(len(column)):
        if seen[start]:
            continue
        starts.append(len(order))
        at = start
        while not seen[at]:
            beside = at ^ 1
            seen[at] = seen[beside] = 1
            order += (at, beside)
            at = partner[beside]
    return np.array(order, np.int64), starts
