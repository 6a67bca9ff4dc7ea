"""What lies over the slide in the viewer, tile by tile: objects, patch map, object-aware map.

Near by, objects are painted from their masks; from afar, where a patch is a few pixels wide, from
the area each kind has in the patch, so that no tile reads more than a few masks.
Axes: N patches, L object kinds, h w pixels of the tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.export.colour import object_colour, signed_rgba
from xpath.objects.area import overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.explain.explanation import Explanation
    from xpath.review.pyramid import Tile
    from xpath.store.masks import SlideMasks

__all__ = ["LAYERS", "LayerPainter"]

LAYERS = ("objects", "patch_map", "object_map", "local_map")
"""Names of the layers. ``object_map``: every object in the value of its kind (paper, Eq. 17);
``local_map``: every object in what it adds in its patch."""
COARSE = 32
"""Pixels of the tile below which a patch is painted from its areas instead of its masks."""


class _Seen(NamedTuple):
    """A patch on a tile."""

    patch: int
    rows: slice
    columns: slice
    down: NDArray[np.float64]
    """``(rows, side)`` share of each pixel of the mask in each row of the tile."""
    across: NDArray[np.float64]


class LayerPainter:
    """Paints tiles of one slide's layers."""

    def __init__(self, masks: SlideMasks, found: Explanation) -> None:
        """Takes what the run knows; reads no mask yet."""
        self._masks, self._found = masks, found
        self._area = masks.area / masks.size**2  # (N, L) share of the patch
        kinds = len(masks.labels)
        self._local = found.object.patch_contribution[:, :kinds]
        present = masks.area.any(axis=0)
        self.limits = {
            "patch_map": _limit(found.patch.scores),
            "object_map": _limit(found.object.activation[:kinds][present]),
            "local_map": _limit(self._local),
        }
        """The absolute value shown in full colour, the same on every tile."""

    def paint(self, layer: str, tile: Tile, kinds: Sequence[int]) -> NDArray[np.uint8]:
        """One tile ``(h, w, 4)``; transparent where there is nothing.

        Args:
            layer: One of ``LAYERS``.
            tile: Which part of the slide.
            kinds: The kinds that are painted; ignored by ``patch_map``.
        """
        if layer == "patch_map":
            return self._patches(tile)
        if layer == "objects":
            return self._objects(tile, kinds)
        return self._signed(layer, tile, kinds)

    def _patches(self, tile: Tile) -> NDArray[np.uint8]:
        values = np.full((tile.size.height, tile.size.width), np.nan)
        for seen in self._seen(tile, 1):
            values[seen.rows, seen.columns] = self._found.patch.scores[seen.patch]
        return signed_rgba(values, self.limits["patch_map"])

    def _objects(self, tile: Tile, kinds: Sequence[int]) -> NDArray[np.uint8]:
        picture = np.zeros((tile.size.height, tile.size.width, 4), np.uint8)
        order = sorted(kinds, key=lambda kind: -int(self._masks.area[:, kind].sum()))
        for seen, shares in self._shares(tile, order):
            here = picture[seen.rows, seen.columns]
            for kind, share in zip(order, shares, strict=True):  # small kinds over large ones
                covered = share > 0.35
                here[covered, :3] = object_colour(self._masks.labels[kind])
                here[covered, 3] = 170
        return picture

    def _signed(self, layer: str, tile: Tile, kinds: Sequence[int]) -> NDArray[np.uint8]:
        values = np.full((tile.size.height, tile.size.width), np.nan)
        for seen, shares in self._shares(tile, kinds):
            if layer == "object_map":
                weights = self._found.object.activation[list(kinds)]
            else:
                weights = self._local[seen.patch, list(kinds)]
            painted = np.tensordot(weights, shares, axes=1)
            any_here = shares.max(axis=0, initial=0) > 0
            values[seen.rows, seen.columns] = np.where(any_here, painted, np.nan)
        return signed_rgba(values, self.limits[layer])

    def _shares(
        self, tile: Tile, kinds: Sequence[int]
    ) -> Iterator[tuple[_Seen, NDArray[np.float64]]]:
        """Patches on a tile that hold any of the kinds, and shares ``(kinds, rows, columns)``."""
        chosen = list(kinds)
        if not chosen:
            return
        side = self._masks.grid.footprint * tile.size.width / tile.box.width
        coarse = side < COARSE
        for seen in self._seen(tile, 1 if coarse else self._masks.size):
            areas = self._area[seen.patch, chosen]
            if not areas.any():
                continue
            shape = (len(chosen), seen.down.shape[0], seen.across.shape[0])
            if coarse:
                yield seen, np.broadcast_to(areas[:, None, None], shape)
                continue
            masks = self._masks.read(seen.patch)[chosen].astype(np.float64)
            yield seen, seen.down @ masks @ seen.across.T

    def _seen(self, tile: Tile, side: int) -> Iterator[_Seen]:
        """Patches that lie on a tile."""
        grid, box = self._masks.grid, tile.box
        x, y = grid.coords.T
        inside = (x < box.right) & (x + grid.footprint > box.x)
        inside &= (y < box.bottom) & (y + grid.footprint > box.y)
        step = box.width / tile.size.width
        for patch in np.flatnonzero(inside):
            rows, down = _stretch(y[patch] - box.y, grid.footprint, step, tile.size.height, side)
            columns, across = _stretch(
                x[patch] - box.x, grid.footprint, step, tile.size.width, side
            )
            yield _Seen(int(patch), rows, columns, down, across)


def _stretch(
    start: float, length: float, step: float, limit: int, side: int
) -> tuple[slice, NDArray[np.float64]]:
    """Pixels of the tile a patch lies on along one axis, and the mask pixels under each."""
    first = min(max(0, round(start / step)), limit - 1)
    last = max(first + 1, min(limit, round((start + length) / step)))
    edges = np.clip((np.arange(first, last + 1) * step - start) * (side / length), 0, side)
    width = np.maximum(np.diff(edges), 1e-9)
    return slice(first, last), overlaps(edges, side) / width[:, None]


def _limit(values: NDArray[np.floating]) -> float:
    size = np.abs(values[values != 0])
    return float(np.quantile(size, 0.99)) if size.size else 1.0
