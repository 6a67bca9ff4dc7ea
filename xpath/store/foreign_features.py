"""Patch features that other toolkits wrote: CLAM, TRIDENT, STAMP, LazySlide (wsidata), and ours.

What is read is the published layout of each; which it is, is seen from the file. Axes: N patches,
D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xpath.errors import DataError, ShapeError, StoreError, XPathError
from xpath.store.foreign_arrays import REMEDY, native_rows, read_values, refuse_bomb, rows_of
from xpath.store.names import FEATURE_SUFFIXES, plain_name
from xpath.store.schema import FEATURES, damage_refused, first_line
from xpath.store.trial import try_h5

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["PatchFeatures", "find_feature_files", "read_patch_features"]

STAMP_UM = 256.0
"""Side of STAMP's tiles, microns, where an early file does not say."""
STAMP_PIXELS = 224
"""In files of the first STAMP coordinates are counted in tiles of so many pixels."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class PatchFeatures:
    """Features of the patches of a slide, and where the patches lie if that is known."""

    slide_id: str
    """The file's name without suffix, as label tables of all these toolkits have it."""
    layout: Literal["clam", "trident", "stamp", "wsidata", "xpath"]
    """Who wrote it."""
    features: NDArray[np.floating[Any]]
    """``(N, D)``, in the precision stored; a leading axis of one slide is dropped."""
    coords: NDArray[np.float64] | None = None
    """``(N, 2)`` x, y of the top left corners in ``unit``, None where they are not in the file."""
    unit: Literal["level0", "um"] = "level0"
    """Pixels of level 0, or microns (STAMP)."""
    side: float | None = None
    """Side of a patch in ``unit``, None where it is not in the file (CLAM's features)."""
    encoder: str = ""
    """Name of the encoder, empty where it is not in the file."""

    def __post_init__(self) -> None:
        """Refuses what cannot be features of patches.

        Raises:
            DataError: No patches, another type, NaN or infinity; the patch is named.
            ShapeError: Features not ``(N, D)``, or not one pair of coordinates per patch.
        """
        object.__setattr__(self, "features", native_rows(self.features))
        if self.features.size == 0:
            raise DataError(f"slide {self.slide_id} has no patches; drop it, or patch it again")
        if self.features.ndim != 2:
            raise ShapeError(
                f"features of slide {self.slide_id} must be (N, D), one row per patch, got"
                f" {self.features.shape}; a file of slide features cannot train a classifier"
            )
        if not np.issubdtype(self.features.dtype, np.floating):
            raise DataError(
                f"features of slide {self.slide_id} must be floating, got {self.features.dtype}"
            )
        if self.coords is not None and self.coords.shape != (len(self.features), 2):
            raise ShapeError(
                f"slide {self.slide_id} has features of {len(self.features)} patches but"
                f" coordinates of shape {self.coords.shape}; the files do not belong together"
            )
        with np.errstate(over="ignore"):  # classifiers compute in single precision
            finite = np.isfinite(self.features.astype(np.float32, copy=False)).all(axis=1)
        if not finite.all():
            raise DataError(
                f"features of slide {self.slide_id} have NaN, infinity or a value beyond 3e38 in"
                f" patch {int(np.argmin(finite))} and {int((~finite).sum()) - 1} others; extract"
                " them again, in single precision if they were extracted in half"
            )


