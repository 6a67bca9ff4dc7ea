"""Readers of the formats that sources are published in. Errors name the path and what to do.

Axes: H W pixels, K polygon points.
"""

from __future__ import annotations

import csv
import json
import os
import re
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.decoding import decode_picture
from xpath.pathseg.record import Annotated, LabelMask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "absent_labels",
    "annotated_with",
    "check_same_size",
    "file_safe",
    "fill_polygons",
    "folder_with",
    "list_files",
    "masks_of_classes",
    "read_array",
    "read_gray",
    "read_image",
    "read_json",
    "read_label_map",
    "read_mat",
    "read_pair",
    "read_table",
    "read_tiff",
    "read_xml",
    "refuse_damage",
    "too_few",
    "unpaired",
    "where_any",
]


@contextmanager
def refuse_damage(path: Path, expected: str) -> Iterator[None]:
    """Names the file where decoding meets damage.

    Args:
        path: The file.
        expected: Format it should have, for the message.

    Raises:
        DataError: Missing, truncated or of another format.
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist; wanted {expected}: unpack the archive again or remove what "
            "belongs to it"
        ) from error
    except Exception as error:  # decoders raise whatever they like on damage
        raise DataError(
            f"{path} is truncated or no {expected} ({type(error).__name__}: {error}); download it "
            "again, or remove it to go on without it"
        ) from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """Pixels ``(H, W, 3)`` of an RGB image: PNG, BMP, JPEG or plain TIFF.

    What is transparent lies on white. Of several pages the first is read, pixels are not turned
    where EXIF asks viewers to, and warnings say so.

    Raises:
        DataError: The file is missing or damaged, has pixels that are not of 8 bits a colour and
            cannot be shown so, or a page for each colour.
    """
    return np.array(_decoded(path, "RGB"), dtype=np.uint8)


def read_gray(path: Path) -> NDArray[np.uint8]:
    """Brightness ``(H, W)`` of an image, for masks stored as JPEG, which have no exact values.

    Raises:
        DataError: The file is missing or damaged.
    """
    return np.array(_decoded(path, "L"), dtype=np.uint8)


def read_label_map(path: Path) -> NDArray[np.integer]:
    """Values ``(H, W)`` of a mask, in the type they are stored in.

    Palette images give their indices, images of one bit 0 and 1.

    Raises:
        DataError: The file is missing or damaged, its colour channels differ (a picture, no mask),
            or a value is no whole number.
    """
    values = np.array(_decoded(path, None))
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise DataError(
                f"{path} has colours; wanted a mask with one value per pixel: check that image "
                "and mask are not swapped"
            )
        values = colours[..., 0]
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # of NaN and infinity, which differ then
            whole = values.astype(np.int64)
        if (whole != values).any():
            raise DataError(f"{path} has values that are no whole numbers, so it is no label map")
        values = whole
    return values.astype(np.uint8) if values.dtype == bool else values


def _decoded(path: Path, mode: str | None) -> Any:  # a PIL image, which we only turn into an array
    """A PIL image, decoded to the end."""
    with refuse_damage(path, "image"):
        return decode_picture(path, mode)


def read_pair(image_path: Path, mask_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """An RGB image ``(H, W, 3)`` and the values ``(H, W)`` of its mask.

    Raises:
        DataError: A file is missing or damaged, or sizes differ.
    """
    image, values = read_image(image_path), read_label_map(mask_path)
    check_same_size(mask_path, values.shape, image_path, image.shape)
    return image, values


def read_tiff(path: Path) -> NDArray[np.uint8]:
    """Pixels ``(H, W, 3)`` of the first page of a TIFF or SVS, tiled or compressed as it may be.

    Raises:
        DataError: The file is missing, damaged, or its first page is no 8-bit RGB image.
    """
    import tifffile

    with refuse_damage(path, "TIFF"):
        pixels = np.asarray(tifffile.imread(path, key=0))
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype != np.uint8:
        raise DataError(
            f"{path} holds {pixels.dtype} {pixels.shape}; wanted 8-bit RGB (H, W, 3): take the "
            "file as distributed"
        )
    return np.ascontiguousarray(pixels[..., :3])


def read_array(path: Path, *, lazy: bool = False) -> NDArray[Any]:
    """An array of an NPY file, never of a pickle.

    Args:
        path: The file.
        lazy: Map it into memory and read only what is indexed.

    Raises:
        DataError: The file is missing, damaged or holds Python objects.
    """
    with refuse_damage(path, "NPY array"):
        return np.asanyarray(np.load(path, mmap_mode="r" if lazy else None, allow_pickle=False))


def read_mat(path: Path, *keys: str) -> tuple[NDArray[Any], ...]:
    """Arrays of a MATLAB file (up to version 7), in the order asked for.

    Raises:
        DataError: The file is missing or damaged, or lacks a variable.
    """
    from scipy.io import loadmat

    with refuse_damage(path, "MATLAB file"), path.open("rb") as stream:
        content = loadmat(stream, variable_names=list(keys))
    for key in keys:
        if key not in content:
            raise DataError(f"{path} has no variable {key!r}; take the file as distributed")
    return tuple(np.asarray(content[key]) for key in keys)


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: The file is missing or damaged.
    """
    with refuse_damage(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a CSV file: names and values without the blanks around them, gaps as "".

    Raises:
        DataError: The file is missing or damaged, or lacks a column.
    """
    with refuse_damage(path, "CSV table"):
        text = path.read_text(encoding="utf-8-sig")
        rows = csv.reader(text.splitlines())
        header = [name.strip() for name in next(rows, [])]
    for column in columns:
        if column not in header:
            raise DataError(
                f"{path} has no column {column!r}, only {', '.join(header) or 'nothing'}; take "
                "the file as distributed"
            )
    values = ([cell.strip() for cell in row] for row in rows if any(row))
    return [dict(zip_longest(header, row[: len(header)], fillvalue="")) for row in values]


def read_xml(path: Path) -> ET.Element:
    """Root element of an XML file.

    Raises:
        DataError: The file is missing or damaged.
    """
    with refuse_damage(path, "XML"):
        text = path.read_bytes()
        if b"<!ENTITY" in text:  # none of the sources has any, and they can blow up memory
            raise DataError(f"{path} declares entities; take the file as distributed")
        return ET.fromstring(text)


def fill_polygons(
    polygons: Sequence[NDArray[np.floating]], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` within any of the polygons, their outline included.

    Args:
        polygons: Each ``(K, 2)``, x then y in pixels; fewer than three points cover nothing.
        size: Height and width.
    """
    import cv2

    canvas = np.zeros(size, np.uint8)
    for polygon in polygons:
        if len(polygon) >= 3:
            cv2.fillPoly(canvas, [np.rint(polygon).astype(np.int32)], 1)
    return canvas.astype(bool)


def check_same_size(
    path: Path, mask: tuple[int, ...], image_path: Path, image: tuple[int, ...]
) -> None:
    """Refuses a mask of another size than its image.

    Raises:
        DataError: Heights or widths differ.
    """
    if mask[:2] != image[:2]:
        raise DataError(
            f"{path} is {mask[1]} x {mask[0]} pixels, but its image {image_path} is "
            f"{image[1]} x {image[0]}; take both from the same release, or remove them"
        )


def masks_of_classes(
    values: NDArray[np.integer],
    classes: Mapping[int, str],
    *,
    path: Path,
    unlabelled: Collection[int] = (0,),
) -> tuple[LabelMask, ...]:
    """Masks of the labels present in a class map ``(H, W)``, in the order of the table.

    Several classes may have the same label.

    Args:
        values: Class of every pixel.
        classes: Class to label id.
        path: The file, for the message.
        unlabelled: Classes without a label.

    Raises:
        DataError: A class that is in neither.
    """
    present = np.unique(values).tolist()
    unknown = sorted(set(present) - set(classes) - set(unlabelled))
    if unknown:
        known = sorted({*classes, *unlabelled})
        raise DataError(
            f"{path} has unknown classes {unknown[:5]}, known are {known}; take the mask as "
            "distributed, or remove it"
        )
    labels: dict[str, list[int]] = {}
    for value, label in classes.items():
        if value in present:
            labels.setdefault(label, []).append(value)
    return tuple(
        LabelMask(label, where_any(values, present_values))
        for label, present_values in labels.items()
    )


def where_any(values: NDArray[np.integer], wanted: Collection[int]) -> NDArray[np.bool_]:
    """Where a map has one of the values."""
    inside = np.zeros(values.shape, dtype=bool)
    for value in wanted:
        inside |= values == value
    return inside


def absent_labels(labels: Collection[str], masks: Collection[LabelMask]) -> tuple[str, ...]:
    """The exhaustively annotated labels without a mask."""
    present = {mask.label for mask in masks}
    return tuple(label for label in labels if label not in present)


def annotated_with(label: str, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Annotated:
    """An image in which this one label was outlined wherever it is."""
    masks = (LabelMask(label, mask),) if mask.any() else ()
    return Annotated(image, masks, None, absent_labels((label,), masks))


def file_safe(name: str) -> str:
    """A name without what file systems and our own layouts cannot take."""
    return re.sub(r"[^0-9A-Za-z.+-]+", "_", name).strip("_")


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """Files of a folder with one of these endings, in any case, sorted by name.

    A folder that is not there has none. Hidden files, which some systems leave behind in archives,
    do not count.
    """
    if not folder.is_dir():
        return []
    wanted = tuple(suffix.lower() for suffix in suffixes)
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(wanted) and not path.name.startswith(".")
    )


def folder_with(root: Path, *names: str, depth: int = 2) -> Path | None:
    """The folder that holds all these files or folders: ``root``, or one below it.

    Archives are unpacked with or without the folder they bring along.

    Args:
        root: Where to begin.
        names: What it must hold.
        depth: How many folders to go down.

    Returns:
        The first one, nearest first; None if there is none.
    """
    level = [root] if root.is_dir() else []
    for _ in range(depth + 1):
        for folder in level:
            if all((folder / name).exists() for name in names):
                return folder
        level = [below for folder in level for below in _folders_in(folder)]
    return None


def _folders_in(folder: Path) -> list[Path]:
    """Folders in a folder by name, without asking for every file what it is."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir())


def unpaired(stems: Collection[str], folder: Path, suffix: str) -> list[str]:
    """Names of the files that a folder lacks, of one for each picture."""
    there = {path.stem for path in list_files(folder, suffix)}
    return [f"{stem}{suffix}" for stem in sorted(set(stems) - there)]


def too_few(count: int, wanted: int, what: str) -> list[str]:
    """Says so if there are fewer files than published."""
    return [f"{count} of {wanted} {what}"] if count < wanted else []
