"""Object masks of a slide in zarr, one bit per pixel.

Axes: N patches, L labels, H W pixels of a patch. A byte holds eight neighbours of a row, the
leftmost in its highest bit (``numpy.packbits``).
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xpath.errors import DataError, StoreError
from xpath.shapes import check_shape
from xpath.store.grids import grid_attributes, grid_from_attributes
from xpath.store.schema import MASKS, atomic, check_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid

__all__ = ["MaskWriter", "SlideMasks", "open_masks"]

SHARD = 16
"""Patches per file: few files, yet a single mask is still read alone."""


class MaskWriter:
    """Writes masks batch by batch; the folder appears when all patches are there.

    Example::

        with MaskWriter(path, grid=grid, labels=ids, size=256, provenance={}) as writer:
            writer.write(0, masks, presence)
    """

    def __init__(
        self,
        path: Path,
        *,
        grid: PatchGrid,
        labels: Sequence[str],
        size: int,
        provenance: Mapping[str, str],
    ) -> None:
        if not len(grid) or not labels:
            raise DataError(f"{path}: masks need patches and labels, got {len(grid)}, {len(labels)}")
        self._path, self._grid, self._labels, self._size = path, grid, tuple(labels), size
        self._provenance = dict(provenance)
        self._exit = ExitStack()
        self._buffer: list[NDArray[np.uint8]] = []
        self._buffered = self._written = 0
        shape = (len(grid), len(labels))
        self._presence = np.zeros(shape, np.float32)
        self._area = np.zeros(shape, np.int64)

    def __enter__(self) -> Self:
        """Starts a draft beside the final place."""
        import zarr

        self._exit.__enter__()
        draft = self._exit.enter_context(atomic(self._path))
        self._group = zarr.open_group(draft, mode="w-", zarr_format=3)
        count, labels, width = len(self._grid), len(self._labels), -(-self._size // 8)
        self._masks = self._group.create_array(
            "masks",
            shape=(count, labels, self._size, width),
            chunks=(1, 1, self._size, width),
            shards=(SHARD, labels, self._size, width),
            dtype="uint8",
            compressors=zarr.codecs.ZstdCodec(level=3),
        )
        return self

    def write(self, start: int, masks: NDArray[np.bool_], presence: NDArray[np.float32]) -> None:
        """Adds the next patches.

        Args:
            start: Index of the first of them; batches come in order, without gaps.
            masks: ``(B, L, H, W)``.
            presence: ``(B, L)``.

        Raises:
            DataError: Out of order, or of another shape.
        """
        known = {"L": len(self._labels), "H": self._size, "W": self._size}
        count = check_shape("masks", masks, "B L H W", **known)["B"]
        check_shape("presence", presence, "B L", B=count, L=len(self._labels))
        if start != self._written + self._buffered:
            wanted = self._written + self._buffered
            raise DataError(f"{self._path}: the next patch is {wanted}, got {start}")
        self._presence[start : start + count] = presence
        self._area[start : start + count] = masks.sum(axis=(2, 3))
        self._buffer.append(np.packbits(masks, axis=-1))
        self._buffered += count
        if self._buffered >= SHARD:
            self._flush(self._buffered // SHARD * SHARD)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Completes the folder, or leaves nothing behind."""
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._exit.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._exit.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if self._buffered:
            self._flush(self._buffered)
        if self._written != len(self._grid):
            raise DataError(f"{self._path}: {self._written} of {len(self._grid)} patches written")
        self._group.create_array("presence", data=self._presence)
        self._group.create_array("area", data=self._area)
        coords = self._group.create_array("coords", data=self._grid.coords)
        attributes = grid_attributes(self._grid, "")
        plain = {key: _plain(value) for key, value in attributes.items()}
        coords.attrs.update(plain)
        self._group.attrs.update(
            schema=MASKS, labels=list(self._labels), size=self._size, provenance=self._provenance
        )

    def _flush(self, count: int) -> None:
        """Writes whole shards, so that none is ever read back and written again."""
        packed = np.concatenate(self._buffer)
        self._masks[self._written : self._written + count] = packed[:count]
        self._buffer = [packed[count:]] if count < len(packed) else []
        self._buffered -= count
        self._written += count


class SlideMasks:
    """Masks of a slide, read on demand."""

    def __init__(self, path: Path, group: Any) -> None:
        coords = group["coords"]
        self.path = path
        self.grid: PatchGrid = grid_from_attributes(coords[:], dict(coords.attrs))
        self.labels: tuple[str, ...] = tuple(group.attrs["labels"])
        """Label ids, L of them."""
        self.size = int(group.attrs["size"])
        """Side of a mask in pixels."""
        self.provenance: dict[str, str] = dict(group.attrs["provenance"])
        self.presence: NDArray[np.float32] = group["presence"][:]
        """``(N, L)`` score of each mask, 0 where it is empty."""
        self.area: NDArray[np.int64] = group["area"][:]
        """``(N, L)`` pixels of each mask."""
        self._masks = group["masks"]
        shape = (len(self.grid), len(self.labels), self.size, -(-self.size // 8))
        if self._masks.shape != shape or self.area.shape != shape[:2]:
            raise StoreError(f"{path} contradicts itself; remove it and make it again")

    def read(self, patches: int | slice | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks ``(L, H, W)`` of one patch, or ``(n, L, H, W)`` of several.

        Raises:
            StoreError: A part of the file is damaged.
        """
        try:
            if isinstance(patches, np.ndarray):
                packed = self._masks.oindex[patches]
            else:
                packed = self._masks[patches]
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            raise StoreError(f"{self.path} is damaged: {error}; make it again") from error
        return np.unpackbits(packed, axis=-1, count=self.size).astype(bool)


def open_masks(path: Path) -> SlideMasks:
    """Opens ``masks.zarr``.

    Raises:
        StoreError: Missing, truncated, or not ours.
    """
    import zarr

    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} is no folder of masks; make it with `xpath segment`")
    try:
        group = zarr.open_group(path, mode="r")
        check_schema(path, group.attrs.get("schema"), MASKS)
        return SlideMasks(path, group)
    except (KeyError, ValueError, TypeError, OSError, json.JSONDecodeError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove it and make it again") from error


def _plain(value: Any) -> Any:
    """Numpy values as JSON knows them."""
    return value.tolist() if isinstance(value, np.ndarray) else value
