"""Layers over the slide in the viewer, tile by tile: objects, patch map, object-aware map.

A mask is read once, reduced to the pixels of the viewer's level, and kept; tiles are pasted
together from these. From afar, where a patch is a few pixels wide, the area each class has in the
patch stands for its mask, so that no tile reads more than a few masks.
Axes: N patches, L object classes, M classes that are in a patch, h w pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.export.colour import object_colour, signed_rgba
from xpath.export.overlay import signed_limit
from xpath.review.pixels import Recent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.explain.explanation import Explanation
    from xpath.review.pyramid import Tile
    from xpath.store.masks import SlideMasks

__all__ = ["LAYERS", "LayerPainter"]

LAYERS = ("objects", "outlines", "patch_map", "object_map", "local_map")
"""Names of the layers. ``outlines``: the borders of ``objects``; ``object_map``: every object in
the value of its class (paper, Eq. 17); ``local_map``: in what it adds in its patch."""
COARSE = 32
"""Pixels of the tile below which a patch is painted from its areas instead of its masks."""
FULL = 255
"""Share of a pixel that lies wholly in a mask."""
PAINTED = round(0.35 * FULL)
"""Share above which a pixel is painted in the colour of an object."""
KEPT_BYTES = 48 << 20
"""Reduced masks of a slide that are kept, at most."""


class _Shares(NamedTuple):
    """How much of each pixel the classes of a patch cover."""

    classes: NDArray[np.intp]
    """``(M,)`` the classes that are in the patch, of those with masks."""
    values: NDArray[np.uint8]
    """``(M, h, w)``, 0 to ``FULL``; or bits, ``(M, h, w / 8)``."""


class _PatchOnTile(NamedTuple):
    """A patch on a tile."""

    number: int
    rows: slice
    """Of the tile."""
    columns: slice
    top: int
    """First of these rows, counted in the patch's own pixels."""
    left: int
    height: int
    """Of the whole patch, pixels of the tile's level."""
    width: int


