"""Objects for QuPath, as its own GeoJSON parser reads them.

QuPath takes ``objectType``, ``classification``, ``measurements`` and ``isLocked`` only from inside
``properties``, keeps an id only if it is a UUID, and aborts on a classification without a colour.
Its OpenSlide server measures from the corner of the scanned part, so that corner is subtracted.
Axes: h w pixels of the canvas.
"""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.export.colour import object_colour
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import Box, PatchGrid
    from xpath.store.masks import SlideMasks

__all__ = ["Feature", "mask_features", "polygons", "tile_features", "write_geojson"]

CANVAS_PIXELS = 150_000_000
"""Largest canvas objects are traced on; larger slides are traced at reduced resolution."""

Ring = list[list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One object on the slide."""

    name: str
    """Unique within the slide; the same name gives the same id, so a new import replaces it."""
    kind: str
    """``detection``, ``tile`` or ``annotation``."""
    rings: tuple[Ring, ...]
    """Closed rings of x, y in level-0 pixels: the outline, then holes."""
    label: str
    measurements: Mapping[str, float] = field(default_factory=dict)
    locked: bool = False


def write_geojson(path: Path, features: Iterable[Feature], *, slide_id: str, bounds: Box) -> int:
    """Writes a FeatureCollection, one object after the other; returns how many.

    Args:
        path: ``.geojson`` file to write.
        features: Objects in level-0 pixels.
        slide_id: Name of the slide; part of every id.
        bounds: The slide's scanned part; QuPath's origin is its corner.
    """
    space = uuid.uuid5(uuid.NAMESPACE_URL, f"xpath:{slide_id}")
    count = 0
    with atomic(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for feature in features:
            file.write(",\n" if count else "\n")
            file.write(json.dumps(_as_json(feature, space, bounds), allow_nan=False))
            count += 1
        file.write("\n]}\n")
    return count


def mask_features(
    masks: SlideMasks, label: str, measurements: Mapping[str, float], *, min_um2: float = 4.0
) -> Iterator[Feature]:
    """Objects of one label as detections; an object across a patch seam is one object.

    Args:
        masks: Object masks of a slide.
        label: Label id.
        measurements: Numbers of the kind (importance, contribution), given to each object.
        min_um2: Smaller specks are left out.
    """
    canvas, scale = _canvas(masks, masks.labels.index(label))
    mpp = masks.grid.slide_mpp or math.nan
    for number, rings in enumerate(polygons(canvas)):
        area = (abs(_area(rings[0])) - sum(abs(_area(ring)) for ring in rings[1:])) * scale**2
        if area * mpp**2 < min_um2:
            continue
        scaled = tuple([[x * scale, y * scale] for x, y in ring] for ring in rings)
        yield Feature(
            name=f"{label}/{number}",
            kind="detection",
            rings=scaled,
            label=label,
            measurements={"area um2": area * mpp**2, **measurements},
        )


def tile_features(
    grid: PatchGrid, measurements: Mapping[str, NDArray[np.floating]]
) -> Iterator[Feature]:
    """The patches as tiles; ``measurements`` are ``(N,)`` numbers by name."""
    for index, box in enumerate(grid.boxes()):
        left, top, right, bottom = box.x, box.y, box.right, box.bottom
        corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        ring = [[float(x), float(y)] for x, y in corners]
        numbers = {name: float(values[index]) for name, values in measurements.items()}
        yield Feature(
            name=f"patch/{index}", kind="tile", rings=(ring,), label="patch", measurements=numbers
        )


def polygons(mask: NDArray[np.bool_]) -> Iterator[tuple[Ring, ...]]:
    """Outlines of the pieces of a mask ``(h, w)``, each followed by its holes.

    Rings run half-way between pixels inside and outside, so that a square of 10 by 10 pixels has
    an area of 100 less its four cut corners (0.5 in all). A pixel covers from its index to the
    next.
    """
    from scipy import ndimage
    from skimage.measure import find_contours

    labelled, _ = ndimage.label(mask)  # 4-connected, as find_contours joins
    for number, window in enumerate(ndimage.find_objects(labelled), start=1):
        piece = np.pad(labelled[window] == number, 1).astype(np.float32)
        rings = [_ring(contour, window) for contour in find_contours(piece, 0.5)]
        rings.sort(key=lambda ring: -abs(_area(ring)))  # the outline encloses its holes
        yield tuple(rings)


def _ring(contour: NDArray[np.float64], window: tuple[slice, slice]) -> Ring:
    """A contour of a padded window (row, column of pixel centres) as closed x, y."""
    x = contour[:, 1] - 1 + 0.5 + window[1].start
    y = contour[:, 0] - 1 + 0.5 + window[0].start
    points = np.stack((x, y), axis=1)[:-1]  # the last repeats the first
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    ring: Ring = points[turns].tolist()  # a straight edge needs its two ends only
    return [*ring, ring[0]]


def _area(ring: Ring) -> float:
    """Signed area (shoelace)."""
    x, y = np.asarray(ring).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _canvas(masks: SlideMasks, label: int) -> tuple[NDArray[np.bool_], float]:
    """One label of the whole slide, and the level-0 pixels one canvas pixel stands for."""
    import cv2

    grid = masks.grid
    full = grid.slide_size.width * grid.slide_size.height
    scale = max(grid.footprint / masks.size, math.sqrt(full / CANVAS_PIXELS))
    shape = (
        math.ceil(grid.slide_size.height / scale) + 1,
        math.ceil(grid.slide_size.width / scale) + 1,
    )
    canvas = np.zeros(shape, bool)
    for patch in np.flatnonzero(masks.area[:, label]):
        box = grid.box(int(patch))
        x0, y0 = max(0, round(box.x / scale)), max(0, round(box.y / scale))
        x1, y1 = min(shape[1], round(box.right / scale)), min(shape[0], round(box.bottom / scale))
        if x1 <= x0 or y1 <= y0:
            continue
        found = masks.read(int(patch))[label].astype(np.uint8)
        small = cv2.resize(found, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
        canvas[y0:y1, x0:x1] |= small.astype(bool)
    return canvas, scale


def _as_json(feature: Feature, space: uuid.UUID, bounds: Box) -> dict[str, Any]:
    if feature.kind not in ("detection", "tile", "annotation"):
        raise DataError(f"kind must be detection, tile or annotation, got {feature.kind!r}")
    shifted = [
        [[round(x - bounds.x, 2), round(y - bounds.y, 2)] for x, y in ring]
        for ring in feature.rings
    ]
    # QuPath reads NaN as a string and skips null; a missing number is simply not given.
    numbers = {k: float(v) for k, v in feature.measurements.items() if math.isfinite(v)}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(space, feature.name)),
        "geometry": {"type": "Polygon", "coordinates": shifted},
        "properties": {
            "objectType": feature.kind,
            "classification": {"name": feature.label, "color": list(object_colour(feature.label))},
            "isLocked": feature.locked,
            "measurements": numbers,
        },
    }