def find_feature_files(folder: Path) -> dict[str, Path]:
    """Feature files of a folder by slide id, in the order of their names.

    Takes CLAM's folder of features (with ``h5_files`` and ``pt_files``), TRIDENT's
    ``features_<encoder>`` or a job folder that holds just one of these, STAMP's folder of an
    extractor, a folder of LazySlide's ``.zarr``, a run of xpath (``slides/ID/features.h5``), or any
    folder of such files.

    Raises:
        DataError: Not a folder, no such files in it, or a job folder of several encoders.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; pass the folder that holds the feature files")
    ours = {path.parent.name: path for path in sorted(folder.glob("slides/*/features.h5"))}
    if ours:
        return ours
    subfolders = [folder / name for name in ("h5_files", "pt_files") if (folder / name).is_dir()]
    nested = [
        path
        for pattern in ("features_*", "patch_features_*", "*/features_*", "*/patch_features_*")
        for path in sorted(folder.glob(pattern))
        if path.is_dir() and path.suffix.lower() not in FEATURE_SUFFIXES
    ]
    if not subfolders and len(nested) > 1:
        names = [str(path.relative_to(folder)) for path in nested]
        raise DataError(f"{folder} has features of several encoders; pass one of {names}")
    files = _by_name(path for home in subfolders or nested or [folder] for path in _below(home))
    if not files:
        raise DataError(
            f"{folder} holds no feature files; looked for {', '.join(FEATURE_SUFFIXES)} there and"
            " below, in h5_files and pt_files (CLAM) and in features_<encoder> (TRIDENT)"
        )
    return files


def _below(folder: Path) -> Iterator[Path]:
    """Feature files in a folder and its sub-folders, which STAMP takes over from the slides.

    Links are followed, but no folder is entered twice.
    """
    waiting, entered = [folder], {folder.resolve()}
    while waiting:
        for path in waiting.pop().iterdir():
            if path.name.startswith("."):
                continue
            if path.suffix.lower() in FEATURE_SUFFIXES:
                yield path
            elif path.is_dir() and path.resolve() not in entered:
                entered.add(path.resolve())
                waiting.append(path)


def _by_name(files: Iterable[Path]) -> dict[str, Path]:
    """Files by slide, of several suffixes the preferred one.

    Raises:
        DataError: Two files of one suffix are of one slide.
    """
    by_name: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (FEATURE_SUFFIXES.index(path.suffix.lower()), path)):
        other = by_name.setdefault(plain_name(path.name), path)
        if other != path and other.suffix.lower() == path.suffix.lower():
            raise DataError(
                f"{other} and {path} are both features of {plain_name(path.name)!r}; pass the"
                " folder of one encoder, or rename or remove one of them"
            )
    return dict(sorted(by_name.items()))


def read_patch_features(path: Path, *, table: str | None = None) -> PatchFeatures:
    """Reads a feature file of any of the toolkits.

    Args:
        path: ``.h5`` (CLAM, TRIDENT, STAMP, xpath), ``.pt`` (CLAM) or ``.zarr`` (wsidata).
        table: For wsidata: which table, ``<model>_<tiles>``, where a slide has several.

    Raises:
        DataError: No patches, NaN, or a zarr of several tables and none chosen.
        ShapeError: Not one row of features, or not one coordinate, per patch.
        StoreError: Missing, damaged, or none of the layouts; the message says what is in it.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist; check the path")
    suffix = path.suffix.lower()
    if path.is_dir() != (suffix == ".zarr") and suffix in FEATURE_SUFFIXES:
        got, wanted = ("folder", "file") if path.is_dir() else ("file", "folder")
        raise StoreError(f"{path} is a {got}, and a {suffix} of features is a {wanted}")
    if suffix not in FEATURE_SUFFIXES:
        raise StoreError(
            f"{path} is no feature file; known suffixes are {', '.join(FEATURE_SUFFIXES)}"
        )
    with damage_refused(path, REMEDY, passed_on=XPathError):
        if suffix == ".pt":
            return _read_pt(path)
        if suffix == ".zarr":
            return _read_wsidata(path, table)
        return _read_h5(path)


def _read_pt(path: Path) -> PatchFeatures:
    """CLAM's ``pt_files/<slide>.pt``: one tensor ``(N, D)``."""
    from pickle import UnpicklingError

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise StoreError(
            f"{path} cannot be read as a tensor, and other objects are not loaded because"
            f" they can run code ({first_line(error)})"
        ) from error
    if not isinstance(content, torch.Tensor):
        raise StoreError(
            f"{path} holds a {type(content).__name__}, wanted CLAM's layout: one tensor (N, D)"
        )
    if content.layout != torch.strided or not content.is_floating_point():
        raise StoreError(
            f"{path} holds a tensor of {content.layout} and {content.dtype}, wanted dense floating"
            " features (N, D)"
        )
    refuse_bomb(path, content.numel() * content.element_size())
    numpy_has_it = content.dtype in (torch.float16, torch.float32, torch.float64)
    plain = content.detach().resolve_neg()
    plain = plain if numpy_has_it else plain.float()
    return PatchFeatures(
        slide_id=plain_name(path.name), layout="clam", features=plain.contiguous().numpy()
    )


