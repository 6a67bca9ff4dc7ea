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
from xpath.objects.outline import Outliner
from xpath.objects.separate import separated
from xpath.objects.slide_outline import outlined
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from xpath.geometry import Box, PatchGrid
    from xpath.objects.outline import Piece
    from xpath.objects.slide_outline import Frame
    from xpath.store.masks import SlideMasks

__all__ = [
    "Feature",
    "ObjectNumbers",
    "mask_features",
    "object_features",
    "polygons",
    "region_features",
    "tile_features",
    "write_geojson",
]

KINDS = ("detection", "tile", "annotation")
Ring = list[list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One object on the slide."""

    name: str
    """Unique within the slide; the same name gives the same id, so a new import replaces it."""
    kind: str
    """``detection``, ``tile`` or ``annotation``; QuPath's measurement maps show the first two."""
    rings: tuple[ArrayLike, ...]
    """Closed rings ``(K, 2)`` of x, y in level-0 pixels: the outline, then holes."""
    label: str
    """Name of its class, which also gives its colour."""
    measurements: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name, signed as they are; NaN and infinite ones are not written."""
    locked: bool = False
    title: str = ""
    """What QuPath shows beside the object; empty for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectNumbers:
    """What each object of one label is measured by."""

    label: str
    """Label id."""
    kind: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the label as a whole (importance, change of log-odds), given to each object."""
    shared: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    """``(N,)`` amounts of the label in each patch, such as its contribution to the logit: each
    object gets the share of them that it has of the label's area there. Specks left out aside and
    without overlap, the objects' amounts add up to the label's."""


def write_geojson(path: Path, features: Iterable[Feature], *, slide_id: str, bounds: Box) -> int:
    """Writes a FeatureCollection, one object after the other; returns how many.

    Args:
        path: ``.geojson`` file to write; it appears when it is whole.
        features: Objects in level-0 pixels.
        slide_id: Name of the slide; part of every id.
        bounds: The slide's scanned part (``Slide.bounds``); QuPath's origin is its corner.

    Raises:
        DataError: A feature of another kind, one without area, or a name that comes twice.
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


def object_features(
    masks: SlideMasks,
    numbers: Sequence[ObjectNumbers],
    *,
    min_um2: float = 4.0,
    separate: bool = True,
) -> Iterator[Feature]:
    """Objects of several labels as detections, in one pass over the masks.

    An object across a seam of patches is one object; nuclei and cells that touch are one each. Each
    is measured by ``area um2``, ``confidence`` (presence of the label in its patches, weighted by
    its area in each), and what ``numbers`` holds.

    Args:
        masks: Object masks of a slide.
        numbers: Labels to write and what to tell of them.
        min_um2: Smaller specks are left out; where no resolution is known none are.
        separate: Tell nuclei and cells apart at their waists. What hangs together stays one object
            where no resolution is known, or where its box has more than 16 million mask pixels.
    """
    measured = _Measured(masks, numbers)
    mpp = masks.grid.slide_mpp if separate else None
    for label, whole, pieces, frame in separated(outlined(masks, list(measured.told)), mpp):
        for piece in pieces:
            area = piece.pixels * frame.scale**2 * (masks.grid.slide_mpp or math.nan) ** 2
            if area < min_um2:
                continue
            yield measured.feature(label, piece, whole, frame, area)


def mask_features(
    masks: SlideMasks,
    label: str,
    measurements: Mapping[str, float],
    *,
    min_um2: float = 4.0,
    separate: bool = True,
) -> Iterator[Feature]:
    """Objects of one label as detections; see ``object_features``, which is faster for several.

    Args:
        masks: Object masks of a slide.
        label: Label id.
        measurements: Numbers of the kind (importance, contribution), given to each object.
        min_um2: Smaller specks are left out.
        separate: Tell nuclei and cells apart at their waists.
    """
    told = ObjectNumbers(label=label, kind=measurements)
    return object_features(masks, [told], min_um2=min_um2, separate=separate)


def tile_features(
    grid: PatchGrid, measurements: Mapping[str, NDArray[np.floating]]
) -> Iterator[Feature]:
    """The patches as tiles; ``measurements`` are ``(N,)`` numbers by name.

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
            kind="tile",
            rings=(corner + corners,),
            label="patch",
            measurements={
                name: column[index] for name, column in zip(measurements, columns, strict=True)
            },
        )


def region_features(
    mask: NDArray[np.bool_], downsample: tuple[float, float], label: str, *, title: str = ""
) -> Iterator[Feature]:
    """Pieces of a mask of the whole slide as locked annotations: tissue, or a prompted region.

    Args:
        mask: ``(h, w)`` from the slide's top left corner, such as ``Tissue.mask``.
        downsample: Level-0 pixels per pixel of the mask, across and down.
        label: Name of the class, such as ``tissue`` or a label id.
        title: What QuPath shows beside it, such as the prompt.
    """
    outliner = Outliner(mask.shape[1])
    for piece in [*outliner.add(mask), *outliner.finish()]:
        rings = tuple(ring * np.asarray(downsample, np.float64) for ring in piece.rings)
        x, y = piece.rings[0][0]
        yield Feature(
            name=f"region/{label}/{title}/{x},{y}",
            kind="annotation",
            rings=rings,
            label=label,
            locked=True,
            title=title,
        )


def polygons(mask: NDArray[np.bool_]) -> Iterator[tuple[Ring, ...]]:
    """Outlines of the pieces of a mask ``(h, w)``, each followed by its holes.

    Rings run along the borders of pixels: pixel (x, y) covers x to x + 1 and y to y + 1, so a
    square of 10 by 10 pixels has an area of 100.
    """
    outliner = Outliner(mask.shape[1])
    for piece in [*outliner.add(mask), *outliner.finish()]:
        yield tuple(ring.tolist() for ring in piece.rings)


class _Measured:
    """Objects with what is told of them."""

    def __init__(self, masks: SlideMasks, numbers: Sequence[ObjectNumbers]) -> None:
        self._masks = masks
        self.told = {each.label: each for each in numbers}
        """What to tell, by label."""
        self._columns = {label: masks.labels.index(label) for label in self.told}
        self._stretch = np.ones(0)

    def feature(self, label: str, piece: Piece, whole: Piece, frame: Frame, area: float) -> Feature:
        """One object of so many square microns, part of what hangs together."""
        if not len(self._stretch):
            self._stretch = frame.stretch()
        told, patches = self.told[label], piece.patches
        presence = self._masks.presence[patches, self._columns[label]]
        share = self._share(label, piece, whole)
        amounts = {name: float(each[patches] @ share) for name, each in told.shared.items()}
        rings = tuple(frame.on_slide(ring) for ring in piece.rings)
        x, y = rings[0][0]
        return Feature(
            # Its top left corner: the same whatever else is written, and no two have one pixel.
            name=f"{label}/{x:.12g},{y:.12g}",
            kind="detection",
            rings=rings,
            label=label,
            measurements={
                "area um2": area,
                "confidence": float(presence @ piece.counts / piece.counts.sum()),
                **told.kind,
                **amounts,
            },
        )

    def _share(self, label: str, piece: Piece, whole: Piece) -> NDArray[np.float64]:
        """``(n,)`` the piece's share of its label's area in each of its patches."""
        patches, counts = piece.patches, whole.counts
        if piece is not whole:
            counts = counts[np.searchsorted(whole.patches, patches)]
        area = self._masks.area[patches, self._columns[label]]
        # What hangs together has no more than all, and its parts together what it has.
        most = np.maximum(area * self._stretch[patches], counts)
        return np.asarray(piece.counts / most, np.float64)


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
            f'"properties": {{"objectType": "{feature.kind}", {title}'
            f'"classification": {classified}, "isLocked": {str(feature.locked).lower()}, '
            f'"measurements": {json.dumps(numbers, allow_nan=False)}}}}}'
        )

    def _check(self, feature: Feature) -> None:
        if feature.kind not in KINDS:
            raise DataError(f"kind must be one of {KINDS}, got {feature.kind!r}")
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
