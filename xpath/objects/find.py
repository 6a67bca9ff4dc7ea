"""The objects of a slide's masks, found in one pass over its patches without a picture of it.

Masks are laid on a canvas whose pixel is one pixel of a mask, a strip of patches at a time, and
outlines are traced from strip to strip: an object across a seam of patches, or in several that
overlap, is one. Where patches lie a whole number of mask pixels apart an outline encloses exactly
the pixels of its mask; else a patch is moved by half a mask pixel at most.
Axes: N patches, L labels, M objects, h w pixels of the canvas, S side of a mask.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.objects.outline import Component, Outliner, Window, components
from xpath.objects.rule import ObjectConfig
from xpath.objects.separate import separated
from xpath.store.objects import ObjectTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.store.masks import SlideMasks

__all__ = ["find_in_image", "find_objects"]

CANVAS_BYTES = 256_000_000
"""Most memory for strips of the canvas; more labels than fit are traced in further passes."""
AT_ONCE = 8
"""Patches read in one go."""
NUMBERS = 10
"""Numbers kept of each object while they are collected."""
DEFAULT = ObjectConfig()


def find_objects(masks: SlideMasks, config: ObjectConfig = DEFAULT) -> ObjectTable:
    """The objects of all labels of a slide, in the order of the labels and from top to bottom.

    Args:
        masks: Object masks of the slide.
        config: What counts as one object. Without a resolution nothing is separated or too small.

    Raises:
        StoreError: A part of the masks is damaged.
    """
    canvas = _Canvas(masks.grid, masks.size)
    columns = [_Column(masks, label, canvas, config) for label in masks.labels]
    together = max(1, CANVAS_BYTES // (2 * (masks.size + 1) * canvas.width))
    for start in range(0, len(columns), together):
        _trace(masks, columns[start : start + together], canvas)
    return _table(masks, columns, canvas, config.sentence(masks.grid.slide_mpp))


def find_in_image(
    mask: NDArray[np.bool_], label: str, *, mpp: float | None, config: ObjectConfig = DEFAULT
) -> list[Component]:
    """The objects of a mask of one image, by the same rule as those of a slide.

    Args:
        mask: ``(h, w)``.
        label: Label id (region-structure-object); nuclei and cells that touch are separated.
        mpp: Microns per pixel; None, and nothing is separated or too small.
        config: What counts as one object.
    """
    window = np.zeros((0, 4), np.int64)
    return [
        each
        for component in components(mask)
        for each in _objects(component, label, window, mpp or math.nan, config)
    ]


def _objects(
    component: Component,
    label: str,
    windows: NDArray[np.int64],
    um: float,
    config: ObjectConfig,
) -> list[Component]:
    """The objects of a component: the rule itself."""
    apart = config.separates(label)
    parts = separated(component, windows, um, config) if apart else [component]
    return [part for part in parts if not part.pixels * um**2 < config.min_area_um2]


@dataclass(frozen=True)
class _Canvas:
    """Where patches lie on a picture with a pixel for each pixel of the masks."""

    grid: PatchGrid
    side: int
    """Side of a mask in pixels."""

    @property
    def scale(self) -> float:
        """Level-0 pixels per pixel."""
        return self.grid.footprint / self.side

    @cached_property
    def origin(self) -> tuple[int, int]:
        """x, y of its corner, level-0 pixels."""
        x, y = self.grid.coords.min(axis=0).tolist()
        return x, y

    @cached_property
    def windows(self) -> NDArray[np.int64]:
        """``(N, 4)`` top, left, bottom, right of each patch."""
        corners = self.grid.coords
        ends = corners + self.grid.footprint
        # Steps between patches are rounded one by one, so neighbours may lie a level-0 pixel apart;
        # an object across such a seam is still one object.
        known = set(map(tuple, corners.tolist()))
        for end, (x, y), (right, bottom) in zip(ends, corners.tolist(), ends.tolist(), strict=True):
            end += ((right + 1, y) in known, (x, bottom + 1) in known)
        edges = np.concatenate((corners, ends), axis=1) - np.tile(self.origin, 2)
        windows: NDArray[np.int64] = np.rint(edges / self.scale).astype(np.int64)[:, [1, 0, 3, 2]]
        return windows

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, ending where the slide ends."""
        slide = (self.grid.slide_size.height, self.grid.slide_size.width)
        ends = self.windows[:, 2:].max(axis=0).tolist()
        height, width = (
            min(end, math.ceil((length - start) / self.scale))
            for end, length, start in zip(ends, slide, self.origin[::-1], strict=True)
        )
        return height, width

    @property
    def width(self) -> int:
        """Columns that patches reach, also beyond the slide."""
        return int(self.windows[:, 3].max())


