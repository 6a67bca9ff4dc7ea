"""Object masks of a slide in zarr 3, one bit per pixel, schema ``xpath.masks/1``.

Axes: N patches, L labels, H W pixels of a patch (square). The arrays of ``masks.zarr``:

* ``masks`` uint8 ``(N, L, H, ceil(W / 8))``: a byte holds eight neighbours of a row, the leftmost
  in its highest bit (``numpy.packbits`` in its default order), the row filled up with zeros. A
  chunk is one mask, so that one can be read alone; a file (shard) is all labels of up to 256
  patches, as its metadata say (16 in files of earlier versions).
  Its attribute ``reduce`` (1, 2 or 4; 1 where it is missing) tells how many pixels of the patch,
  as it was segmented, a pixel of the mask stands for along each axis; either way a mask covers its
  patch from border to border, ``footprint / size`` level-0 pixels to a pixel.
* ``presence`` float32 ``(N, L)``, ``area`` int64 ``(N, L)`` in pixels of the mask, ``coords``
  int64 ``(N, 2)`` with the attributes of ``xpath.store.grids``.
* ``label_probability`` float64, ``label_present`` and ``label_taught`` bool ``(L,)``,
  ``overlap_before`` and ``overlap_after`` int64 ``(L, L)``: see ``xpath.store.label_facts``. Files
  of earlier versions have none of them.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xpath.errors import ConfigError, DataError, StoreError
from xpath.shapes import check_shape
from xpath.store.grids import grid_attributes, grid_from_attributes
from xpath.store.label_facts import LabelFacts, unknown_facts
from xpath.store.reduction import reduced_bits
from xpath.store.schema import (
    FULL,
    MASKS,
    atomic,
    check_schema,
    damage_refused,
    name_unknown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid

__all__ = ["REDUCTIONS", "MaskWriter", "SlideMasks", "open_masks"]

FACTS = {
    "probability": "label_probability",
    "present": "label_present",
    "taught": "label_taught",
    "before": "overlap_before",
    "after": "overlap_after",
}
"""Arrays of ``LabelFacts``."""
ARRAYS = ("masks", "presence", "area", "coords", *FACTS.values())
ATTRIBUTES = ("schema", "labels", "size", "reduce", "provenance")
MOST_PATCHES = 256
"""Patches per file at most: disks of clusters count files, and a slide has many patches."""
MOST_BYTES = 128 << 20
"""Of packed masks per file at most: they are held in memory until the file is written."""
REDUCTIONS = (1, 2, 4)
"""Pixels along each axis that one pixel of a stored mask may stand for."""


class MaskWriter:
    """Writes masks batch by batch. The folder appears when all patches are there.

    Example::

        with MaskWriter(path, grid=grid, labels=ids, size=256, provenance={}) as writer:
            writer.write_packed(0, numpy.packbits(masks, axis=-1), presence)
    """

    def __init__(
        self,
        path: Path,
        *,
        grid: PatchGrid,
        labels: Sequence[str],
        size: int,
        provenance: Mapping[str, str],
        reduce: int = 1,
    ) -> None:
        """Takes what is known before the first mask.

        Args:
            path: The folder, ``masks.zarr``; replaced if it exists.
            grid: Where the patches lie, N of them.
            labels: Label ids, L of them.
            size: Side in pixels of the masks that will come; need not be that of the patch.
            provenance: Prompts, segmentor and its SHA-256, configuration digest.
            reduce: Store masks at 1/1, 1/2 or 1/4 of that: a pixel is in where at least half of
                those it stands for are.

        Raises:
            ConfigError: Another reduction, or one that does not divide the side.
            DataError: No patches, no labels, a label twice, or masks without pixels.
        """
        if not len(grid) or not labels or size <= 0:
            raise DataError(
                f"{path}: masks need patches, labels and a size, got {len(grid)} patches,"
                f" {len(labels)} labels and {size} px"
            )
        if len(set(labels)) < len(labels):
            raise DataError(f"{path}: a label is asked for twice: {sorted(labels)}")
        if reduce not in REDUCTIONS or size % reduce:
            raise ConfigError(
                f"{path}: masks of {size} px cannot be reduced by {reduce}; choose one of"
                f" {REDUCTIONS} that divides the side of the patches"
            )
        self._path, self._grid, self._labels = path, grid, tuple(labels)
        self.facts: LabelFacts | None = None
        """What is known of each label; set before the end, or every label with a pixel is there."""
        self._given, self._reduce, self._size = size, reduce, size // reduce
        self._provenance = dict(provenance)
        self._exit = ExitStack()
        width = -(-self._size // 8)
        count = _patches_per_file(len(grid), len(labels) * self._size * width)
        self._buffer = np.empty((count, len(labels), self._size, width), np.uint8)
        self._buffered = self._written = 0
        self._presence = np.zeros((len(grid), len(labels)), np.float32)
        self._area = np.zeros((len(grid), len(labels)), np.int64)
        self._group: Any = None
        self._masks: Any = None

    @property
    def path(self) -> Path:
        """The folder that is written."""
        return self._path

    def __enter__(self) -> Self:
        """Starts a draft beside the final path."""
        import zarr

        with ExitStack() as stack:
            draft = stack.enter_context(atomic(self._path))
            self._group = zarr.open_group(draft, mode="w-", zarr_format=3)
            self._masks = self._group.create_array(
                "masks",
                shape=(len(self._grid), *self._buffer.shape[1:]),
                chunks=(1, 1, *self._buffer.shape[2:]),
                shards=self._buffer.shape,
                dtype="uint8",
                **_storage(),
            )
            self._exit = stack.pop_all()
        return self

    def write(self, start: int, masks: NDArray[np.bool_], presence: NDArray[np.float32]) -> None:
        """Adds the next patches, whose masks ``(B, L, H, W)`` are boolean, as ``write_packed``."""
        check_shape("masks", masks, "B L H W", L=len(self._labels), H=self._given, W=self._given)
        if masks.dtype != np.bool_:
            raise DataError(f"{self._path}: masks must be bool, got {masks.dtype}; threshold them")
        self.write_packed(start, np.packbits(masks, axis=-1), presence)

    def write_packed(
        self, start: int, packed: NDArray[np.uint8], presence: NDArray[np.float32]
    ) -> None:
        """Adds the next patches.

        Args:
            start: Index of the first of them; batches come in order, without gaps.
            packed: Bits ``(B, L, H, ceil(W / 8))`` of masks at full resolution, as the file has
                them: the leftmost of eight neighbours highest, rows filled up with zeros.
            presence: ``(B, L)`` score of each mask.

        Raises:
            DataError: Out of order, not bits, NaN presence.
            ShapeError: Of another shape, or more patches than the grid has.
            StoreError: The disk is full.
        """
        known = {"L": len(self._labels), "H": self._given, "w": -(-self._given // 8)}
        count = check_shape("packed", packed, "B L H w", **known)["B"]
        check_shape("presence", presence, "B L", B=count, L=len(self._labels))
        beyond = (1 << -self._given % 8) - 1
        if packed.dtype != np.uint8 or (beyond and (packed[..., -1] & beyond).any()):
            raise DataError(
                f"{self._path}: bits must be uint8 with zeros beyond the last pixel of a row, got"
                f" {packed.dtype}; pack them with numpy.packbits(masks, axis=-1)"
            )
        if not np.isfinite(presence).all():
            raise DataError(f"{self._path}: presence of patches from {start} on has NaN")
        wanted, stop = self._written + self._buffered, start + count
        if start != wanted or stop > len(self._grid):
            raise DataError(
                f"{self._path}: patches must come in order, {wanted} is next of"
                f" {len(self._grid)}, got {start} to {stop}"
            )
        packed = reduced_bits(packed, self._given, self._reduce)
        self._presence[start:stop] = presence
        self._area[start:stop] = _area(packed)
        while len(packed):
            fitting = packed[: len(self._buffer) - self._buffered]
            self._buffer[self._buffered : self._buffered + len(fitting)] = fitting
            self._buffered += len(fitting)
            packed = packed[len(fitting) :]
            if self._buffered == len(self._buffer):
                self._flush()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Completes the folder, or leaves nothing behind."""
        if error is None:
            with self._exit.pop_all(), self._room():
                self._finish()
        else:
            self._exit.__exit__(error_type, error, trace)

    def _finish(self) -> None:
        if self._written + self._buffered < len(self._grid):
            count = self._written + self._buffered
            raise DataError(f"{self._path}: only {count} of {len(self._grid)} patches were written")
        if self._buffered:
            self._flush()
        coords = np.asarray(self._grid.coords, np.int64)
        small: dict[str, NDArray[Any]] = {
            "presence": self._presence,
            "area": self._area,
            "coords": coords,
        }
        facts = self.facts or unknown_facts(self._area)
        small |= {FACTS[name]: np.asarray(value) for name, value in facts._asdict().items()}
        for name, data in small.items():
            self._group.create_array(name, data=data, chunks=data.shape, **_storage())
        attributes = grid_attributes(self._grid, self._provenance.get("slide_id", ""))
        self._group["coords"].attrs.update({key: _plain(it) for key, it in attributes.items()})
        self._group.attrs.update(
            schema=MASKS,
            labels=list(self._labels),
            size=self._size,
            reduce=self._reduce,
            provenance=self._provenance,
        )

    def _flush(self) -> None:
        """Writes a whole shard, or the last, so that none is ever read and written again."""
        stop = self._written + self._buffered
        with self._room():
            self._masks[self._written : stop] = self._buffer[: self._buffered]
        self._buffered, self._written = 0, stop

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Tells how much is missing when the disk is full.

        Masks shrink to a few percent when they are compressed, so a disk is not refused before it
        is full; only the most that may still come is known.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            patch = len(self._labels) * self._size * -(-self._size // 8)
            most = (len(self._grid) - self._written) * patch / 1e6
            free = shutil.disk_usage(self._path.parent).free / 1e6
            raise StoreError(
                f"the disk is full; {self._path} was not written: {self._written} of"
                f" {len(self._grid)} patches were, the rest needs {most:,.1f} MB at most (less,"
                f" once compressed) and {free:,.1f} MB are free; free some space and try again"
            ) from error


class SlideMasks:
    """Masks of a slide, opened by ``open_masks`` and read on demand."""

    def __init__(self, path: Path, group: Any) -> None:
        """Reads all but the masks themselves, and checks that everything is there."""
        coords = group["coords"]
        self.path = path
        self.grid: PatchGrid = grid_from_attributes(coords[:], dict(coords.attrs))
        self.labels: tuple[str, ...] = tuple(group.attrs["labels"])
        """Label ids, L of them."""
        self.size = int(group.attrs["size"])
        """Side of a mask in pixels. A mask covers its patch from border to border."""
        self.reduce = int(group.attrs.get("reduce", 1))
        """Pixels it was segmented at, along each axis, per pixel of the mask."""
        self.provenance: dict[str, str] = dict(group.attrs["provenance"])
        self.presence: NDArray[np.float32] = group["presence"][:]
        """``(N, L)`` score of each mask, 0 where it is empty."""
        self.area: NDArray[np.int64] = group["area"][:]
        """``(N, L)`` pixels of each mask."""
        self._has_facts = any((path / array).is_dir() for array in FACTS.values())
        self.facts: LabelFacts = (
            LabelFacts(**{name: group[array][:] for name, array in FACTS.items()})
            if self._has_facts
            else unknown_facts(self.area)
        )
        """Facts about the labels on the slide as a whole."""
        self._masks = group["masks"]
        table = (len(self.grid), len(self.labels))
        shapes = (self._masks.shape, self.area.shape, self.presence.shape)
        wanted = ((*table, self.size, -(-self.size // 8)), table, table)
        if shapes != wanted or self.reduce not in REDUCTIONS or not self._masks.shards:
            raise StoreError(f"{path} contradicts itself; remove it and make it again")
        self._check_files()

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.grid)

    def read(self, patches: int | slice | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks ``(L, H, W)`` of one patch, or ``(n, L, H, W)`` of several.

        Raises:
            IndexError: No such patch.
            StoreError: A part of the file is damaged.
        """
        index = np.arange(len(self))[patches]
        if not index.ndim:
            one: NDArray[np.bool_] = self.read(index[None])[0]
            return one
        if not len(index):
            return np.zeros((0, len(self.labels), self.size, self.size), np.bool_)
        with damage_refused(self.path):
            packed = self._packed(index)
        if not np.array_equal(_area(packed), self.area[index]):
            raise StoreError(
                f"{self.path} is damaged: masks have other areas than they were written with;"
                " remove it and make it again"
            )
        masks: NDArray[np.bool_] = np.unpackbits(packed, axis=-1, count=self.size).view(np.bool_)
        return masks

    def _packed(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Bit-packed masks of several patches."""
        first, last = int(index[0]), int(index[-1])
        if np.array_equal(index, np.arange(first, last + 1)):
            packed: NDArray[np.uint8] = self._masks[first : last + 1]
            return packed
        # one by one: zarr's own selection by index decodes the shards it touches many times
        return np.stack([self._masks[int(patch)] for patch in index])

    def _check_files(self) -> None:
        """A file that is missing would be read as zeros without a word."""
        count = -(-len(self) // self._masks.shards[0])
        shards = [f"masks/c/{number}/0/0/0" for number in range(count)]
        one = ("probability", "present", "taught")
        facts = [
            f"{array}/c/0" if name in one else f"{array}/c/0/0" for name, array in FACTS.items()
        ]
        tables = ["presence/c/0/0", "area/c/0/0", "coords/c/0/0", *facts * self._has_facts]
        for name in [*tables, *shards]:
            if not (self.path / name).is_file():
                raise StoreError(f"{self.path} lacks {name}; remove it and make it again")


def open_masks(path: Path) -> SlideMasks:
    """Opens ``masks.zarr``.

    Raises:
        StoreError: Missing, truncated, or not ours.
    """
    import zarr

    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} is no folder of masks (zarr 3); check the path or segment first")
    with damage_refused(path):
        group = zarr.open_group(path, mode="r", zarr_format=3)
        check_schema(path, group.attrs.get("schema"), MASKS)
        arrays = [entry.name for entry in path.iterdir() if entry.is_dir()]
        name_unknown(path, [*arrays, *group.attrs], [*ARRAYS, *ATTRIBUTES])
        return SlideMasks(path, group)


def _patches_per_file(patches: int, size: int) -> int:
    """As many as fit, but no file much emptier than the others: zarr fills the last one up.

    Args:
        patches: Of the slide.
        size: Bytes of the packed masks of a patch.
    """
    most = max(1, min(MOST_PATCHES, MOST_BYTES // size))
    return -(-patches // -(-patches // most))


def _storage() -> dict[str, Any]:
    """Storage of chunks: no shuffle, which hurts packed bits, a checksum, and empty chunks too."""
    from zarr.codecs import ZstdCodec

    return {
        "compressors": ZstdCodec(level=3, checksum=True),
        "config": {"write_empty_chunks": True},  # so that a missing file is told from an empty one
    }


def _area(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """``(B, L)`` pixels of bit-packed masks ``(B, L, H, W/8)``."""
    area: NDArray[np.int64] = np.bitwise_count(packed).sum(axis=(2, 3), dtype=np.int64)
    return area


def _plain(value: Any) -> Any:
    """Numpy values as JSON knows them."""
    return value.tolist() if isinstance(value, np.ndarray) else value
