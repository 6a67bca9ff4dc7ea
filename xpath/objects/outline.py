"""Outlines of the connected components of a mask along pixel borders, row by row of the slide.

A pixel covers from its index to the next, so an outline encloses exactly as many square pixels as
its component has: no corner is cut. Components are 4-connected, so what touches at a corner only is
apart. Every ring visits a corner once, and a hole may touch the outline in a point, as the
geometries of QuPath require. Only the corners of components that go on below are kept, never the
canvas.

How it works: at a corner of a pixel where the border turns, exactly one stretch of border leaves
to a side and one up or down. Sorted along a row, the corners of one component pair up into
horizontal stretches, sorted along a column into vertical ones, and rings follow them in turn.
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

__all__ = ["Component", "Outliner", "Window", "components", "fill"]

_TURNS = np.full(16, -1, np.int8)
"""By which of the four pixels around a corner are in (1 top left, 2 top right, 4 bottom left, 8
bottom right): the stretches of border that meet, 1 for right instead of left, plus 2 for down
instead of up. -1 is no corner, 6 and 9 are two corners at one point."""
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


class Component(NamedTuple):
    """A connected component of a mask, or the part of one that is an object."""

    rings: tuple[NDArray[np.int64], ...]
    """Closed rings ``(K, 2)`` of x, y: the outline, then holes, which turn the other way."""
    pixels: int
    patches: Integers
    """``(n,)`` the patches it lies in."""
    counts: Integers
    """``(n,)`` its pixels in each."""


class _Corners(NamedTuple):
    """Corners of several components, ``(K,)`` each."""

    x: Integers
    y: Integers
    turn: Integers
    component: Integers


class _Shares(NamedTuple):
    """Pixels of components in patches, ``(n,)`` each."""

    component: Integers
    patch: Integers
    pixels: Integers


class Outliner:
    """Takes a mask strip by strip, from the top, and gives each component when it has ended."""

    def __init__(self, width: int) -> None:
        """Begins above the first row of a canvas of this width."""
        self._row = 0
        self._last = np.full(width, -1, np.int32)  # component under each pixel of the last row
        self._pixels = np.zeros(0, np.int64)  # of each component that goes on below
        self._corners = _no_corners()
        self._shares = _no_shares()

    def add(self, strip: NDArray[np.bool_], windows: Sequence[Window] = ()) -> list[Component]:
        """The components that end within a strip ``(h, W)``, the next rows of the canvas.

        Args:
            strip: The mask.
            windows: Patches whose shares of the components are counted; clipped to the strip.
        """
        used = np.flatnonzero(strip.any(axis=0) | (self._last >= 0))
        top, self._row = self._row, self._row + len(strip)
        if not used.size:
            return []
        columns = slice(int(used[0]), int(used[-1]) + 1)
        components = self._numbered(strip[:, columns], columns)
        corners = _corners(components, top, columns.start)
        shares = _shares(components, windows, top, columns)
        pixels = _times(components[1:], len(self._pixels))
        pixels[: len(self._pixels)] += self._pixels
        whole = _united(components, len(pixels))
        total = np.bincount(whole, weights=pixels).astype(np.int64)
        corners = _Corners(*_joined([self._corners, corners]))
        shared = _Shares(*_joined([self._shares, shares]))
        bottom = components[-1, 1:-1]
        self._last[:] = -1
        self._last[columns] = np.append(whole, np.int32(-1))[bottom]
        corners = corners._replace(component=whole[corners.component])
        shared = shared._replace(component=whole[shared.component])
        return self._ended(corners, shared, total)

    def pass_by(self, rows: int) -> list[Component]:
        """The same of so many rows in which there is nothing."""
        ended = self.add(np.zeros((1, len(self._last)), np.bool_))
        self._row += rows - 1
        return ended

    def finish(self) -> list[Component]:
        """The components that reach the last row."""
        return self.add(np.zeros((1, len(self._last)), np.bool_))

    def _numbered(self, strip: NDArray[np.bool_], columns: slice) -> NDArray[np.int32]:
        """Component under each pixel ``(1 + h, 1 + w + 1)``, with the row above and a frame, or -1.

        Components of the strip are numbered after those that are open.
        """
        import cv2

        image = np.ascontiguousarray(strip).view(np.uint8)
        _, labels = cv2.connectedComponents(image, connectivity=4, ltype=cv2.CV_32S)
        components = np.full((len(strip) + 1, strip.shape[1] + 2), -1, np.int32)
        np.copyto(components[1:, 1:-1], labels + (len(self._pixels) - 1), where=labels > 0)
        components[0, 1:-1] = self._last[columns]
        return components

    def _ended(
        self, corners: _Corners, shares: _Shares, total: NDArray[np.int64]
    ) -> list[Component]:
        """Keeps the components that go on below and returns the others."""
        open_ = np.zeros(len(total), np.bool_)
        open_[self._last[self._last >= 0]] = True
        name = (
            np.cumsum(open_).astype(np.int32) - 1
        )  # open components are numbered anew, without gaps
        kept = open_[corners.component]
        self._corners = _Corners(*(values[kept] for values in corners))
        self._corners = self._corners._replace(component=name[self._corners.component])
        ended = _Corners(*(values[~kept] for values in corners))
        kept = open_[shares.component]
        self._shares = _Shares(*(values[kept] for values in shares))
        self._shares = self._shares._replace(component=name[self._shares.component])
        self._last = np.append(name, np.int32(-1))[self._last]
        self._pixels = total[open_]
        return _components(ended, _Shares(*(values[~kept] for values in shares)), total)


def components(mask: NDArray[np.bool_]) -> list[Component]:
    """The components of a mask ``(h, w)`` that is in memory, as they end from top to bottom."""
    outliner = Outliner(mask.shape[1])
    return [*outliner.add(mask), *outliner.finish()]


def fill(rings: Sequence[Integers], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """``(h, w)`` pixels within the rings of a component: what they were traced from.

    From left to right a row goes in and out where it crosses a vertical stretch of border.
    """
    begin = np.concatenate([ring[:-1] for ring in rings])
    end = np.concatenate([ring[1:] for ring in rings])
    upright = begin[:, 0] == end[:, 0]
    x, ys = begin[upright, 0], np.sort(np.stack((begin[upright, 1], end[upright, 1])), axis=0)
    length = ys[1] - ys[0]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    crossings = np.zeros((shape[0], shape[1] + 1), np.uint8)
    crossings[np.repeat(ys[0], length) + within, np.repeat(x, length)] = 1
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1].view(np.bool_)


def _no_corners() -> _Corners:
    none = np.zeros(0, np.int32)
    return _Corners(none, none, none.astype(np.int8), none)


def _no_shares() -> _Shares:
    none = np.zeros(0, np.int64)
    return _Shares(none, none, none)


def _joined(tables: Sequence[Sequence[Integers]]) -> list[Integers]:
    """Columns of several tables, one after the other."""
    return [np.concatenate(columns) for columns in zip(*tables, strict=True)]


def _times(components: NDArray[np.int32], least: int = 0) -> NDArray[np.int64]:
    """Pixels of each component, of at least so many components."""
    return np.bincount(components.ravel() + 1, minlength=1 + least)[1:]


def _united(components: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Number of each component once those that meet at the seam are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    above, below = components[0], components[1]
    touch = (above >= 0) & (below >= 0)
    if not touch.any():  # as for any single image; the graph costs more than all the rest
        return np.arange(count, dtype=np.int32)
    pairs = (np.ones(int(touch.sum()), np.bool_), (above[touch], below[touch]))
    names: NDArray[np.int32]
    _, names = connected_components(coo_array(pairs, shape=(count, count)), directed=False)
    return names


def _corners(components: NDArray[np.int32], top: int, left: int) -> _Corners:
    """Corners of the border on every row of corners but the lowest."""
    inside = (components >= 0).view(np.uint8)
    around = inside[:-1, :-1] | inside[:-1, 1:] << 1 | inside[1:, :-1] << 2 | inside[1:, 1:] << 3
    y, x = np.nonzero(_CORNER[around])
    code = around[y, x]
    near = np.stack([components[y + down, x + right] for down in (0, 1) for right in (0, 1)])
    single = _TURNS[code] >= 0
    # Around a corner of one turn all pixels that are in belong to one component.
    turns = [(single, _TURNS[code], near.max(axis=0))]
    for both, first in ((9, 0), (6, 1)):  # two pixels that meet in a point: each its own corner
        crossing = code == both
        for quadrant in (first, 3 - first):
            turn = np.full(len(code), quadrant, np.int8)
            turns.append((crossing, turn, near[quadrant]))
    return _Corners(
        np.concatenate([x[chosen] + left for chosen, _, _ in turns]).astype(np.int32),
        np.concatenate([y[chosen] + top for chosen, _, _ in turns]).astype(np.int32),
        np.concatenate([turn[chosen] for chosen, turn, _ in turns]),
        np.concatenate([component[chosen] for chosen, _, component in turns]),
    )


def _shares(
    components: NDArray[np.int32], windows: Sequence[Window], top: int, columns: slice
) -> _Shares:
    """Pixels of each component of a strip in each patch."""
    tables = [_no_shares()]
    for window in windows:
        rows = slice(max(0, window.top - top) + 1, max(0, window.bottom - top) + 1)
        left, right = (max(0, side - columns.start) for side in (window.left, window.right))
        times = _times(components[rows, 1 + left : 1 + min(right, columns.stop - columns.start)])
        component = np.flatnonzero(times)
        tables.append(_Shares(component, np.full(len(component), window.patch), times[component]))
    return _Shares(*_joined(tables))


def _components(corners: _Corners, shares: _Shares, total: NDArray[np.int64]) -> list[Component]:
    """Whole components, in the order of their first corners' numbers."""
    if not len(corners.x):
        return []
    corners = _paired_at_points(corners)
    points = np.stack((corners.x, corners.y), axis=1).astype(np.int64)
    order, starts = _follow(corners)
    points, owners = points[order], corners.component[order[starts]].tolist()
    ends = [*starts[1:], len(order)]
    rings: dict[int, list[NDArray[np.int64]]] = {}
    for owner, start, end in zip(owners, starts, ends, strict=True):
        ring = np.concatenate((points[start:end], points[start : start + 1]))
        known = rings.setdefault(owner, [])
        known.append(ring[::-1] if known else ring)  # the first is the outline, the rest holes
    shares = _summed(shares)
    firsts = np.searchsorted(shares.component, np.arange(len(total) + 1)).tolist()
    pixels = total.tolist()
    components = []
    for component, its in rings.items():
        part = slice(firsts[component], firsts[component + 1])
        components.append(
            Component(tuple(its), pixels[component], shares.patch[part], shares.pixels[part])
        )
    return components


