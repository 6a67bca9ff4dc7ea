"""Objects for QuPath, as its own GeoJSON parser reads them.

QuPath takes ``objectType``, ``classification``, ``measurements`` and ``isLocked`` only from inside
``properties``, keeps an id only if it is a UUID, and aborts on a classification without a colour.
Its OpenSlide server measures from the corner of the scanned part, so that corner is subtracted.
Axes: N patches, h w pixels of the canvas, K corners.
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
from xpath.objects.outline import components
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from xpath.geometry import Box, PatchGrid
    from xpath.store.objects import ObjectTable

__all__ = [
    "Feature",
    "ObjectNumbers",
    "object_features",
    "region_features",
    "tile_features",
    "write_geojson",
]

TYPES = ("detection", "tile", "annotation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One object on the slide."""

    name: str
    """Unique within the slide; the same name gives the same id, so a new import replaces it."""
    type: str
    """``detection``, ``tile`` or ``annotation``; QuPath's measurement maps show the first two."""
    rings: tuple[ArrayLike, ...]
    """Closed rings ``(K, 2)`` of x, y in level-0 pixels: the outline, then holes."""
    label: str
    """Name of its class, which also gives its colour."""
    measurements: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name, signed as they are; NaN and infinite ones are not written."""
    locked: bool = False
    title: str = ""
    """Text that QuPath shows beside the object, empty for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectNumbers:
    """Measurements of the objects of one label."""

    label: str
    """Label id."""
    label_numbers: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the label as a whole (importance, change of log-odds), given to each object."""
    shared: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    """``(N,)`` amounts of the label in each patch, such as its contribution to the logit: each
    object gets the share of them that it has of the label's area there. The objects' amounts add
    up to the label's, as far as no pixel was too small for an object."""