class LayerPainter:
    """Paints tiles of one slide's layers."""

    def __init__(self, masks: SlideMasks, explanation: Explanation) -> None:
        """Takes masks and explanation of a slide, without reading a mask yet."""
        self._masks, self._explanation = masks, explanation
        self._area = masks.area / masks.size**2  # (N, L) share of the patch
        labels = len(masks.labels)
        self._local = explanation.object.patch_contribution[:, :labels]
        present = masks.area.any(axis=0)
        self.limits = {
            "patch_map": signed_limit(explanation.patch.scores),
            "object_map": signed_limit(explanation.object.activation[:labels][present]),
            "local_map": signed_limit(self._local),
        }
        """The absolute value shown in full colour, the same on every tile."""
        self._order = np.argsort(-masks.area.sum(axis=0), kind="stable")
        """Classes, the largest first: small ones are painted over them."""
        self._palette = np.zeros((labels + 1, 4), np.uint8)  # the last: nothing
        self._palette[:labels, :3] = [object_colour(label) for label in masks.labels]
        self._palette[:labels, 3] = 255
        most = max(1, KEPT_BYTES // (max(1, labels) * masks.size**2))
        self._reduced: Recent[_Shares] = Recent(most)
        self._packed: Recent[_Shares] = Recent(8 * most)

    def paint(self, layer: str, tile: Tile, classes: Sequence[int]) -> NDArray[np.uint8]:
        """One tile ``(h, w, 4)``, transparent where there is nothing.

        Args:
            layer: One of ``LAYERS``.
            tile: Which part of the slide.
            classes: Indices of the object classes that are painted; ignored by ``patch_map``.
        """
        if layer == "patch_map":
            return self._patches(tile)
        if layer in ("objects", "outlines"):
            return self._objects(tile, classes, outlines=layer == "outlines")
        return self._signed(layer, tile, classes)

    def _patches(self, tile: Tile) -> NDArray[np.uint8]:
        values = np.full((tile.size.height, tile.size.width), np.nan)
        for patch in self._on_tile(tile):
            values[patch.rows, patch.columns] = self._explanation.patch.scores[patch.number]
        return signed_rgba(values, self.limits["patch_map"])

    def _objects(self, tile: Tile, classes: Sequence[int], *, outlines: bool) -> NDArray[np.uint8]:
        nothing = len(self._palette) - 1
        seen = np.full((tile.size.height, tile.size.width), nothing, np.intp)
        for patch, shares in self._shares(tile, classes):
            here = seen[patch.rows, patch.columns]
            for j, share in zip(shares.classes, shares.values, strict=True):
                here[share > PAINTED] = j
        if outlines:
            seen[~_border(seen)] = nothing
        return self._palette[seen]

    def _signed(self, layer: str, tile: Tile, classes: Sequence[int]) -> NDArray[np.uint8]:
        values = np.full((tile.size.height, tile.size.width), np.nan)
        for patch, shares in self._shares(tile, classes):
            if layer == "object_map":
                weights = self._explanation.object.activation[shares.classes]
            else:
                weights = self._local[patch.number, shares.classes]
            painted = np.tensordot(weights / FULL, shares.values, axes=1)
            any_here = shares.values.any(axis=0)
            values[patch.rows, patch.columns] = np.where(any_here, painted, np.nan)
        return signed_rgba(values, self.limits[layer])

    def _shares(self, tile: Tile, classes: Sequence[int]) -> Iterator[tuple[_PatchOnTile, _Shares]]:
        """Patches on a tile with any of the classes, the largest class first."""
        asked = np.zeros(len(self._masks.labels), np.bool_)
        asked[list(classes)] = True
        for patch in self._on_tile(tile):
            shares = self._of_patch(patch)
            chosen = asked[shares.classes]
            if chosen.any():
                yield patch, _Shares(shares.classes[chosen], shares.values[chosen])

    def _of_patch(self, patch: _PatchOnTile) -> _Shares:
        """The part of a patch that lies on the tile."""
        size, largest = (patch.height, patch.width), self._masks.size
        rows = np.arange(patch.rows.stop - patch.rows.start) + patch.top
        columns = np.arange(patch.columns.stop - patch.columns.start) + patch.left
        if min(size) < COARSE:
            area = self._area[patch.number]
            here = self._order[area[self._order] > 0]
            values = np.rint(area[here] * FULL).astype(np.uint8)
            shape = (len(here), len(rows), len(columns))
            return _Shares(here, np.broadcast_to(values[:, None, None], shape))
        if max(size) > largest:  # nearer than the masks: each of their pixels is several
            rows, columns = rows * largest // patch.height, columns * largest // patch.width
            size = (largest, largest)
        whole = self._read(patch.number, size)
        return _Shares(whole.classes, whole.values[:, rows[:, None], columns])

    def _read(self, number: int, size: tuple[int, int]) -> _Shares:
        """Masks of a patch reduced to a size, kept."""
        return self._reduced.get((number, size), lambda: self._reduce(number, size))

    def _reduce(self, number: int, size: tuple[int, int]) -> _Shares:
        import cv2

        here, packed = self._packed.get(number, lambda: self._pack(number))
        masks = np.unpackbits(packed, axis=-1, count=self._masks.size) * np.uint8(FULL)
        if size == masks.shape[1:]:
            return _Shares(here, masks)
        shrunk = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_AREA) for one in masks]
        return _Shares(here, np.stack(shrunk) if shrunk else np.zeros((0, *size), np.uint8))

    def _pack(self, number: int) -> _Shares:
        """The masks of a patch as bits, as they are in the file: it is read once."""
        here = self._order[self._masks.area[number][self._order] > 0]
        return _Shares(here, np.packbits(self._masks.read(number)[here], axis=-1))

    def _on_tile(self, tile: Tile) -> Iterator[_PatchOnTile]:
        """Patches that lie on a tile, whose borders fall on the same pixels on every tile."""
        grid, box = self._masks.grid, tile.box
        x, y = grid.coords.T
        inside = (x < box.right) & (x + grid.footprint > box.x)
        inside &= (y < box.bottom) & (y + grid.footprint > box.y)
        step = box.width / tile.size.width
        left, top = round(box.x / step), round(box.y / step)
        for patch in np.flatnonzero(inside):
            rows, first_row, height = _covered(
                y[patch] / step, (y[patch] + grid.footprint) / step, top, tile.size.height
            )
            columns, first_column, width = _covered(
                x[patch] / step, (x[patch] + grid.footprint) / step, left, tile.size.width
            )
            yield _PatchOnTile(int(patch), rows, columns, first_row, first_column, height, width)


def _covered(start: float, end: float, origin: int, limit: int) -> tuple[slice, int, int]:
    """Pixels of the tile a patch lies on along one axis, where they begin in it, and its length."""
    first, length = round(start), max(1, round(end) - round(start))
    first = min(first, origin + limit - 1)  # a patch of less than a pixel at the border
    low, high = max(first, origin), min(first + length, origin + limit)
    high = max(high, low + 1)
    offset = min(low - first, length - 1)
    return slice(low - origin, high - origin), offset, max(length, offset + high - low)


def _border(seen: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Pixels ``(h, w)`` that touch one of another value, to the left, right, above or below."""
    across, down = seen[:, 1:] != seen[:, :-1], seen[1:] != seen[:-1]
    border = np.zeros(seen.shape, np.bool_)
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    return border
