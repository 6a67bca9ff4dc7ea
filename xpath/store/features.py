"""Patch and object features of a slide in HDF5, schema ``xpath.features/1``.

The file also opens in CLAM's and TRIDENT's tools: ``features`` and ``coords`` are where they look,
with the attributes described in ``xpath.store.grids``. Axes: N patches, L object classes, D
features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.geometry import PatchGrid
from xpath.shapes import check_shape
from xpath.store.grids import grid_attributes, grid_from_attributes
from xpath.store.hdf5 import create_h5, open_h5
from xpath.store.schema import FEATURES, name_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SlideFeatures", "read_features", "write_features"]

ATTRIBUTES = ("schema", "slide_id", "objects", "provenance")
CHUNK_BYTES = 1 << 20
DTYPES: dict[str, type[np.floating[Any]]] = {
    "features": np.float32,
    "object_features": np.float16,
    "object_coverage": np.float32,
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class SlideFeatures:
    """Features of every patch of a slide. Other floating types are converted."""

    slide_id: str
    grid: PatchGrid
    features: NDArray[np.float32]
    """``(N, D)`` mean feature of each patch."""
    object_features: NDArray[np.float16]
    """``(N, L, D)`` mean feature under each object's mask, zero where it is absent."""
    object_coverage: NDArray[np.float32]
    """``(N, L)`` share of the patch under the mask, 0 to 1."""
    objects: tuple[str, ...]
    """Label ids, L of them, of which the last may be ``other``."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Prompts, encoder and segmentor with their SHA-256, configuration digest, version."""

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together, and values that are no numbers.

        Raises:
            DataError: No patches; NaN, infinity or overflow of float16; coverage not in 0..1.
            ShapeError: Arrays that do not fit the grid, the objects or each other.
        """
        if not len(self.grid):
            raise DataError(f"slide {self.slide_id} has no patches, so there is nothing to keep")
        sizes = check_shape("features", self.features, "N D", N=len(self.grid))
        sizes["L"] = len(self.objects)
        check_shape("object_features", self.object_features, "N L D", **sizes)
        check_shape("object_coverage", self.object_coverage, "N L", **sizes)
        for name, dtype in DTYPES.items():
            object.__setattr__(self, name, self._finite(name, dtype))
        low, high = self.object_coverage.min(initial=0), self.object_coverage.max(initial=0)
        if low < 0 or high > 1.001:  # sums of areas round
            raise DataError(
                f"object_coverage of slide {self.slide_id} reaches from {low} to {high}, wanted"
                " shares of the patch from 0 to 1"
            )

    def _finite(self, name: str, dtype: type[np.floating[Any]]) -> NDArray[Any]:
        """The array as it is stored. Refuses NaN, infinity and what float16 cannot hold."""
        with np.errstate(over="ignore"):  # it is reported below, with the patch
            array = np.ascontiguousarray(getattr(self, name), dtype)
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if not finite.all():
            raise DataError(
                f"{name} of slide {self.slide_id} has NaN, infinity or values beyond"
                f" {np.finfo(dtype).max:.5g} in patch {int(np.argmin(finite))} and"
                f" {int((~finite).sum()) - 1} others; look at that patch and at the encoder"
            )
        return array


def write_features(path: Path, slide: SlideFeatures) -> None:
    """Writes ``features.h5``, the same bytes for the same input.

    Raises:
        StoreError: The disk is full.
    """
    with create_h5(path, FEATURES) as file:
        file.attrs["slide_id"] = slide.slide_id
        file.attrs["objects"] = json.dumps(slide.objects)
        file.attrs["provenance"] = json.dumps(dict(slide.provenance), sort_keys=True)
        coords = file.create_dataset("coords", data=np.asarray(slide.grid.coords, np.int64))
        coords.attrs.update(grid_attributes(slide.grid, slide.slide_id))
        for name in DTYPES:
            array = getattr(slide, name)
            file.create_dataset(name, data=array, chunks=_chunks(array))
        about = {"name": slide.slide_id, "savetodir": "."}  # where TRIDENT looks
        file["features"].attrs.update(about, encoder=slide.provenance.get("encoder", ""))


def read_features(path: Path) -> SlideFeatures:
    """Reads ``features.h5``.

    Raises:
        StoreError: The file is missing, truncated, not ours, or contradicts itself.
    """
    with open_h5(path, FEATURES) as file:
        name_unknown(path, [*file, *file.attrs], [*DTYPES, *ATTRIBUTES, "coords"])
        return SlideFeatures(
            slide_id=str(file.attrs["slide_id"]),
            grid=grid_from_attributes(file["coords"][()], dict(file["coords"].attrs)),
            features=file["features"][()],
            object_features=file["object_features"][()],
            object_coverage=file["object_coverage"][()],
            objects=tuple(json.loads(file.attrs["objects"])),
            provenance=json.loads(file.attrs["provenance"]),
        )


def _chunks(array: NDArray[Any]) -> tuple[int, ...] | None:
    """Whole patches, a megabyte or more of them: one row a chunk is seven times slower to read."""
    if not array.size:
        return None
    row = array[0].nbytes
    return (min(len(array), -(-CHUNK_BYTES // row)), *array.shape[1:])
