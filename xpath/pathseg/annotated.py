"""Annotated images listed in two tables: ``images.csv`` and ``labels.csv``.

``images.csv`` has a row per image (``source, image, mask, region, group, mpp``), ``labels.csv`` a
row per image and label (``source, image, mask, value, label, original``): where the mask, an 8-bit
map, has the value, the image shows the label. Paths are relative to the folder of the tables.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.store.names import is_missing
from xpath.store.pixel_types import convert_pixels, dim_values
from xpath.store.tables import parse_number, read_user_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["presuming_absence", "read_annotated", "read_split", "split_images"]

NUCLEI = "unspecified-nuclei-nuclei"
TYPED = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
"""The types PanNuke distinguishes; every nucleus is one of them."""

UNKNOWN_TYPE = 255
"""PanNuke's nuclei of unknown type: a nucleus, but no evidence for or against a type."""

EXHAUSTIVE = {
    "pannuke_figures": tuple(f"nuclei-{name}" for name in TYPED),
    "pannuke_exact": tuple(f"nuclei-{name}" for name in TYPED),
    "wsss4luad": (
        "tissue-tumor epithelial tissue",
        "tissue-tumor associated stroma tissue",
        "tissue-normal tissue",
    ),
    "bcss": ("tissue-tumor",),
    "gtex_fat": ("tissue-necrosis or debris", "tissue-tumor"),
    "sbu_necrosis": ("tissue-fat",),
    "bcss_pseudo": ("tissue-fat",),
}
"""Classes a source never leaves out where they are; only these are known to be absent."""

LABELLED_AS = {
    "pannuke_figures": "unspecified",
    "gtex_fat": "breast",
    "sbu_necrosis": "breast",
}
"""Region in the labels of a source, where it is not that of the image."""

PRESUMED_ABSENT = {
    "pannuke_figures": ("breast-tissue-fat", "breast-tissue-necrosis or debris"),
    "pannuke_exact": ("breast-tissue-fat", "breast-tissue-necrosis or debris"),
    "glas": ("breast-tissue-fat",),
    "wsss4luad": ("breast-tissue-fat",),
}
"""Tissue that was not annotated and is not seen in a source, or so seldom that a training may take
it as absent; an examination may not."""
DEATH = ("nuclei-dead", "tissue-necrosis or debris")
"""Where one of these is, the other may be."""

MISNAMED = {("pannuke_breast", "non-neoplastic")}
"""Classes whose label says more than was annotated: these nuclei are any that are not neoplastic,
connective and inflammatory ones as well, and no example of epithelium."""

ASSUMED_MPP = 0.25
"""For images without a resolution; their nuclei are as large as at 40x."""


def read_annotated(folder: Path) -> list[SourceImage]:
    """All images of ``folder/images.csv``, in the order of the table, none decoded yet.

    Nuclei of all types together are one more label, ``unspecified-nuclei-nuclei``, where every
    nucleus was annotated.

    Raises:
        DataError: A table is missing or lacks a column.
    """
    images = read_user_table(
        folder / "images.csv", "source", "image", "mask", "region", "group", "mpp"
    )
    labels: dict[str, list[dict[str, str]]] = {}
    for row in read_user_table(
        folder / "labels.csv", "source", "image", "value", "label", "original"
    ):
        labels.setdefault(row["image"], []).append(row)
    return [_source_image(folder, row, labels.get(row["image"], [])) for row in images]


def split_images(
    images: Iterable[SourceImage], split: Path
) -> tuple[list[SourceImage], list[SourceImage]]:
    """Images to train on, and images held out.

    Args:
        images: Of any sources.
        split: A table ``source,image,group,split``, or a folder of such; images it calls ``test``
            are held out, those it calls ``apart`` (of a patient that another source holds out) are
            left out, all others are trained on.

    Raises:
        DataError: The table is missing or broken, or part of a patient is held out.
    """
    named = read_split(split)
    train: list[SourceImage] = []
    test: list[SourceImage] = []
    for item in images:
        part = named.get((item.source, item.name), "train")
        if part != "apart":
            (test if part == "test" else train).append(item)
    torn = {(i.source, i.group) for i in train} & {(i.source, i.group) for i in test}
    if torn:
        raise DataError(
            f"{split} holds out only a part of {sorted(torn)[:3]}; hold out all or none"
        )
    return train, test


