"""Masks of patches taken apart into touching pixels, and put together across their borders.

Axes: N patches, H W pixels.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.store.masks import SlideMasks

__all__ = ["Piece", "joined", "pieces"]


class Piece(NamedTuple):
    """Touching pixels of one mask of one patch, on the lattice of mask pixels of the slide."""

    patch: int
    top: int
    left: int
    pixels: NDArray[np.bool_]
    inner: bool
    """So far from the patch's border that no other patch can hold a part of it."""

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.top + int(self.pixels.shape[0])

    @property
    def right(self) -> int:
        """First column to its right."""
        return self.left + int(self.pixels.shape[1])


def pieces(masks: SlideMasks, kinds: Sequence[str]) -> dict[str, list[Piece]]:
    """Pieces of each kind; every patch is read once."""
    columns = {kind: masks.labels.index(kind) for kind in kinds}
    found: dict[str, list[Piece]] = {kind: [] for kind in kinds}
    filled = masks.area[:, list(columns.values())].any(axis=1)
    for patch in np.flatnonzero(filled):
        planes = masks.read(int(patch))
        for kind, column in columns.items():
            if masks.area[patch, column]:
                found[kind] += _pieces_in(masks, int(patch), planes[column])
    return found


def _pieces_in(masks: SlideMasks, patch: int, plane: NDArray[np.bool_]) -> Iterator[Piece]:
    """Pieces of one mask of one patch."""
    from scipy import ndimage

    step = masks.grid.footprint / masks.size
    edge = math.ceil(max(0, masks.grid.overlap) / step) + 1
    left, top = np.rint(masks.grid.coords[patch] / step).astype(int)
    labelled, _ = ndimage.label(plane, np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), start=1):
        at = (int(top + rows.start), int(left + columns.start))
        starts, stops = (rows.start, columns.start), (rows.stop, columns.stop)
        inner = min(starts) >= edge and max(stops) <= masks.size - edge
        yield Piece(patch, *at, labelled[rows, columns] == number, inner)


def joined(parts: list[Piece], side: int) -> Iterator[list[Piece]]:
    """Pieces of different patches that touch, together; patches are ``side`` mask pixels wide."""
    leader = list(range(len(parts)))

    def first(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for one, other in _meeting(parts, side):
        leader[first(one)] = first(other)
    groups: dict[int, list[Piece]] = defaultdict(list)
    for index, piece in enumerate(parts):
        groups[first(index)].append(piece)
    yield from groups.values()


def _meeting(parts: list[Piece], side: int) -> Iterator[tuple[int, int]]:
    """Pairs of pieces of different patches that touch or overlap."""
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, piece in enumerate(parts):
        if piece.inner:
            continue
        for row in range((piece.top - 1) // side, piece.bottom // side + 1):
            for column in range((piece.left - 1) // side, piece.right // side + 1):
                cells[row, column].append(index)
    seen: set[tuple[int, int]] = set()
    for one, other in itertools.chain.from_iterable(
        itertools.combinations(members, 2) for members in cells.values()
    ):
        a, b = parts[one], parts[other]
        if a.patch != b.patch and (one, other) not in seen and _touch(a, b):
            seen.add((one, other))
            yield one, other


def _touch(a: Piece, b: Piece) -> bool:
    """Whether a pixel of one is a pixel of the other or one of its eight neighbours."""
    top, bottom = max(a.top, b.top) - 1, min(a.bottom, b.bottom) + 1
    left, right = max(a.left, b.left) - 1, min(a.right, b.right) + 1
    if bottom - top < 2 or right - left < 2:
        return False
    one, other = (_window(p, top, bottom, left, right) for p in (a, b))
    grown = np.zeros_like(one)
    padded = np.pad(one, 1)
    for down in range(3):
        for across in range(3):
            grown |= padded[down : down + one.shape[0], across : across + one.shape[1]]
    return bool((grown & other).any())


def _window(piece: Piece, top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    """The piece in a window, False around it."""
    canvas = np.zeros((bottom - top, right - left), bool)
    up, down = max(top, piece.top), min(bottom, piece.bottom)
    west, east = max(left, piece.left), min(right, piece.right)
    if up < down and west < east:
        canvas[up - top : down - top, west - left : east - left] = piece.pixels[
            up - piece.top : down - piece.top, west - piece.left : east - piece.left
        ]
    return canvas