def _read_h5(path: Path) -> PatchFeatures:
    """A file of CLAM, TRIDENT, STAMP or xpath, told apart by the names of its datasets."""
    import h5py

    try_h5(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise StoreError(
            f"{path} is truncated or no HDF5 file ({error}); extract its features again"
        ) from error
    values: dict[str, Any] = {}
    with file:
        names = sorted(file)
        if {"feats", "patch_embeddings"} & set(names):
            values = _stamp(path, file)
        elif "features" in names:
            values = _clam_or_trident(path, file)
    if not values:
        raise StoreError(
            f"{path} holds {names}, wanted `features` (CLAM, TRIDENT, xpath) or `feats` (STAMP); if"
            " these are coordinates only, extract the features first"
        )
    return PatchFeatures(slide_id=plain_name(path.name), **values)


def _clam_or_trident(path: Path, file: Any) -> dict[str, Any]:
    """Both have ``features`` and ``coords``, but only TRIDENT describes them."""
    features = file["features"]
    coords = file.get("coords")
    about = {} if coords is None else dict(coords.attrs)
    trident = "patch_size_level0" in about or "encoder" in features.attrs
    ours = file.attrs.get("schema") == FEATURES
    side = about.get("patch_size_level0")
    return {
        "layout": "xpath" if ours else "trident" if trident else "clam",
        "features": read_values(path, features),
        "coords": None if coords is None else rows_of(read_values(path, coords)).astype(np.float64),
        "side": _side(side),
        "encoder": _text(features.attrs.get("encoder", "")),
    }


def _stamp(path: Path, file: Any) -> dict[str, Any]:
    """Early files have neither unit nor size: their tiles are 224 wide and mean 256 microns."""
    features = read_values(path, file["feats" if "feats" in file else "patch_embeddings"])
    coords, side = None, None
    if "coords" in file:
        coords = rows_of(read_values(path, file["coords"])).astype(np.float64)
        side = _side(file.attrs.get("tile_size_um", file.attrs.get("tile_size")))
        in_um = "tile_size_um" in file.attrs or _text(file.attrs.get("unit", "")) == "um"
        if not in_um and round(_stride(coords) if side is None else side) == STAMP_PIXELS:
            coords, side = coords * (STAMP_UM / STAMP_PIXELS), STAMP_UM
        elif not in_um:
            coords, side = None, None  # in a unit nobody wrote down
    return {
        "layout": "stamp",
        "features": features,
        "coords": coords,
        "unit": "um",
        "side": side,
        "encoder": _text(file.attrs.get("extractor", "")),
    }


def _read_wsidata(path: Path, table: str | None) -> PatchFeatures:
    """The table ``<model>_<tiles>`` of a SpatialData store, an AnnData with a dense ``X``.

    Coordinates are in a Parquet file beside it, which takes other packages to read.
    """
    import zarr

    try:
        root: Any = zarr.open(path, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is no zarr store ({error}); extract its features again"
        ) from error
    if hasattr(root, "shape"):
        raise StoreError(
            f"{path} is an array {root.shape}, wanted a store of LazySlide with tables of features"
        )
    tables = root.get("tables", {})
    known = [name for name in sorted(tables) if _is_of_tiles(name, tables[name])]
    if table is None and len(known) > 1:
        raise DataError(
            f"{path} has several tables of features, choose one with --table (table= in Python):"
            f" {', '.join(known)}"
        )
    chosen = table or (known[0] if known else "")
    if chosen not in known:
        raise StoreError(
            f"{path} has no {f'table {table!r}' if table else 'table'} of tile features; it has"
            f" {', '.join(known or sorted(tables)) or f'no tables, but {sorted(root) or None}'}"
        )
    tiles = str(tables[chosen].attrs["region"])
    features = np.asarray(read_values(path, tables[chosen]["X"]))
    side = _tile_side(root, tiles)
    return PatchFeatures(
        slide_id=plain_name(path.name),
        layout="wsidata",
        features=features,
        side=side,
        encoder=chosen.removesuffix(f"_{tiles}"),
    )


def _is_of_tiles(name: str, group: Any) -> bool:
    """Tables of cells and of slides are named otherwise, and sparse ones hold no features."""
    region = group.attrs.get("region")
    return bool(region) and name.endswith(f"_{region}") and hasattr(group.get("X"), "shape")


def _tile_side(root: Any, tiles: str) -> float | None:
    """Level-0 pixels a side, as wsidata cuts them."""
    try:
        spec = root.attrs["tile_spec"][tiles]
        return float(int(spec["height"] * spec["base_downsample"]))
    except (KeyError, TypeError, ValueError):  # not written, or otherwise
        return None


def _side(value: Any) -> float | None:
    """A length as it stands in an attribute, None where it is no single positive number."""
    try:
        side = float(np.ravel(value)[0] if np.size(value) == 1 else value)
    except (TypeError, ValueError):
        return None
    return side if 0 < side < math.inf else None


def _stride(coords: NDArray[np.float64]) -> float:
    """Smallest step between tiles, 0 for a single one."""
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in coords.T])
    return float(steps.min(initial=np.inf)) if len(steps) else 0.0


def _text(value: Any) -> str:
    """An attribute, whether it was written as text or as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
