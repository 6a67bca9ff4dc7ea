"""The objects of a slide in HDF5, schema ``xpath.objects/1``: every number of objects is from here.

Axes: M objects, R rings, C corners of rings, S pairs of an object and a patch it lies in,
N patches, L labels.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.geometry import PatchGrid
from xpath.shapes import check_shape
from xpath.store.grids import grid_attributes, grid_from_attributes
from xpath.store.hdf5 import create_h5, open_h5

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["ObjectTable", "read_objects", "write_objects"]

OBJECTS = "xpath.objects/1"
ARRAYS: dict[str, tuple[str, type[np.generic]]] = {
    "label": ("M", np.int32),
    "pixels": ("M", np.int64),
    "boxes": ("M 4", np.float64),
    "centres": ("M 2", np.float64),
    "confidence": ("M", np.float32),
    "ring_ends": ("M", np.int64),
    "share_ends": ("M", np.int64),
    "corner_ends": ("R", np.int64),
    "corners": ("C 2", np.int32),
    "patches": ("S", np.int64),
    "patch_pixels": ("S", np.int64),
    "label_pixels": ("L", np.int64),
    "label_patch_pixels": ("N L", np.int64),
}
"""Axes and type of every array."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class ObjectTable:
    """The objects of a slide, label by label, and by which rule they were counted."""

    labels: tuple[str, ...]
    """Label ids, L of them, in the order of the masks."""
    rule: str
    """The rule for one object, in words."""
    grid: PatchGrid
    origin: tuple[int, int]
    """x, y of the canvas that outlines are drawn on, level-0 pixels."""
    scale: float
    """Level-0 pixels per pixel of the canvas, which is a pixel of the masks."""
    label: NDArray[np.int32]
    """``(M,)`` index into ``labels``, rising."""
    pixels: NDArray[np.int64]
    """``(M,)`` mask pixels."""
    boxes: NDArray[np.float64]
    """``(M, 4)`` left, top, right and bottom, level-0 pixels."""
    centres: NDArray[np.float64]
    """``(M, 2)`` x, y of the centre of mass, level-0 pixels."""
    confidence: NDArray[np.float32]
    """``(M,)`` presence score of the label in the object's patches, weighted by its pixels."""
    ring_ends: NDArray[np.int64]
    """``(M,)`` where each object's rings end among all rings."""
    share_ends: NDArray[np.int64]
    """``(M,)`` where each object's patches end in ``patches`` and ``patch_pixels``."""
    corner_ends: NDArray[np.int64]
    """``(R,)`` where each ring's corners end in ``corners``."""
    corners: NDArray[np.int32]
    """``(C, 2)`` x, y of the corners of closed rings, pixels of the canvas."""
    patches: NDArray[np.int64]
    """``(S,)`` patches that hold pixels of an object."""
    patch_pixels: NDArray[np.int64]
    """``(S,)`` how many of its pixels each of them holds."""
    label_pixels: NDArray[np.int64]
    """``(L,)`` mask pixels of each label on the slide, those too small for an object included."""
    label_patch_pixels: NDArray[np.int64]
    """``(N, L)`` the same in each patch."""

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together.

        Raises:
            DataError: Ends that do not rise to the length of what they end in.
            ShapeError: Arrays of other shapes or lengths.
        """
        sizes = {"N": len(self.grid), "L": len(self.labels)}
        for name, (axes, dtype) in ARRAYS.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype))
            sizes |= check_shape(name, getattr(self, name), axes, **sizes)
        for name, count in (("ring_ends", "R"), ("share_ends", "S"), ("corner_ends", "C")):
            ends = getattr(self, name)
            if (np.diff(ends, prepend=0) < 1).any() or ends[-1:].sum() != sizes[count]:
                raise DataError(f"{name} must rise to {sizes[count]}, got {ends[-3:].tolist()}")

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.label)

    @property
    def um_per_pixel(self) -> float:
        """Side of a mask pixel in microns, NaN where no resolution is known."""
        return self.scale * (self.grid.slide_mpp or math.nan)

    @property
    def areas_um2(self) -> NDArray[np.float64]:
        """``(M,)`` areas in square microns, NaN where no resolution is known."""
        return np.asarray(self.pixels * self.um_per_pixel**2, np.float64)

    @property
    def counts(self) -> dict[str, int]:
        """Number of objects by label id."""
        numbers = np.bincount(self.label, minlength=len(self.labels)).tolist()
        return dict(zip(self.labels, numbers, strict=True))

    def of(self, label: str) -> NDArray[np.int64]:
        """Indices of the objects of a label.

        Raises:
            DataError: It was not segmented.
        """
        if label not in self.labels:
            raise DataError(f"not segmented: {label!r}; the masks have {list(self.labels)}")
        return np.flatnonzero(self.label == self.labels.index(label))

    def id(self, index: int) -> str:
        """A name of an object that the same masks always give: label and top left corner."""
        x, y = self.rings(index)[0][0]
        return f"{self.labels[self.label[index]]}/{x:.12g},{y:.12g}"

    def canvas_rings(self, index: int) -> list[NDArray[np.int32]]:
        """Closed rings ``(K, 2)`` of an object in pixels of the canvas: outline, then holes."""
        first, last = _span(self.ring_ends, index)
        return [self.corners[slice(*_span(self.corner_ends, ring))] for ring in range(first, last)]

    def rings(self, index: int) -> tuple[NDArray[np.float64], ...]:
        """Closed rings ``(K, 2)`` of an object in level-0 pixels: outline, then holes."""
        limit = (self.grid.slide_size.width, self.grid.slide_size.height)
        return tuple(
            np.minimum(ring * self.scale + self.origin, limit) for ring in self.canvas_rings(index)
        )

    def patches_of(self, index: int) -> NDArray[np.int64]:
        """``(n,)`` the patches an object lies in."""
        return self.patches[slice(*_span(self.share_ends, index))]

    def shares_of(self, index: int) -> NDArray[np.float64]:
        """``(n,)`` the object's share of its label's area in each of its patches.

        Multiplied with amounts of the label in these patches they are the object's own; those of
        all objects add up to the label's, as far as no pixel was too small for an object.
        """
        span = slice(*_span(self.share_ends, index))
        total = self.label_patch_pixels[self.patches[span], self.label[index]]
        return np.asarray(self.patch_pixels[span] / total, np.float64)

    def at(self, x: float, y: float, labels: Sequence[int]) -> list[int]:
        """Indices of the objects under a point in level-0 pixels, the smallest first.

        Args:
            x: Of the point.
            y: Of the point.
            labels: Indices of the labels that are asked for.
        """
        left, top, right, bottom = self.boxes.T
        near = (left <= x) & (x < right) & (top <= y) & (y < bottom) & np.isin(self.label, labels)
        under = [i for i in np.flatnonzero(near).tolist() if _inside(self.rings(i), x, y)]
        return sorted(under, key=lambda index: int(self.pixels[index]))


def write_objects(path: Path, table: ObjectTable) -> None:
    """Writes ``objects.h5``, equal bytes for equal tables.

    Raises:
        StoreError: The disk is full.
    """
    with create_h5(path, OBJECTS) as file:
        file.attrs.update(rule=table.rule, scale=table.scale, origin=table.origin)
        file.attrs["labels"] = json.dumps(table.labels)
        coords = file.create_dataset("coords", data=np.asarray(table.grid.coords, np.int64))
        coords.attrs.update(grid_attributes(table.grid, ""))
        for name in ARRAYS:
            array = getattr(table, name)
            packed: dict[str, Any] = {"compression": "gzip", "shuffle": True} if array.size else {}
            file.create_dataset(name, data=array, **packed)


def read_objects(path: Path) -> ObjectTable:
    """Reads ``objects.h5``.

    Raises:
        StoreError: The file is missing, truncated, not ours, or contradicts itself.
    """
    with open_h5(path, OBJECTS) as file:
        x, y = file.attrs["origin"].tolist()
        return ObjectTable(
            labels=tuple(json.loads(file.attrs["labels"])),
            rule=str(file.attrs["rule"]),
            grid=grid_from_attributes(file["coords"][()], dict(file["coords"].attrs)),
            origin=(x, y),
            scale=float(file.attrs["scale"]),
            **{name: file[name][()] for name in ARRAYS},
        )


def _span(ends: NDArray[np.int64], index: int) -> tuple[int, int]:
    """First and past-the-last of what belongs to an index."""
    return (int(ends[index - 1]) if index else 0), int(ends[index])


def _inside(rings: Sequence[NDArray[np.float64]], x: float, y: float) -> bool:
    """Whether a point is within rings along pixel borders: a ray to the left crosses odd times."""
    crossed = 0
    for ring in rings:
        (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
        between = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
        crossed += int(np.count_nonzero((x0 == x1) & (x0 <= x) & between))
    return crossed % 2 == 1
