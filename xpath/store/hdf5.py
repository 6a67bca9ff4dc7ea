"""The door to HDF5: files appear whole, and damaged ones are refused by name."""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from xpath.errors import StoreError
from xpath.store.schema import atomic, check_schema, damage_refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["create_h5", "open_h5"]


@contextmanager
def create_h5(path: Path, schema: str) -> Iterator[Any]:  # an h5py.File, which has no types
    """A new HDF5 file to fill, which is on disk when the block ends well.

    It is put together in memory, so it costs its own size there: when the disk runs full under
    HDF5, the library crashes the process instead of raising. Equal content gives equal bytes: the
    format is pinned to the oldest one, which every HDF5 reads, and no times are stored.

    Args:
        path: The file; replaced if it exists.
        schema: Name and version, kept as attribute ``schema``.

    Raises:
        StoreError: The disk is full.
    """
    import h5py

    image = BytesIO()
    with h5py.File(image, "w", libver="earliest") as file:
        file.attrs["schema"] = schema
        yield file
    with atomic(path) as draft:
        draft.write_bytes(image.getbuffer())


@contextmanager
def open_h5(
    path: Path, schema: str, *, remedy: str = "make it again"
) -> Iterator[Any]:  # an h5py.File, which has no types
    """An HDF5 file of ours for reading.

    Args:
        path: The file.
        schema: Name and version it must have.
        remedy: What to do about a file of another version.

    Raises:
        StoreError: Missing, truncated, not HDF5, another schema; or the block met damage.
    """
    import h5py

    try:
        # our files never change in place, and some network file systems know no locks
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; make it first, or check the path") from error
    except OSError as error:
        raise StoreError(
            f"{path} is truncated or no HDF5 file ({error}); remove it and make it again"
        ) from error
    with file, damage_refused(path):
        check_schema(path, file.attrs.get("schema"), schema, remedy=remedy)
        yield file
