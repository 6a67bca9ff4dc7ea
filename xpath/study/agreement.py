"""Agreement of a slide's masks with what a person drew or corrected in QuPath.

Both are laid on one picture, a pixel for a mask pixel, and compared where there are patches, and
where the person marked regions, only inside these.
Axes: L labels, h w pixels of the picture, K corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.export.qupath.reader import region_mask
from xpath.geometry import Box, Size
from xpath.objects.canvas import Canvas, patch_canvas, strips
from xpath.store.geojson import Region, union_area

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.store.masks import SlideMasks
    from xpath.store.objects import ObjectTable

__all__ = ["Agreement", "Comparison", "compare"]

CANVAS_BYTES = 256_000_000
"""Most memory for strips of the picture; more labels than fit are counted in further passes."""


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
    """Area that both call the label."""
    unit: str
    """``um2``, or ``px`` (square level-0 pixels) where the slide has no resolution."""
    model_objects: int
    """Objects of the table with at least a pixel where it was compared."""
    corrected_objects: int
    """Drawn areas with at least a pixel where it was compared."""
    rule: str
    """The rule for one object of the model, in words."""


class Comparison(NamedTuple):
    """The masks of a slide against a person's areas."""

    rows: tuple[Agreement, ...]
    area: float
    """That was compared, in ``unit`` of the rows."""
    marked: float
    """Area of the union of the regions that bound it, each filled even-odd, also where there are
    no patches; 0 without regions."""


def compare(
    masks: SlideMasks,
    table: ObjectTable,
    drawn: Mapping[str, Sequence[Region]],
    regions: Sequence[Region] = (),
    *,
    slide_id: str,
) -> Comparison:
    """Agreement label by label.

    Args:
        masks: Object masks of the slide.
        table: Its objects.
        drawn: What a person drew, level-0 pixels, by label id of the masks.
        regions: Only inside these is compared; none of them: wherever there are patches.
        slide_id: Name of the slide.

    Raises:
        DataError: No label, or regions or objects that do not meet any patch.
        StoreError: A part of the masks is damaged.
    """
    if not drawn:
        raise DataError(f"{slide_id}: no label to compare; pass those of the drawn objects")
    canvas, labels = patch_canvas(masks), list(drawn)
    tallies = {
        label: _Tally(_Areas(areas, canvas), _Areas(_near(table, label, regions), canvas))
        for label, areas in drawn.items()
    }
    bounding, inside = _Areas(regions, canvas), 0
    together = max(1, CANVAS_BYTES // (2 * (masks.size + 2) * canvas.size.width))
    for start in range(0, len(labels), together):
        some, inside = labels[start : start + together], 0
        for strip in strips(masks, some, canvas):
            where = strip.covered
            if regions:
                where = bounding.painted(strip.top, where)
            inside += int(where.sum())
            for label, mask in zip(some, strip.masks, strict=True):
                tallies[label].add(strip.top, mask & where, where)
    _refuse_elsewhere(
        masks, drawn, regions, inside, sum(tally.corrected for tally in tallies.values())
    )
    mpp = masks.grid.slide_mpp
    pixel = (canvas.scale[0] * (mpp or 1.0)) ** 2
    rows = [
        Agreement(
            slide_id=slide_id,
            label=label,
            **tally.scores(),
            model_area=tally.model * pixel,
            corrected_area=tally.corrected * pixel,
            both_area=tally.both * pixel,
            unit="px" if mpp is None else "um2",
            model_objects=tally.objects if regions else table.counts[label],
            corrected_objects=tally.corrected_objects,
            rule=table.rule,
        )
        for label, tally in tallies.items()
    ]
    marked = union_area(regions) * (mpp or 1.0) ** 2
    return Comparison(tuple(rows), inside * pixel, marked)


def _near(table: ObjectTable, label: str, regions: Sequence[Region]) -> list[Region]:
    """Objects of a label whose box meets that of a region."""
    indices = table.of(label)
    left, top, right, bottom = table.boxes[indices].T
    near = np.zeros(len(indices), np.bool_)
    for region in regions:
        corners = np.concatenate([rings[0] for rings in region.polygons])
        (x, y), (end, low) = corners.min(axis=0), corners.max(axis=0)
        near |= (left < end) & (right > x) & (top < low) & (bottom > y)
    return [
        Region(type="detection", label=label, polygons=(table.rings(index),))
        for index in indices[near].tolist()
    ]


class _Areas:
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
    """Counts the pixels and objects of a label strip by strip."""

    def __init__(self, drawn: _Areas, objects: _Areas) -> None:
        self._drawn, self._objects = drawn, objects
        self.model = self.corrected = self.both = 0
        """Pixels of each, and of both."""

    def add(self, top: int, model: NDArray[np.bool_], where: NDArray[np.bool_]) -> None:
        """Takes the next strip ``(h, w)``, with the model's mask only where it is compared."""
        corrected = self._drawn.painted(top, where)
        self.model += int(model.sum())
        self.corrected += int(corrected.sum())
        self.both += int((model & corrected).sum())
        self._objects.painted(top, where)

    @property
    def objects(self) -> int:
        """Objects near the regions with at least a pixel where it was compared."""
        return int(self._objects.met.sum())

    @property
    def corrected_objects(self) -> int:
        """Drawn areas with at least a pixel where it was compared."""
        return int(self._drawn.met.sum())

    def scores(self) -> dict[str, float]:
        """Dice and IoU, NaN where neither has the label."""
        total, union = self.model + self.corrected, self.model + self.corrected - self.both
        return {
            "dice": 2 * self.both / total if total else math.nan,
            "iou": self.both / union if union else math.nan,
        }


def _refuse_elsewhere(
    masks: SlideMasks,
    drawn: Mapping[str, Sequence[Region]],
    regions: Sequence[Region],
    inside: int,
    met: int,
) -> None:
    """Refuses areas that lie somewhere else, as those of another slide do."""
    areas = [area for each in drawn.values() for area in each]
    if inside and (met or regions or not areas):
        return
    elsewhere = areas if inside else regions
    what = "no object of the file" if inside else "no region of interest"
    corners = np.concatenate([rings[0] for area in elsewhere for rings in area.polygons])
    (x, y), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    coords = masks.grid.coords
    (left, top), (last, lowest) = coords.min(axis=0), coords.max(axis=0) + masks.grid.footprint
    raise DataError(
        f"{what} lies in one of the {len(masks)} patches: they span x {x:.0f} to {right:.0f} and y"
        f" {y:.0f} to {bottom:.0f}, the patches x {left} to {last} and y {top} to {lowest} (pixels"
        " of level 0); is the file of another slide?"
    )
