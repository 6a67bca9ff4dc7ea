"""Layers over the slide in the viewer, tile by tile: objects, patch map, object-aware map.

Near by, objects are painted from their masks; from afar, where a patch is a few pixels wide, from
the area each class has in the patch, so that no tile reads more than a few masks.
Axes: N patches, L object classes, h w pixels of the tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.export.colour import object_colour, signed_rgba
from xpath.export.overlay import signed_limit
from xpath.objects.area import overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.explain.explanation import Explanation
    from xpath.review.pyramid import Tile
    from xpath.store.masks import SlideMasks

__all__ = ["LAYERS", "LayerPainter"]

LAYERS = ("objects", "patch_map", "object_map", "local_map")
"""Names of the layers. ``object_map``: every object in the value of its class (paper, Eq. 17);
``local_map``: every object in what it adds in its patch."""
COARSE = 32
"""Pixels of the tile below which a patch is painted from its areas instead of its masks."""


class _PatchOnTile(NamedTuple):
    """A patch on a tile."""

    number: int
    rows: slice
    columns: slice
    down: NDArray[np.float64]
    """``(rows, side)`` share of each pixel of the mask in each row of the tile."""
    across: NDArray[np.float64]


class LayerPainter:
    """Paints tiles of one slide's layers."""

    def __init__(self, masks: SlideMasks, explanation: Explanation) -> None:
        """Takes masks and explanation of a slide, without reading a mask yet."""
        self._masks, self._explanation = masks, explanation
        self._area = masks.area / masks.size**2  # (N, L) share of the patch
        masked = len(masks.labels)
        self._local = explanation.object.patch_contribution[:, :masked]
        present = masks.area.any(axis=0)
        self.limits = {
            "patch_map": signed_limit(explanation.patch.scores),
            "object_map": signed_limit(explanation.object.activation[:masked][present]),
            "local_map": signed_limit(self._local),
        }
        """The absolute value shown in full colour, the same on every tile."""

    def paint(self, layer: str, tile: Tile, classes: Sequence[int]) -> NDArray[np.uint8]:
        """One tile ``(h, w, 4)``, transparent where there is nothing.

        Args:
            layer: One of ``LAYERS``.
            tile: Which part of the slide.
            classes: Indices of the object classes that are painted; ignored by ``patch_map``.
        """
        if layer == "patch_map":
            return self._patches(tile)
        if layer == "objects":
            return self._objects(tile, classes)
        return self._signed(layer, tile, classes)

    def _patches(self, tile: Tile) -> NDArray[np.uint8]:
        values = np.full((tile.size.height, tile.size.width), np.nan)
        for patch in self._on_tile(tile, 1):
            values[patch.rows, patch.columns] = self._explanation.patch.scores[patch.number]
        return signed_rgba(values, self.limits["patch_map"])

    def _objects(self, tile: Tile, classes: Sequence[int]) -> NDArray[np.uint8]:
        picture = np.zeros((tile.size.height, tile.size.width, 4), np.uint8)
        order = sorted(classes, key=lambda j: -int(self._masks.area[:, j].sum()))
        for patch, shares in self._shares(tile, order):
            here = picture[patch.rows, patch.columns]
            for j, share in zip(order, shares, strict=True):  # small classes over large ones
                covered = share > 0.35
                here[covered, :3] = object_colour(self._masks.labels[j])
                here[covered, 3] = 170
        return picture

    def _signed(self, layer: str, tile: Tile, classes: Sequence[int]) -> NDArray[np.uint8]:
        values = np.full((tile.size.height, tile.size.width), np.nan)
        for patch, shares in self._shares(tile, classes):
            if layer == "object_map":
                weights = self._explanation.object.activation[list(classes)]
            else:
                weights = self._local[patch.number, list(classes)]
            painted = np.tensordot(weights, shares, axes=1)
            any_here = shares.max(axis=0, initial=0) > 0
            values[patch.rows, patch.columns] = np.where(any_here, painted, np.nan)
        return signed_rgba(values, self.limits[layer])

    def _shares(
        self, tile: Tile, classes: Sequence[int]
    ) -> Iterator[tuple[_PatchOnTile, NDArray[np.float64]]]:
        """Patches on a tile with any of the classes, and shares ``(classes, rows, columns)``."""
        chosen = list(classes)
        if not chosen:
            return
        side = self._masks.grid.footprint * tile.size.width / tile.box.width
        coarse = side < COARSE
        for patch in self._on_tile(tile, 1 if coarse else self._masks.size):
            areas = self._area[patch.number, chosen]
            if not areas.any():
                continue
            shape = (len(chosen), patch.down.shape[0], patch.across.shape[0])
            if coarse:
                yield patch, np.broadcast_to(areas[:, None, None], shape)
                continue
            masks = self._masks.read(patch.number)[chosen].astype(np.float64)
            yield patch, patch.down @ masks @ patch.across.T

    def _on_tile(self, tile: Tile, side: int) -> Iterator[_PatchOnTile]:
        """Patches that lie on a tile."""
        grid, box = self._masks.grid, tile.box
        x, y = grid.coords.T
        inside = (x < box.right) & (x + grid.footprint > box.x)
        inside &= (y < box.bottom) & (y + grid.footprint > box.y)
        step = box.width / tile.size.width
        for patch in np.flatnonzero(inside):
            rows, down = _covered(y[patch] - box.y, grid.footprint, step, tile.size.height, side)
            columns, across = _covered(
                x[patch] - box.x, grid.footprint, step, tile.size.width, side
            )
            yield _PatchOnTile(int(patch), rows, columns, down, across)


def _covered(
    start: float, length: float, step: float, limit: int, side: int
) -> tuple[slice, NDArray[np.float64]]:
    """Pixels of the tile a patch lies on along one axis, and the mask pixels under each."""
    first = min(max(0, round(start / step)), limit - 1)
    last = max(first + 1, min(limit, round((start + length) / step)))
    edges = np.clip((np.arange(first, last + 1) * step - start) * (side / length), 0, side)
    width = np.maximum(np.diff(edges), 1e-9)
    return slice(first, last), overlaps(edges, side) / width[:, None]
