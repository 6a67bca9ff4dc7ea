"""How far the masks of a slide agree with what a person drew or corrected in QuPath.

Both are laid on one picture, a pixel for a mask pixel, and counted where there are patches, and
where the person marked regions, only inside these.
Axes: L labels, h w pixels of the picture, K corners.
"""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.export.qupath.reader import region_mask
from xpath.export.slide_canvas import Canvas, patch_canvas, strips
from xpath.geometry import Box, Size
from xpath.objects.outline import Outliner
from xpath.objects.separate import separated
from xpath.objects.slide_outline import Frame
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.export.qupath.reader import Region
    from xpath.objects.outline import Piece
    from xpath.store.masks import SlideMasks

__all__ = ["Agreement", "Comparison", "compare", "write_comparison"]

CANVAS_BYTES = 256_000_000
"""Most memory for strips of the picture; more labels than fit are counted in further passes."""
SPECK_UM2 = 4.0
"""Smaller pieces are no objects, as in the export for QuPath."""
NO_WINDOWS = np.zeros((0, 4), np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """A label, where it was compared."""

    slide_id: str
    label: str
    dice: float
    """0 to 1; NaN where neither has the label."""
    iou: float
    """0 to 1; NaN where neither has the label."""
    model_area: float
    """In ``unit``."""
    corrected_area: float
    both_area: float
    """What both call the label."""
    unit: str
    """``um2``, or ``px`` (square level-0 pixels) where the slide has no resolution."""
    model_objects: int
    """As they are exported for QuPath: connected pieces of the mask, touching nuclei and cells told
    apart, specks of less than 4 square microns left out."""
    corrected_objects: int
    """Drawn areas with at least a pixel where it was compared."""


class Comparison(NamedTuple):
    """The masks of a slide against a person's areas."""

    rows: tuple[Agreement, ...]
    area: float
    """That was compared, in ``unit`` of the rows."""
    marked: float
    """Area of the regions that bound it, also where there are no patches; 0 without regions."""


def compare(
    masks: SlideMasks,
    objects: Mapping[str, Sequence[Region]],
    regions: Sequence[Region] = (),
    *,
    slide_id: str,
) -> Comparison:
    """Agreement label by label.

    Args:
        masks: Object masks of the slide.
        objects: What a person drew, level-0 pixels, by label id of the masks.
        regions: Only inside these is counted; none of them: wherever there are patches.
        slide_id: Name of the slide.

    Raises:
        DataError: No label, or regions or objects that do not meet any patch.
        StoreError: A part of the masks is damaged.
    """
    if not objects:
        raise DataError(f"{slide_id}: no label to compare; pass those of the drawn objects")
    canvas = patch_canvas(masks)
    labels = list(objects)
    mpp = masks.grid.slide_mpp
    tallies = {
        label: _Tally(label, _Drawn(drawn, canvas), canvas, mpp) for label, drawn in objects.items()
    }
    bounding, inside = _Drawn(regions, canvas), 0
    together = max(1, CANVAS_BYTES // (2 * (masks.size + 2) * canvas.size.width))
    for start in range(0, len(labels), together):
        part, inside = labels[start : start + together], 0
        for strip in strips(masks, part, canvas):
            where = strip.covered
            if regions:
                where = bounding.painted(strip.top, where)
            inside += int(where.sum())
            for label, mask in zip(part, strip.masks, strict=True):
                tallies[label].add(strip.top, mask & where, where)
    met = sum(tally.corrected for tally in tallies.values())
    _refuse_strangers(masks, objects, regions, inside, met)
    pixel = tallies[labels[0]].pixel
    marked = sum(region.area for region in regions) / canvas.scale[0] ** 2
    rows = tuple(tally.agreement(slide_id) for tally in tallies.values())
    return Comparison(rows, inside * pixel, marked * pixel)


def write_comparison(path: Path, rows: Sequence[Agreement]) -> None:
    """Writes rows as CSV; a number that is not known as an empty cell.

    Raises:
        DataError: No rows.
        StoreError: The disk is full.
    """
    if not rows:
        raise DataError(f"{path}: there are no rows to write")
    with atomic(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in asdict(row).items()})


class _Drawn:
    """Areas that are painted strip by strip."""

    def __init__(self, areas: Sequence[Region], canvas: Canvas) -> None:
        """Moves the areas from the slide to the picture."""
        corner, scale = np.array(canvas.corner), np.array(canvas.scale)
        self._areas = [
            replace(
                area,
                polygons=tuple(
                    tuple((ring - corner) / scale for ring in rings) for rings in area.polygons
                ),
            )
            for area in areas
        ]
        outlines = [np.concatenate([rings[0] for rings in area.polygons]) for area in self._areas]
        low = [np.floor(each.min(axis=0)) for each in outlines]
        high = [np.ceil(each.max(axis=0)) for each in outlines]
        self._low = np.array(low, np.int64).reshape(-1, 2)
        self._high = np.array(high, np.int64).reshape(-1, 2)
        self.met = np.zeros(len(areas), np.bool_)
        """Which areas have had a pixel where it was compared."""

    def painted(self, top: int, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``(h, w)`` pixels of a strip in any of the areas, and in ``where``."""
        height, width = where.shape
        canvas = np.zeros_like(where)
        low = np.maximum(self._low, (0, top))
        high = np.minimum(self._high, (width, top + height))
        for index in np.flatnonzero((low < high).all(axis=1)).tolist():
            (left, upper), (right, lower) = low[index].tolist(), high[index].tolist()
            size = Size(right - left, lower - upper)
            window = (slice(upper - top, lower - top), slice(left, right))
            box = Box(left, upper, size.width, size.height)
            mask = region_mask([self._areas[index]], box, size) & where[window]
            canvas[window] |= mask
            self.met[index] |= mask.any()
        return canvas


class _Tally:
    """Counts a label strip by strip."""

    def __init__(self, label: str, drawn: _Drawn, canvas: Canvas, mpp: float | None) -> None:
        self._label, self._drawn, self._mpp = label, drawn, mpp
        self._outliner = Outliner(canvas.size.width)
        scale = canvas.scale[0]
        self._frame = Frame(
            np.array(canvas.corner, np.int64), scale, np.zeros(2, np.int64), NO_WINDOWS, 1
        )
        self.pixel = (scale * (mpp or 1.0)) ** 2
        """Area of a pixel, square microns or square level-0 pixels."""
        self.model = self.corrected = self.both = self._objects = 0

    def add(self, top: int, model: NDArray[np.bool_], where: NDArray[np.bool_]) -> None:
        """Takes the next strip ``(h, w)``; the model's mask only where it is compared."""
        corrected = self._drawn.painted(top, where)
        self.model += int(model.sum())
        self.corrected += int(corrected.sum())
        self.both += int((model & corrected).sum())
        self._count(self._outliner.add(model))

    def agreement(self, slide_id: str) -> Agreement:
        """What was counted."""
        self._count(self._outliner.finish())
        total, union = self.model + self.corrected, self.model + self.corrected - self.both
        return Agreement(
            slide_id=slide_id,
            label=self._label,
            dice=2 * self.both / total if total else math.nan,
            iou=self.both / union if union else math.nan,
            model_area=self.model * self.pixel,
            corrected_area=self.corrected * self.pixel,
            both_area=self.both * self.pixel,
            unit="um2" if self._mpp else "px",
            model_objects=self._objects,
            corrected_objects=int(self._drawn.met.sum()),
        )

    def _count(self, pieces: Sequence[Piece]) -> None:
        """Adds objects, told apart and without specks, as they are exported for QuPath."""
        least = SPECK_UM2 if self._mpp else 0.0
        found = separated(((self._label, piece, self._frame) for piece in pieces), self._mpp)
        for one in found:
            self._objects += sum(part.pixels * self.pixel >= least for part in one.parts)


def _refuse_strangers(
    masks: SlideMasks,
    objects: Mapping[str, Sequence[Region]],
    regions: Sequence[Region],
    inside: int,
    met: int,
) -> None:
    """Refuses areas that lie somewhere else, as those of another slide do."""
    drawn = [area for areas in objects.values() for area in areas]
    if inside and (met or regions or not drawn):
        return
    strangers = drawn if inside else regions
    what = "no object of the file" if inside else "no region of interest"
    corners = np.concatenate([rings[0] for area in strangers for rings in area.polygons])
    (x, y), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    coords = masks.grid.coords
    (left, top), (last, lowest) = coords.min(axis=0), coords.max(axis=0) + masks.grid.footprint
    raise DataError(
        f"{what} lies in one of the {len(masks)} patches: they span x {x:.0f} to {right:.0f} and y"
        f" {y:.0f} to {bottom:.0f}, the patches x {left} to {last} and y {top} to {lowest} (pixels"
        " of level 0); is the file of another slide?"
    )


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
