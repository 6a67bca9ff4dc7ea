"""Patch and object features of a slide in HDF5.

Axes: N patches, L object kinds, D features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError, ShapeError, StoreError
from xpath.geometry import PatchGrid
from xpath.shapes import check_shape
from xpath.store.grids import grid_attributes, grid_from_attributes, open_h5
from xpath.store.schema import FEATURES, atomic, check_schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SlideFeatures", "read_features", "write_features"]

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideFeatures:
    """What is known of every patch of a slide."""

    slide_id: str
    grid: PatchGrid
    features: NDArray[np.float32]
    """``(N, D)`` mean feature of each patch."""
    object_features: NDArray[np.float16]
    """``(N, L, D)`` mean feature under each object's mask; zero where it is absent."""
    object_coverage: NDArray[np.float32]
    """``(N, L)`` share of the patch under the mask, 0 to 1."""
    objects: tuple[str, ...]
    """Label ids, L of them; the last may be ``other``."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Prompts, encoder and segmentor with their SHA-256."""

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together, and values that are no numbers."""
        sizes = check_shape("features", self.features, "N D", N=len(self.grid))
        sizes["L"] = len(self.objects)
        check_shape("object_features", self.object_features, "N L D", **sizes)
        check_shape("object_coverage", self.object_coverage, "N L", **sizes)
        for name in ("features", "object_features", "object_coverage"):
            finite = np.isfinite(getattr(self, name)).reshape(len(self.grid), -1).all(axis=1)
            if not finite.all():
                raise DataError(
                    f"{name} of slide {self.slide_id} has NaN or infinity in patch"
                    f" {int(np.argmin(finite))}; look at that patch and at the encoder"
                )


def write_features(path: Path, slide: SlideFeatures) -> None:
    """Writes ``features.h5``; equal input gives equal bytes."""
    import h5py

    with atomic(path) as draft, h5py.File(draft, "w", libver="latest") as file:
        file.attrs["schema"] = FEATURES
        file.attrs["slide_id"] = slide.slide_id
        file.attrs["objects"] = json.dumps(slide.objects)
        file.attrs["provenance"] = json.dumps(dict(slide.provenance), sort_keys=True)
        coords = file.create_dataset("coords", data=slide.grid.coords)
        coords.attrs.update(grid_attributes(slide.grid, slide.slide_id))
        for name in ("features", "object_features", "object_coverage"):
            array = getattr(slide, name)
            file.create_dataset(name, data=array, chunks=_chunks(array))


def read_features(path: Path) -> SlideFeatures:
    """Reads ``features.h5``.

    Raises:
        StoreError: The file is missing, truncated, not ours, or contradicts itself.
    """
    with open_h5(path) as file:
        check_schema(path, file.attrs.get("schema"), FEATURES)
        try:
            return SlideFeatures(
                slide_id=str(file.attrs["slide_id"]),
                grid=grid_from_attributes(file["coords"][()], dict(file["coords"].attrs)),
                features=file["features"][()],
                object_features=file["object_features"][()],
                object_coverage=file["object_coverage"][()],
                objects=tuple(json.loads(file.attrs["objects"])),
                provenance=json.loads(file.attrs["provenance"]),
            )
        except (KeyError, OSError, ValueError, ShapeError) as error:
            raise StoreError(f"{path} is damaged ({error}); remove it and make it again") from error


def _chunks(array: NDArray[Any]) -> tuple[int, ...] | None:
    """Whole patches, about a megabyte of them: one row a chunk is seven times slower to read."""
    if not array.size:
        return None
    row = array[0].nbytes
    return (min(len(array), max(1, CHUNK_BYTES // row)), *array.shape[1:])