def _summed(shares: _Shares) -> _Shares:
    """Sorted by component and patch, one entry each: a patch may have met two strips."""
    order = np.lexsort((shares.patch, shares.component))
    component, patch, pixels = (values[order].astype(np.int64) for values in shares)
    if not len(order):
        return _Shares(component, patch, pixels)
    first = np.flatnonzero(
        (np.diff(component, prepend=-1) != 0) | (np.diff(patch, prepend=-1) != 0)
    )
    return _Shares(component[first], patch[first], np.add.reduceat(pixels, first))


def _paired_at_points(corners: _Corners) -> _Corners:
    """Sorts by component, row and column, and parts rings where a component meets itself.

    Two pixels of one component that touch in a point enclose something, or lie around a hole. A
    ring that turned with each pixel would pass the point twice; turned with the gaps, there are two
    rings, each of which passes once.
    """
    order = np.lexsort((corners.turn & 1, corners.x, corners.y, corners.component))
    x, y, turn, component = (values[order] for values in corners)
    twice = np.flatnonzero((np.diff(x) == 0) & (np.diff(y) == 0) & (np.diff(component) == 0))
    crossed = turn[twice] + turn[twice + 1] == 3
    twice = twice[crossed]
    # (left up, right down) becomes (left down, right up), and the reverse
    turn[twice] ^= 2
    turn[twice + 1] ^= 2
    return _Corners(x, y, turn, component)


def _follow(corners: _Corners) -> tuple[NDArray[np.int64], list[int]]:
    """Order of the corners ring by ring, and where each ring begins.

    Corners must be sorted by component, row and column: neighbours in pairs then share a horizontal
    stretch, and the first ring of a component is its outline, as nothing lies above it.
    """
    column = np.lexsort((corners.turn >> 1, corners.y, corners.x, corners.component))
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
