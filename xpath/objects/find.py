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
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.objects.canvas import Canvas, closing_gaps, patch_canvas, patch_windows, strips
from xpath.objects.outline import Component, Outliner, Window, components
from xpath.objects.rule import ObjectConfig
from xpath.objects.separate import separated
from xpath.store.objects import ObjectTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.store.masks import SlideMasks

__all__ = ["find_in_image", "find_objects"]

CANVAS_BYTES = 256_000_000
"""Most memory for strips of the canvas; more labels than fit are traced in further passes."""
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
    canvas = patch_canvas(masks)
    windows = patch_windows(masks, canvas)
    columns = [_Column(masks, label, canvas, windows, config) for label in masks.labels]
    moves = closing_gaps(windows)
    width = canvas.size.width - int(moves.max())
    together = max(1, CANVAS_BYTES // (2 * (masks.size + 2) * width))
    for start in range(0, len(columns), together):
        _trace(masks, columns[start : start + together], canvas, moves)
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
    windows = np.zeros((0, 4), np.int64)
    return [
        each
        for component in components(mask)
        for each in _objects(component, label, windows, mpp or math.nan, config)
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
    objects = separated(component, windows, um, config) if apart else [component]
    return [each for each in objects if not each.pixels * um**2 < config.min_area_um2]


class _Column:
    """The objects of one label, collected as they end.

    ``windows`` are where the patches lie on the canvas, ``(N, 4)``.
    """

    def __init__(
        self,
        masks: SlideMasks,
        label: str,
        canvas: Canvas,
        windows: NDArray[np.int64],
        config: ObjectConfig,
    ) -> None:
        index = masks.labels.index(label)
        self.label, self.windows = label, windows
        self.pixels = 0
        """Of all components, those too small for an object included."""
        self.patch_pixels = np.zeros(len(masks.grid), np.int64)
        """The same in each patch."""
        self._config, self._scale, self._corner = config, canvas.scale[0], canvas.corner
        self._limit = (masks.grid.slide_size.width, masks.grid.slide_size.height)
        self._um = self._scale * (masks.grid.slide_mpp or math.nan)
        self._presence = masks.presence[:, index]
        self._numbers = array("d")  # of an object: pixels, box, centre, confidence, rings, patches
        self._corner_counts, self._corners, self._shares = array("q"), array("i"), array("q")

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._numbers) // NUMBERS

    def add(self, component: Component) -> None:
        """Takes a component: its pixels count, and whatever of it is an object."""
        self.pixels += component.pixels
        self.patch_pixels[component.patches] += component.counts
        for each in _objects(component, self.label, self.windows, self._um, self._config):
            self._append(each)

    def _append(self, one: Component) -> None:
        outline = np.minimum(one.rings[0] * self._scale + self._corner, self._limit)
        confidence = self._presence[one.patches] @ one.counts / one.counts.sum()
        self._numbers.append(one.pixels)
        self._numbers.extend(outline.min(axis=0))
        self._numbers.extend(outline.max(axis=0))
        self._numbers.extend(_centre(one) * self._scale + self._corner)
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


def _table(masks: SlideMasks, columns: Sequence[_Column], canvas: Canvas, rule: str) -> ObjectTable:
    tables = [column.arrays() for column in columns]
    arrays = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    ends = {name: arrays[name].cumsum() for name in arrays if name.endswith("_ends")}
    return ObjectTable(
        labels=masks.labels,
        rule=rule,
        grid=masks.grid,
        origin=(int(canvas.corner[0]), int(canvas.corner[1])),
        scale=canvas.scale[0],
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


def _trace(
    masks: SlideMasks, columns: Sequence[_Column], canvas: Canvas, moves: NDArray[np.int64]
) -> None:
    """Gives each column the components of its label, from the top of the slide to its end."""
    moved = columns[0].windows - moves[:, None] * (0, 1, 0, 1)
    outliners = [Outliner(canvas.size.width - int(moves.max())) for _ in columns]
    for strip in strips(masks, [column.label for column in columns], canvas, moves):
        here = [Window(patch, *moved[patch].tolist()) for patch in strip.patches.tolist()]
        for column, outliner, mask in zip(columns, outliners, strip.masks, strict=True):
            ended = outliner.add(mask, here) if here else outliner.pass_by(len(mask))
            for component in ended:
                column.add(_moved_back(component, moves))
    for column, outliner in zip(columns, outliners, strict=True):
        for component in outliner.finish():
            column.add(_moved_back(component, moves))


def _moved_back(component: Component, moves: NDArray[np.int64]) -> Component:
    """A component where it lies on the canvas. All its patches were moved by the same."""
    back = np.array([moves[component.patches[0]], 0])
    return component._replace(rings=tuple(ring + back for ring in component.rings))
