"""Annotated images listed in two tables: ``images.csv`` and ``labels.csv``.

``images.csv`` has a row per image (``source, image, mask, region, group, mpp``), ``labels.csv`` a
row per image and label (``source, image, mask, value, label, original``): where the mask, an 8-bit
map, has the value, the image shows the label. Paths are relative to the folder of the tables.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.store.tables import read_user_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["read_annotated", "split_images"]

NUCLEI = "unspecified-nuclei-nuclei"
TYPED = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
"""The types PanNuke distinguishes; every nucleus is one of them."""

UNKNOWN_TYPE = 255
"""PanNuke's nuclei of unknown type: a nucleus, but no evidence for or against a type."""

EXHAUSTIVE = {
    "pannuke_figures": TYPED,
    "pannuke_exact": TYPED,
    "wsss4luad": ("tumor epithelial tissue", "tumor associated stroma tissue", "normal tissue"),
    "bcss": ("tumor",),
}
"""Object types a source never leaves out where they are; only these are known to be absent."""

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
        split: A table ``source,image,group,split``; images it calls ``test`` are held out.

    Raises:
        DataError: The table is missing or broken, or part of a patient is held out.
    """
    rows = read_user_table(split, "source", "image", "group", "split")
    held = {(row["source"], row["image"]) for row in rows if row["split"] == "test"}
    train: list[SourceImage] = []
    test: list[SourceImage] = []
    for item in images:
        (test if (item.source, item.name) in held else train).append(item)
    torn = {(i.source, i.group) for i in train} & {(i.source, i.group) for i in test}
    if torn:
        raise DataError(
            f"{split} holds out only a part of {sorted(torn)[:3]}; hold out all or none"
        )
    return train, test


def _source_image(
    folder: Path, row: Mapping[str, str], labels: list[dict[str, str]]
) -> SourceImage:
    path = folder / row["image"]
    kept = [r for r in labels if (row["source"], r["original"]) not in MISNAMED]
    values = {int(r["value"]): r["label"] for r in kept}
    return SourceImage(
        source=row["source"],
        name=path.stem,
        group=row["group"] or path.stem,
        split=None,
        mpp=float(row["mpp"]) if row["mpp"].replace(".", "").isdigit() else ASSUMED_MPP,
        region=row["region"],
        path=path,
        read=partial(_read, path, folder / row["mask"], values, _absent(row, values)),
    )


def _absent(row: Mapping[str, str], values: Mapping[int, str]) -> tuple[str, ...]:
    """Labels that are known not to be in an image."""
    present = set(values.values())
    structure = "nuclei" if row["source"].startswith("pannuke") else "tissue"
    region = "unspecified" if row["source"] == "pannuke_figures" else row["region"]
    asked = (
        f"{region.replace('-', ' ')}-{structure}-{object_type}"
        for object_type in EXHAUSTIVE.get(row["source"], ())
    )
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
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} cannot be decoded: truncated or no picture; fetch it again")
    if colour:
        return np.ascontiguousarray(pixels[..., ::-1])
    return np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 0])
