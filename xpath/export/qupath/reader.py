"""Regions drawn or corrected in QuPath, read back as outlines and as masks.

QuPath writes coordinates from the corner of the scanned part, so that corner is added again. A
pixel belongs to a region if its centre does; so masks that were written come back as they were.
Axes: N patches, H W pixels, K corners.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from xpath.store.geojson import read_areas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import Box, Size
    from xpath.store.geojson import Polygon, Region

__all__ = ["named", "read_regions", "region_mask"]


def read_regions(path: Path, *, bounds: Box) -> list[Region]:
    """Areas of a GeoJSON file as QuPath writes it, parents before their child objects.

    Points and lines have no area and are passed over. A cell is its nucleus where it has one, and
    keeps its own outline in ``Region.cell``.

    Args:
        path: ``.geojson`` or ``.json``, also gzipped or zipped.
        bounds: The slide's scanned part (``Slide.bounds``), or the whole slide for a file that
            measures from its corner, as QuPath's does with ``--no-crop``.

    Raises:
        DataError: No GeoJSON, or a broken outline, whose feature the message names.
    """
    corner = np.array((bounds.x, bounds.y), np.float64)

    def moved(polygons: tuple[Polygon, ...]) -> tuple[Polygon, ...]:
        return tuple(tuple(ring + corner for ring in rings) for rings in polygons)

    return [
        replace(area, polygons=moved(area.polygons), cell=moved(area.cell))
        for area in read_areas(path)
    ]


def named(regions: Iterable[Region], name: str) -> list[Region]:
    """Regions of a class, or without a class but with that title.

    Case, spaces, ``-``, ``_`` and ``/`` make no difference: a person types names by hand.
    """
    wanted = _plain(name)
    return [region for region in regions if _plain(region.label or region.title) == wanted]


def region_mask(regions: Iterable[Region], box: Box, size: Size) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` whose centre lies in any of the regions.

    Args:
        regions: In level-0 pixels.
        box: What the mask shows of the slide.
        size: Pixels of the mask.
    """
    canvas = np.zeros((size.height, size.width), np.bool_)
    scale = np.array([size.width / box.width, size.height / box.height])
    for region in regions:
        for rings in region.polygons:
            _fill(canvas, [(ring - (box.x, box.y)) * scale for ring in rings])
    return canvas


def _fill(canvas: NDArray[np.bool_], rings: Sequence[NDArray[np.float64]]) -> None:
    """Adds pixels whose centre is inside the outline, and not in the holes, each even-odd."""
    corners = rings[0]
    left, top = np.maximum(0, np.floor(corners.min(axis=0))).astype(int).tolist()
    right, bottom = (np.ceil(corners.max(axis=0))).astype(int).tolist()
    window = canvas[top : max(top, bottom), left : max(left, right)]
    if not window.size:
        return
    outline, *holes = (ring - (left, top) for ring in rings)
    inside = _inside([outline], *window.shape)
    if holes:
        inside &= ~_inside(holes, *window.shape)
    window |= inside


def _inside(rings: Sequence[NDArray[np.float64]], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels whose centre is inside an odd number of rings.

    Every edge that passes a row of pixel centres switches inside and outside from there on.
    """
    edges = np.concatenate([np.hstack((ring[:-1], ring[1:])) for ring in rings])
    x0, y0, x1, y1 = edges.T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    times = stop - first
    edge = np.repeat(np.arange(len(edges)), times)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(times) - times, times) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    switches = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    inside = switches.reshape(height, width + 1).cumsum(axis=1) % 2
    return inside[:, :width].astype(np.bool_)


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign not in " -_/:")