class _Column:
    """The objects of one label, collected as they end."""

    def __init__(
        self, masks: SlideMasks, label: str, canvas: _Canvas, config: ObjectConfig
    ) -> None:
        self.index = masks.labels.index(label)
        self.pixels = 0
        """Of all components, those too small for an object included."""
        self.patch_pixels = np.zeros(len(masks.grid), np.int64)
        """The same in each patch."""
        self._label, self._canvas, self._config = label, canvas, config
        self._um = canvas.scale * (masks.grid.slide_mpp or math.nan)
        self._presence = masks.presence[:, self.index]
        self._numbers = array("d")  # of an object: pixels, box, centre, confidence, rings, patches
        self._corner_counts, self._corners, self._shares = array("q"), array("i"), array("q")

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._numbers) // NUMBERS

    def add(self, component: Component) -> None:
        """Takes a component: its pixels count, and whatever of it is an object."""
        self.pixels += component.pixels
        self.patch_pixels[component.patches] += component.counts
        for each in _objects(component, self._label, self._canvas.windows, self._um, self._config):
            self._append(each)

    def _append(self, one: Component) -> None:
        canvas, slide = self._canvas, self._canvas.grid.slide_size
        outline = one.rings[0] * canvas.scale + canvas.origin
        outline = np.minimum(outline, (slide.width, slide.height))
        confidence = self._presence[one.patches] @ one.counts / one.counts.sum()
        self._numbers.append(one.pixels)
        self._numbers.extend(outline.min(axis=0))
        self._numbers.extend(outline.max(axis=0))
        self._numbers.extend(_centre(one) * canvas.scale + canvas.origin)
        self._numbers.extend((confidence, len(one.rings), len(one.patches)))
        for ring in one.rings:
            self._corner_counts.append(len(ring))
            self._corners.frombytes(ring.astype(np.int32).tobytes())
        self._shares.frombytes(np.stack((one.patches, one.counts), axis=1).tobytes())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Columns of the table, with lengths where it has ends."""
        numbers = np.array(self._numbers).reshape(-1, NUMBERS)
        shares = np.array(self._shares).reshape(-1, 2)
        return {
            "pixels": numbers[:, 0].astype(np.int64),
            "boxes": numbers[:, 1:5],
            "centres": numbers[:, 5:7],
            "confidence": numbers[:, 7],
            "ring_ends": numbers[:, 8].astype(np.int64),
            "share_ends": numbers[:, 9].astype(np.int64),
            "corner_ends": np.array(self._corner_counts),
            "corners": np.array(self._corners).reshape(-1, 2),
            "patches": shares[:, 0],
            "patch_pixels": shares[:, 1],
        }


def _table(
    masks: SlideMasks, columns: Sequence[_Column], canvas: _Canvas, rule: str
) -> ObjectTable:
    tables = [column.arrays() for column in columns]
    arrays = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    ends = {name: arrays[name].cumsum() for name in arrays if name.endswith("_ends")}
    return ObjectTable(
        labels=masks.labels,
        rule=rule,
        grid=masks.grid,
        origin=canvas.origin,
        scale=canvas.scale,
        label=np.repeat(np.arange(len(columns)), [len(column) for column in columns]),
        label_pixels=np.array([column.pixels for column in columns]),
        label_patch_pixels=np.stack([column.patch_pixels for column in columns], axis=1),
        **arrays | ends,
    )


def _centre(component: Component) -> NDArray[np.float64]:
    """x, y of the centre of mass, pixels of the canvas (Green's theorem, holes turning back)."""
    total = np.zeros(2)
    for ring in component.rings:
        start, points = ring[0], ring - ring[0]  # near 0, where products lose nothing
        cross = points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]
        total += (points[:-1] + points[1:]).T @ cross / 6 + start * (cross.sum() / 2)
    return total / component.pixels


def _trace(masks: SlideMasks, columns: Sequence[_Column], canvas: _Canvas) -> None:
    """Gives each column the components of its label, from the top of the slide to its end."""
    # No window is higher than a strip, so none meets more than two.
    side = int((canvas.windows[:, 2] - canvas.windows[:, 0]).max())
    height, width = canvas.size
    outliners = [Outliner(width) for _ in columns]
    indices = [column.index for column in columns]
    strips = np.zeros((len(columns), 2 * side, canvas.width), np.bool_)
    used = np.flatnonzero(masks.area[:, indices].any(axis=1))
    used = used[np.lexsort((used, canvas.windows[used, 0]))]
    tops = canvas.windows[used, 0]
    above: NDArray[np.int64] = used[:0]
    for top in range(0, height, side):
        here = used[(tops >= top) & (tops < top + side)]
        _paint(strips, masks, indices, here, canvas.windows - (top, 0, top, 0))
        windows = [Window(int(p), *canvas.windows[p].tolist()) for p in (*above, *here)]
        rows = min(side, height - top)
        for column, outliner, strip in zip(columns, outliners, strips, strict=True):
            for component in outliner.add(strip[:rows, :width], windows):
                column.add(component)
        strips[:, :side] = strips[:, side:]
        strips[:, side:] = False
        above = here[canvas.windows[here, 2] > top + side]
    for column, outliner in zip(columns, outliners, strict=True):
        for component in outliner.finish():
            column.add(component)


def _paint(
    strips: NDArray[np.bool_],
    masks: SlideMasks,
    indices: list[int],
    patches: NDArray[np.int64],
    windows: NDArray[np.int64],
) -> None:
    """Lays the masks ``(L, S, S)`` of patches on strips ``(L, h, w)``."""
    for start in range(0, len(patches), AT_ONCE):
        some = patches[start : start + AT_ONCE]
        read = masks.read(some)
        for one, number in np.argwhere(masks.area[some][:, indices] > 0):
            top, left, bottom, right = windows[some[one]].tolist()
            fitted = _fitted(read[one, indices[number]], bottom - top, right - left)
            strips[number, top:bottom, left:right] |= fitted


def _fitted(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    if mask.shape == (height, width):
        return mask
    import cv2

    image = np.ascontiguousarray(mask).view(np.uint8)
    fitted = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    return fitted.view(np.bool_)
