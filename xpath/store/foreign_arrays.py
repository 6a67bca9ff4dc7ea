"""Arrays in files that others wrote: whole, of a size the file can have, in a type torch knows.

Axes: N patches, D features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["REMEDY", "native_rows", "read_values", "refuse_bomb", "rows_of"]

REMEDY = "look at it with the program that wrote it, or extract its features again"
LARGEST = 1 << 30
"""Bytes of features that any file may unpack to; a larger one may unpack to 100 times its size."""


def read_values(path: Path, dataset: Any) -> NDArray[Any]:
    """All values of an array in a file, if the file can hold so many and does.

    Args:
        path: The file or folder, for messages.
        dataset: An array of h5py or zarr.

    Raises:
        StoreError: It cannot, parts of it were never written, or what is there is no array.
    """
    if getattr(dataset, "shape", None) is None:
        raise StoreError(
            f"{path} has an empty array or a group where features or coordinates of patches are"
            " looked for, wanted arrays (N, D) and (N, 2)"
        )
    refuse_bomb(path, math.prod(dataset.shape) * dataset.dtype.itemsize)
    there, wanted = _written(dataset)
    if there < wanted:
        raise StoreError(
            f"{path} has {there} of {wanted} parts of {dataset.name}, and would be read as 0 where"
            f" one is missing; was it copied or written to its end? {REMEDY}"
        )
    values: NDArray[Any] = dataset[()]
    return values


def refuse_bomb(path: Path, wanted: int) -> None:
    """Refuses a file that would unpack to far more than it holds.

    Args:
        path: The file or folder.
        wanted: Bytes it would unpack to.

    Raises:
        StoreError: It would.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    held = sum(file.stat().st_size for file in files if file.is_file())
    if wanted > LARGEST + 100 * held:
        raise StoreError(
            f"{path} has {held} bytes and claims to hold {wanted} of features; {REMEDY}"
        )


def native_rows(features: NDArray[Any]) -> NDArray[Any]:
    """Rows ``(N, D)`` in a type torch knows: the byte order of this machine, 8 bytes at most."""
    rows = rows_of(np.asarray(features))
    if rows.dtype.kind != "f":
        return rows
    native = np.float64 if rows.dtype.itemsize > 8 else rows.dtype.newbyteorder("=")
    return np.ascontiguousarray(rows, native)


def rows_of(array: NDArray[Any]) -> NDArray[Any]:
    """Without the leading axis of length one that some pipelines leave on CLAM's arrays."""
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def _written(dataset: Any) -> tuple[int, int]:
    """Parts of an array that are in the file, and that there should be.

    Parts that are not there are read as zeros, without a word: so zarr ends where a copy did, and
    HDF5 where its writer was killed.
    """
    if hasattr(dataset, "nchunks_initialized"):
        return dataset.nchunks_initialized, dataset.nchunks
    if not dataset.size or dataset.is_virtual or dataset.external:
        return 0, 0
    if dataset.chunks is None:
        return int(dataset.id.get_storage_size() > 0), 1
    counts = map(lambda whole, part: -(-whole // part), dataset.shape, dataset.chunks)
    return dataset.id.get_num_chunks(), math.prod(counts)