def read_split(split: Path) -> dict[tuple[str, str], str]:
    """Source and image to ``train``, ``validation`` (of the training images), ``test``, ``apart``.

    Args:
        split: A table ``source,image,group,split``, or a folder of such.

    Raises:
        DataError: A table is missing or broken.
    """
    tables = sorted(split.glob("*.csv")) if split.is_dir() else [split]
    rows = (
        row
        for table in tables
        for row in read_user_table(table, "source", "image", "group", "split")
    )
    return {(row["source"], row["image"]): row["split"] for row in rows}


def _source_image(
    folder: Path, row: Mapping[str, str], labels: list[dict[str, str]]
) -> SourceImage:
    path = folder / row["image"]
    kept = [r for r in labels if (row["source"], r["original"]) not in MISNAMED]
    values = {int(_number(r, "value", folder)): r["label"] for r in kept}
    return SourceImage(
        source=row["source"],
        name=path.stem,
        group=row["group"] or path.stem,
        split=None,
        mpp=ASSUMED_MPP if is_missing(row["mpp"]) else _number(row, "mpp", folder),
        region=row["region"],
        path=path,
        read=partial(_read, path, folder / row["mask"], values, _absent(row, values)),
    )


def _number(row: Mapping[str, str], column: str, folder: Path) -> float:
    """A mask's value, or a resolution."""
    try:
        number = parse_number(row[column])
    except ValueError:
        number = math.nan
    if math.isfinite(number) and (number > 0 if column == "mpp" else number.is_integer()):
        return number
    wanted = "microns per pixel, or ? for unknown" if column == "mpp" else "a mask's value"
    raise DataError(
        f"{folder}: {column} of {row['image']} must be {wanted}, got {row[column]!r}; correct the"
        " table"
    )


def presuming_absence(image: SourceImage) -> SourceImage:
    """An image that also names, once it is read, what a training may take as absent."""
    presumed = PRESUMED_ABSENT.get(image.source, ())
    return (
        replace(image, read=partial(_read_presuming, image.read, presumed)) if presumed else image
    )


def _read_presuming(read: Callable[[], Annotated], presumed: tuple[str, ...]) -> Annotated:
    annotated = read()
    names = [label for label, _ in annotated.masks]
    dying = any(name.endswith(DEATH) for name in names)
    more = (label for label in presumed if not (dying and label.endswith(DEATH)))
    return annotated._replace(absent=(*annotated.absent, *more))


def _absent(row: Mapping[str, str], values: Mapping[int, str]) -> tuple[str, ...]:
    """Labels that are known not to be in an image."""
    present = set(values.values())
    region = LABELLED_AS.get(row["source"], row["region"]).replace("-", " ")
    asked = (f"{region}-{name}" for name in EXHAUSTIVE.get(row["source"], ()))
    return tuple(label for label in asked if label not in present)


def _read(image: Path, mask: Path, values: Mapping[int, str], absent: tuple[str, ...]) -> Annotated:
    """Decodes an image and its map of labels."""
    pixels, ids = _decode(image, colour=True), _decode(mask, colour=False)
    if pixels.shape[:2] != ids.shape:
        raise DataError(
            f"{mask} has {ids.shape} pixels, but its image {image.name} {pixels.shape[:2]};"
            " mask and image must be of one size: export the mask again"
        )
    masks = [LabelMask(label, ids == value) for value, label in values.items()]
    typed = bool(values) and all("-nuclei-" in label for label in values.values())
    if typed and NUCLEI not in values.values():
        masks.append(LabelMask(NUCLEI, ids > 0))
    unknown = ids == UNKNOWN_TYPE if UNKNOWN_TYPE not in values else None
    ignore = unknown if unknown is not None and unknown.any() else None
    return Annotated(pixels, tuple(masks), ignore, absent)


def _decode(path: Path, *, colour: bool) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` or a map ``(H, W)``."""
    import cv2

    if not path.is_file():
        raise DataError(f"{path} is missing; it is named in images.csv: copy it there")
    as_stored = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imread(str(path), as_stored if colour else cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} cannot be decoded: truncated or no picture; fetch it again")
    if colour:
        return np.ascontiguousarray(_of_8_bits(path, pixels)[..., ::-1])
    return np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 0])


def _of_8_bits(path: Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of 8 bits, of 16 bits the upper ones."""
    if pixels.dtype == np.uint8:
        return pixels
    type_ = str(pixels.dtype)
    if pixels.dtype == np.uint16:
        type_ = dim_values(int(pixels.max()))
    if type_:
        raise DataError(convert_pixels(path, type_))
    return (pixels >> 8).astype(np.uint8)