def write_geojson(path: Path, features: Iterable[Feature], *, slide_id: str, bounds: Box) -> int:
    """Writes a FeatureCollection, one object after the other, and returns their number.

    Args:
        path: ``.geojson`` file to write; it appears when it is whole.
        features: Objects in level-0 pixels.
        slide_id: Name of the slide; part of every id.
        bounds: The slide's scanned part (``Slide.bounds``); QuPath's origin is its corner.

    Raises:
        DataError: A feature of another type, one without area, or a name that comes twice.
        StoreError: The disk is full.
    """
    writer = _Lines(slide_id, bounds)
    count = 0
    with atomic(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for feature in features:
            file.write((",\n" if count else "\n") + writer.line(feature))
            count += 1
        file.write("\n]}\n")
    return count


def object_features(table: ObjectTable, numbers: Sequence[ObjectNumbers]) -> Iterator[Feature]:
    """Objects of several labels as detections.

    Each is measured by ``area um2``, ``confidence`` (presence of the label in its patches, weighted
    by its pixels in each), and what ``numbers`` holds.

    Args:
        table: The objects of a slide.
        numbers: Labels to write and what their objects are measured by.

    Raises:
        DataError: A label that was not segmented.
    """
    areas = table.areas_um2
    for each in numbers:
        for index in table.of(each.label).tolist():
            patches, share = table.patches_of(index), table.shares_of(index)
            yield Feature(
                name=table.id(index),
                type="detection",
                rings=table.rings(index),
                label=each.label,
                measurements={
                    "area um2": float(areas[index]),
                    "confidence": float(table.confidence[index]),
                    **each.label_numbers,
                    **{name: float(it[patches] @ share) for name, it in each.shared.items()},
                },
            )


def tile_features(
    grid: PatchGrid, measurements: Mapping[str, NDArray[np.floating]]
) -> Iterator[Feature]:
    """The patches as tiles, with ``(N,)`` measurements by name.

    Raises:
        DataError: Measurements of another number of patches.
    """
    for name, values in measurements.items():
        if np.shape(values) != (len(grid),):
            raise DataError(f"{name!r} must be ({len(grid)},), got {np.shape(values)}")
    columns = [np.asarray(values, np.float64).tolist() for values in measurements.values()]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * grid.footprint
    for index, corner in enumerate(grid.coords):
        yield Feature(
            name=f"patch/{index}",
            type="tile",
            rings=(corner + corners,),
            label="patch",
            measurements={
                name: column[index] for name, column in zip(measurements, columns, strict=True)
            },
        )


def region_features(
    mask: NDArray[np.bool_], downsample: tuple[float, float], label: str, *, title: str = ""
) -> Iterator[Feature]:
    """Components of a mask of the whole slide as locked annotations: tissue, or a prompted region.

    Args:
        mask: ``(h, w)`` from the slide's top left corner, such as ``Tissue.mask``.
        downsample: Level-0 pixels per pixel of the mask, across and down.
        label: Name of the class, such as ``tissue`` or a label id.
        title: What QuPath shows beside it, such as the prompt.
    """
    for component in components(mask):
        rings = tuple(ring * np.asarray(downsample, np.float64) for ring in component.rings)
        x, y = component.rings[0][0]
        yield Feature(
            name=f"region/{label}/{title}/{x},{y}",
            type="annotation",
            rings=rings,
            label=label,
            locked=True,
            title=title,
        )


class _Lines:
    """Features as lines of JSON, in QuPath's frame."""

    def __init__(self, slide_id: str, bounds: Box) -> None:
        self._space = uuid.uuid5(uuid.NAMESPACE_URL, f"xpath:{slide_id}")
        self._corner = np.array([bounds.x, bounds.y], np.float64)
        self._classes: dict[str, str] = {}
        self._names: set[str] = set()

    def line(self, feature: Feature) -> str:
        """One feature. Put together by hand: a third of the time of one dictionary."""
        self._check(feature)
        # Of numbers, what Python shows is JSON, and comes faster.
        rings = str([self._ring(feature.name, ring) for ring in feature.rings])
        classified = self._classes.get(feature.label)
        if classified is None:
            colour = list(object_colour(feature.label))
            classified = json.dumps({"name": feature.label, "color": colour})
            self._classes[feature.label] = classified
        # QuPath reads NaN as a string and skips null; a missing number is simply not given.
        numbers = {k: float(v) for k, v in feature.measurements.items() if math.isfinite(v)}
        title = f'"name": {json.dumps(feature.title)}, ' if feature.title else ""
        return (
            f'{{"type": "Feature", "id": "{uuid.uuid5(self._space, feature.name)}", '
            f'"geometry": {{"type": "Polygon", "coordinates": {rings.replace(" ", "")}}}, '
            f'"properties": {{"objectType": "{feature.type}", {title}'
            f'"classification": {classified}, "isLocked": {str(feature.locked).lower()}, '
            f'"measurements": {json.dumps(numbers, allow_nan=False)}}}}}'
        )

    def _check(self, feature: Feature) -> None:
        if feature.type not in TYPES:
            raise DataError(f"type must be one of {TYPES}, got {feature.type!r}")
        if not feature.rings:
            raise DataError(f"{feature.name} has no outline")
        if feature.name in self._names:
            raise DataError(
                f"two objects are named {feature.name!r} and would get one id; name them apart"
            )
        self._names.add(feature.name)

    def _ring(self, name: str, ring: ArrayLike) -> Any:
        """Whole numbers where they are: half the text, and nothing to round."""
        points = np.asarray(ring, np.float64)
        shaped = points.ndim == 2 and len(points) >= 4 and points.shape[1] == 2
        if not shaped or (points[0] != points[-1]).any() or not math.isfinite(points.sum()):
            raise DataError(
                f"{name}: a ring must be (K, 2) finite x, y of three corners or more and end where"
                f" it begins, got {points.shape} from {points[:1].tolist()}"
            )
        shifted = points - self._corner
        whole = shifted.astype(np.int64)
        if (whole == shifted).all():
            return whole.tolist()
        return np.round(shifted, 2).tolist()
