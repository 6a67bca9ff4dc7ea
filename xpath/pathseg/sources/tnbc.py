"""TNBC: nuclei by cell type in 50 images of breast cancer and 18 of brain."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import (
    absent_labels,
    folder_with,
    list_files,
    masks_of_classes,
    read_label_map,
    read_pair,
    read_table,
    too_few,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["SOURCE"]

IMAGES = {
    "adipocyte": 7,
    "cancerous": 41,
    "endothelial": 19,
    "epithelial": 2,
    "fibroblast": 31,
    "glial": 6,
    "lymphocyte or plasmocyte": 42,
    "mitosis": 15,
    "myo epithelial": 1,
    "necrosis": 1,
    "neuron": 2,
}
"""Object type to the number of images that have it (paper, Table 5)."""
LABELS = {object_type: f"breast-cell-{object_type}" for object_type in IMAGES}
"""Object type to label id; the paper puts the brain images under breast as well."""

BRAIN = frozenset({"12", "13", "14"})
"""Slides of brain."""
ONLY_BRAIN = frozenset({"glial", "neuron"})
"""Types that no breast has: they tell neurons from epithelium, each of which is in two images."""
FIXED = {"necrosis": 8, "myo epithelial": 11}
"""Codes that the authors' own programs name; each is in a single image."""
ORIGINALS = 68
PICTURES, MAPS = "TNBC_and_Brain_dataset", "TNBC_and_Brain_dataset_celltype_integer"

INFO = published("TNBC", LABELS.values())


class Tnbc:
    """Images grouped by slide, one per patient, without an official split.

    The archive does not say what its integers mean. A ``classes.csv`` does; without one they are
    told apart by the number of images that have them, which is published for every cell type.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, slide by slide.

        Raises:
            DataError: The meaning of the integers is unclear.
        """
        pairs = _pairs(root)
        classes = _classes(root, [mask for _, mask in pairs]) if pairs else {}
        for path, mask in pairs:
            yield INFO.image(
                path,
                partial(_read, path, mask, classes),
                group=f"slide_{_slide(path)}",
            )

    def missing(self, root: Path) -> list[str]:
        """Cell type maps that are not there, how many images, and whether the classes are known."""
        pairs = _pairs(root)
        gaps = too_few(len(pairs), ORIGINALS, "pictures in Slide_XX")
        gaps += [f"{mask.parent.name}/{mask.name}" for _, mask in pairs if not mask.exists()]
        try:
            _classes(root, [mask for _, mask in pairs])
        except DataError as error:
            gaps += [f"classes.csv ({error})"] if pairs else []
        return gaps


SOURCE = Tnbc()


def _slide(path: Path) -> str:
    """``01`` of ``Slide_01/01_1.png`` and of ``GT_01/01_1.png``."""
    return path.parent.name.rpartition("_")[2]


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Every picture with the path of its cell type map."""
    maps = folder_with(root, MAPS)
    top = maps / MAPS if maps else folder_with(root, "GT_01") or root
    own = any(top.glob("Slide_*"))
    pictures = top if own else (folder_with(root, PICTURES) or root) / PICTURES
    return [
        (path, top / path.parent.name.replace("Slide", "GT") / path.name)
        for slide in sorted(pictures.glob("Slide_*"))
        for path in list_files(slide, ".png")
    ]


def _classes(root: Path, masks: list[Path]) -> dict[int, str]:
    """Integer to label id, from ``classes.csv`` or from the number of images."""
    folder = folder_with(root, "classes.csv")
    if folder is not None:
        return _written(folder / "classes.csv")
    slides: dict[int, list[str]] = {}
    broken = []
    for path in masks:
        try:
            values = read_label_map(path)
        except DataError:  # refused when the image itself is read
            broken.append(path)
            continue
        for value in np.unique(values[values > 0]).tolist():
            slides.setdefault(value, []).append(_slide(path))
    readable = len(masks) - len(broken)
    matchings = _matchings(slides, ORIGINALS - readable)
    if len(matchings) != 1 or not slides:
        integers = ", ".join(f"{value} in {len(where)}" for value, where in sorted(slides.items()))
        damage = f" ({broken[0]} and {len(broken) - 1} more are broken)" if broken else ""
        raise DataError(
            f"{root} has the integers {integers or 'none'} of {readable} cell type maps{damage}, "
            "and their numbers do not tell cell types apart: take the celltype_integer archive "
            "with all 68 images, or write classes.csv with the columns value and class "
            f"({', '.join(IMAGES)})"
        )
    return {value: LABELS[object_type] for value, object_type in matchings[0].items()}


def _written(path: Path) -> dict[int, str]:
    """Integer to label id, as somebody wrote it down."""
    classes = {}
    for row in read_table(path, "value", "class"):
        object_type = re.sub(r"[\s_-]+", " ", row["class"].lower())
        if object_type not in LABELS or not row["value"].isdigit():
            raise DataError(
                f"{path} has the row {row}; wanted an integer and one of {', '.join(LABELS)}"
            )
        classes[int(row["value"])] = LABELS[object_type]
    return classes


def _matchings(slides: Mapping[int, list[str]], unread: int) -> list[dict[int, str]]:
    """Ways, at most two, to give every integer the cell type whose published number it has.

    Args:
        slides: Integer to the slide of each image that has it.
        unread: Images we know nothing of; each may add one to any number.
    """
    if not slides:
        return [{}]
    # the integer with the fewest candidates first keeps the search short
    candidates = {
        value: [object_type for object_type in IMAGES if _may_be(value, where, object_type, unread)]
        for value, where in slides.items()
    }
    return _assign(candidates)[:2]


def _assign(candidates: Mapping[int, list[str]]) -> list[dict[int, str]]:
    if not candidates:
        return [{}]
    value = min(candidates, key=lambda value: len(candidates[value]))
    matchings: list[dict[int, str]] = []
    for object_type in candidates[value]:
        rest = {
            other: [choice for choice in choices if choice != object_type]
            for other, choices in candidates.items()
            if other != value
        }
        matchings += [{value: object_type} | matching for matching in _assign(rest)]
        if len(matchings) > 1:
            break
    return matchings


def _may_be(value: int, where: list[str], object_type: str, unread: int) -> bool:
    """If an integer in these slides can mean this cell type."""
    if object_type in ONLY_BRAIN and not BRAIN.issuperset(where):
        return False
    if FIXED.get(object_type, value) != value:
        return False
    return IMAGES[object_type] - unread <= len(where) <= IMAGES[object_type]


def _read(path: Path, mask_path: Path, classes: Mapping[int, str]) -> Annotated:
    """An image with all its nuclei."""
    image, values = read_pair(path, mask_path)
    masks = masks_of_classes(values, classes, path=mask_path)
    return Annotated(image, masks, None, absent_labels(INFO.labels, masks))
