"""Masks of patches taken apart into touching pixels, and put together across their borders.

A slide has more pixels than memory. So what no other patch can touch is given out patch by patch,
and what may go on in a neighbour waits compressed. Of two patches that meet only the numbers of the
pieces along the seam are held, until the second one is read. Axes: N patches, H W pixels.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.store.masks import SlideMasks

__all__ = ["Piece", "objects"]


class Piece(NamedTuple):
    """Touching pixels of one mask of one patch, on the lattice of mask pixels of the slide."""

    patch: int
    number: int
    """Of the piece within the mask."""
    top: int
    left: int
    height: int
    width: int
    held: NDArray[np.bool_] | bytes
    """Its pixels, compressed while it waits."""

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column to its right."""
        return self.left + self.width

    @property
    def pixels(self) -> NDArray[np.bool_]:
        """``(height, width)``; taken out anew each time it is asked for, if compressed."""
        if not isinstance(self.held, bytes):
            return self.held
        packed = np.frombuffer(zlib.decompress(self.held), np.uint8)
        bits = np.unpackbits(packed, count=self.height * self.width)
        return bits.view(np.bool_).reshape(self.height, self.width)

    def compressed(self) -> Piece:
        """The same piece in little room: a whole patch of tissue takes some hundred bytes."""
        return self._replace(held=zlib.compress(np.packbits(self.pixels).tobytes(), 1))


def objects(masks: SlideMasks, kinds: Sequence[str]) -> Iterator[tuple[str, list[Piece]]]:
    """Kind and pieces of every object; every patch is read once.

    First come the objects of one piece that no other patch can touch, then the others. Pieces of
    an object are in the order of their patches.
    """
    columns = {kind: masks.labels.index(kind) for kind in kinds}
    lattice = _Lattice(masks)
    seams = {kind: _Seams(lattice, masks.area[:, at] > 0) for kind, at in columns.items()}
    for patch in map(int, np.flatnonzero(masks.area[:, list(columns.values())].any(axis=1))):
        planes = masks.read(patch)
        for kind in (kind for kind, at in columns.items() if masks.area[patch, at]):
            inner = seams[kind].add(patch, planes[columns[kind]])
            yield from ((kind, [piece]) for piece in inner)
    for kind, seam in seams.items():
        yield from ((kind, parts) for parts in seam.joined())


class _Lattice:
    """Where patches lie on the lattice of mask pixels, and which of them meet."""

    def __init__(self, masks: SlideMasks) -> None:
        from scipy.spatial import KDTree

        step = masks.grid.footprint / masks.size
        self.side = masks.size
        self.edge = math.ceil(max(0, masks.grid.overlap) / step) + 1
        """Pixels at the border of a patch that another one may touch."""
        self.corners = np.rint(masks.grid.coords[:, ::-1] / step).astype(np.int64)
        """``(N, 2)`` top, left."""
        self.neighbours: dict[int, list[int]] = defaultdict(list)
        pairs = KDTree(self.corners).query_pairs(self.side + 0.5, p=math.inf, output_type="ndarray")
        for one, other in pairs.tolist():
            self.neighbours[one].append(other)
            self.neighbours[other].append(one)

    def seam(self, patch: int, other: int) -> tuple[slice, slice]:
        """Rows and columns of a patch that lie in another one, or next to it."""
        apart = (self.corners[other] - self.corners[patch]).tolist()
        starts = [max(0, offset - 1) for offset in apart]
        stops = [min(self.side, offset + self.side + 1) for offset in apart]
        return slice(starts[0], stops[0]), slice(starts[1], stops[1])


class _Seams:
    """Pieces of one kind that may go on in another patch, and which of them touch."""

    def __init__(self, lattice: _Lattice, filled: NDArray[np.bool_]) -> None:
        self._lattice, self._filled = lattice, filled
        self._pieces: list[Piece] = []
        self._open: dict[tuple[int, int], tuple[int, NDArray[Any]]] = {}
        """Of a patch that was read and one that was not: the pieces along the seam."""
        self._touching = array("q")
        """Pairs of pieces."""

    def add(self, patch: int, mask: NDArray[np.bool_]) -> Iterator[Piece]:
        """Pieces of the next patch that no other one can touch; the others wait for theirs."""
        from scipy import ndimage

        edge, side = self._lattice.edge, self._lattice.side
        top, left = self._lattice.corners[patch].tolist()
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        first, numbers = len(self._pieces), np.zeros(count + 1, np.int64)
        for number, box in enumerate(ndimage.find_objects(labelled), start=1):
            (up, down), (west, east) = ((part.start, part.stop) for part in box)
            pixels = labelled[box] == number
            size = (down - up, east - west)
            piece = Piece(patch, number, top + up, left + west, *size, pixels)
            if min(up, west) >= edge and max(down, east) <= side - edge:
                yield piece
            else:
                self._pieces.append(piece.compressed())
                numbers[number] = len(self._pieces) - first
        smallest = np.min_scalar_type(len(self._pieces) - first)
        self._meet(patch, labelled, numbers.astype(smallest), first)

    def _meet(self, patch: int, labelled: NDArray[Any], numbers: NDArray[Any], first: int) -> None:
        """Finds what touches pieces of earlier patches, and keeps what later ones may touch.

        Args:
            patch: Index of the patch.
            labelled: ``(H, W)`` what its mask was taken apart into.
            numbers: Of each of these, its number among those that wait, from 1; 0 if it does not.
            first: Pieces that waited before.
        """
        for other in self._lattice.neighbours[patch]:
            if not self._filled[other]:
                continue
            if other > patch:
                window = numbers[labelled[self._lattice.seam(patch, other)]]
                if window.any():
                    self._open[patch, other] = first, window
            elif found := self._open.pop((other, patch), None):
                before, theirs = found
                window = numbers[labelled[self._lattice.seam(patch, other)]]
                pairs = self._touching_in(other, theirs, patch, window)
                self._touching.extend((pairs + np.array([before, first]) - 1).ravel().tolist())

    def _touching_in(
        self, one: int, theirs: NDArray[Any], other: int, ours: NDArray[Any]
    ) -> NDArray[np.int64]:
        """``(n, 2)`` numbers of pieces of two patches that share a pixel or have neighbours."""
        starts = [
            self._lattice.corners[patch] + [part.start for part in self._lattice.seam(patch, to)]
            for patch, to in ((one, other), (other, one))
        ]
        down, across = (starts[0] - starts[1] + 1).tolist()
        around = np.zeros((ours.shape[0] + 2, ours.shape[1] + 2), theirs.dtype)
        around[down : down + theirs.shape[0], across : across + theirs.shape[1]] = theirs
        rows, columns = ours.nonzero()
        nine = np.lib.stride_tricks.sliding_window_view(around, (3, 3))[rows, columns]
        base = int(ours.max(initial=0)) + 1
        codes = nine.reshape(-1, 9).astype(np.int64) * base + ours[rows, columns, None]
        pairs = np.stack(np.divmod(np.unique(codes), base), axis=1)
        return np.asarray(pairs[pairs[:, 0] > 0])

    def joined(self) -> Iterator[list[Piece]]:
        """Pieces that touch, together."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count, pairs = len(self._pieces), np.frombuffer(self._touching, np.int64).reshape(-1, 2)
        ones = np.ones(len(pairs), np.int8)
        graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        groups: dict[int, list[Piece]] = defaultdict(list)
        numbers = connected_components(graph, directed=False)[1] if count else []
        for piece, number in zip(self._pieces, numbers, strict=True):
            groups[int(number)].append(piece)
        yield from groups.values()
